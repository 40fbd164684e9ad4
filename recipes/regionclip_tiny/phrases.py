"""Phrases for the text tower to learn: WordNet's nouns, noun phrases of captions, class names.

    python phrases.py --data DIR --wordnet /usr/share/wordnet --out phrases.txt

WordNet 3.0 is Debian's package `wordnet-base`. Lemmas that start with a capital letter (people, places, Latin
taxa) are mostly invisible or rare; WordNet's index is lower-cased, so the sense data decides.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

import sources

STOP = frozenset(
    """a an the of in on at with and or to for from by is are was were be being been has have having his her its their
    this that these those there it he she they them as into onto over under near next up down out off while who which
    some two three four several many one other another each very""".split()
)


def wordnet_nouns(folder: Path) -> list[str]:
    """Return lower-case noun lemmas that WordNet also spells in lower case, underscores as spaces."""
    kept: dict[str, None] = {}
    for line in (folder / "data.noun").read_text(errors="replace").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split(" ")
        count = int(fields[3], 16)
        for lemma in fields[4 : 4 + 2 * count : 2]:
            if lemma == lemma.lower() and re.fullmatch(r"[a-z][a-z_'-]+", lemma) and lemma.count("_") < 3:
                kept[lemma.replace("_", " ")] = None
    return list(kept)


def caption_phrases(captions: list[str], least: int) -> list[str]:
    """Return runs of one to three words between stop words that occur at least `least` times."""
    counts: Counter[str] = Counter()
    for caption in captions:
        run: list[str] = []
        for word in [*re.findall(r"[a-z][a-z'-]*|[.,;]", caption.lower()), "."]:
            if word in STOP or not word[0].isalpha():
                for size in (1, 2, 3):
                    for start in range(len(run) - size + 1):
                        counts[" ".join(run[start : start + size])] += 1
                run = []
            else:
                run.append(word)
    return [phrase for phrase, count in counts.most_common() if count >= least]


def gather(data: Path, wordnet: Path) -> list[str]:
    """Return all phrases, each once: class names, synonyms, labels, caption phrases, captions, WordNet."""
    flickr = [c for row in sources.read_jsonl(data / "captions/flickr8k.jsonl") for c in row["captions"]]
    coco_val = [c for row in sources.read_jsonl(data / "captions/coco_val2017.jsonl") for c in row["captions"]]
    names, _ = sources.clip_vectors(data)
    labels = [
        photo.captions[0] for key in ("imagenet-sample", "caltech101-sample") for photo in sources.labelled(data, key)
    ]
    short = [c.lower().rstrip(" .") for c in flickr[::4]]
    phrases = [*names, *labels, *caption_phrases(flickr + coco_val, 3), *wordnet_nouns(wordnet), *short]
    return list(dict.fromkeys(p.strip().lower() for p in phrases if 1 < len(p.strip()) < 100))


def main() -> None:
    """Write one phrase a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    phrases = gather(args.data, args.wordnet)
    args.out.write_text("\n".join(phrases) + "\n")
    print(f"{len(phrases)} phrases -> {args.out}")


if __name__ == "__main__":
    main()
