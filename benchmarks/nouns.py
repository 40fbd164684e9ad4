"""How far the two parsers of `regionclip concepts` agree, and how fast they are.

    python benchmarks/nouns.py captions.jsonl [more files] [--cuts 5,10,20,50,100] [--json]

Both pools are cut at the same count. Precision is the share of the default parser's concepts that are in spaCy's pool,
recall the share of spaCy's that are in the default's. spaCy's English model must be installed
(`pip install "regionclip-cli[spacy]"`, then `python -m spacy download en_core_web_sm`; `--spacy-model` takes the folder
of a model too); without it the default parser is measured alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from typing import Any

from regionclip_cli.data.captions import stream_captions
from regionclip_cli.data.captions.base import guess_form
from regionclip_cli.errors import MissingError
from regionclip_cli.language.nouns import spacy as spacy_parser
from regionclip_cli.language.nouns.pool import NounCounts, choose_concepts, count_nouns
from regionclip_cli.recipe.schema import CaptionData


def measure(captions: list[str], parser: str) -> tuple[NounCounts, float]:
    """Return what a parser counts, and captions a second in one process, start-up left out."""
    count_nouns(captions[:100], parser)
    start = time.perf_counter()
    found = count_nouns(captions, parser)
    return found, len(captions) / (time.perf_counter() - start)


def agreement(ours: Counter[str], theirs: Counter[str], cut: int) -> dict[str, Any]:
    """Return precision and recall of two pools at one cut, and the most frequent differences."""
    pools = [set(choose_concepts(counts, cut).names) for counts in (ours, theirs)]
    shared = pools[0] & pools[1]
    return {
        "min_count": cut,
        "hanta": len(pools[0]),
        "spacy": len(pools[1]),
        "precision": round(len(shared) / len(pools[0]), 3),
        "recall": round(len(shared) / len(pools[1]), 3),
        "only_hanta": sorted(pools[0] - shared, key=lambda name: (-ours[name], name))[:8],
        "only_spacy": sorted(pools[1] - shared, key=lambda name: (-theirs[name], name))[:8],
    }


def main() -> None:
    """Measure every file by itself."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="+", help="caption files of any form")
    arguments.add_argument("--cuts", default="5,10,20,50,100", help="counts to cut both pools at")
    arguments.add_argument("--spacy-model", default=spacy_parser.MODEL, help="name or folder of spaCy's model")
    arguments.add_argument("--json", action="store_true", help="one JSON object a file")
    options = arguments.parse_args()
    spacy_parser.MODEL = options.spacy_model
    for path in options.files:
        captions = list(stream_captions([CaptionData(dataset=guess_form(path), path=path)]))
        ours, speed = measure(captions, "hanta")
        report: dict[str, Any] = {"file": path, "captions": len(captions), "hanta_captions_per_second": round(speed)}
        try:
            theirs, their_speed = measure(captions, "spacy")
        except MissingError as err:
            report["spacy"] = str(err)
        else:
            report["spacy_captions_per_second"] = round(their_speed)
            most = min(max(ours.nouns.values()), max(theirs.nouns.values()))
            cuts = [int(cut) for cut in options.cuts.split(",") if int(cut) <= most]
            report["pools"] = [agreement(ours.nouns, theirs.nouns, cut) for cut in cuts]
        print(json.dumps(report) if options.json else as_text(report))


def as_text(report: dict[str, Any]) -> str:
    """Return a report for a person."""
    lines = [f"{report['file']}: {report['captions']:,} captions, {report['hanta_captions_per_second']:,} a second"]
    lines += [f"  {report['spacy']}"] if "spacy" in report else []
    if "pools" in report:
        lines[0] += f" (spaCy: {report['spacy_captions_per_second']:,})"
        lines.append(
            f"  {'count':>6} {'hanta':>6} {'spacy':>6} {'precision':>9} {'recall':>7}   only hanta | only spacy"
        )
    for row in report.get("pools", []):
        only = " | ".join(", ".join(row[key]) for key in ("only_hanta", "only_spacy"))
        numbers = (
            f"{row['min_count']:>6} {row['hanta']:>6} {row['spacy']:>6} {row['precision']:>9.3f} {row['recall']:>7.3f}"
        )
        lines.append(f"  {numbers}   {only}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
