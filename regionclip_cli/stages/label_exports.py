"""Exports of finished region labels: a COCO file, a page of sample regions, a list of failures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from regionclip_cli.data.captions import PairSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.data.region_labels import LabelManifest, RegionLabels
from regionclip_cli.data.region_labels.store import is_there, read_index, read_rows
from regionclip_cli.errors import InputError, UsageError, did_you_mean
from regionclip_cli.files import whole_file
from regionclip_cli.results.detections import ImageRecord
from regionclip_cli.results.html.region_page import PageImage, PageRegion, write_region_page
from regionclip_cli.results.records import Records
from regionclip_cli.results.writers import coco

FORMATS = ("coco", "html")
PAGE, ERRORS = "regions.html", "errors.jsonl"
PAGE_IMAGES, PAGE_REGIONS, COUNTED_IMAGES = 16, 8, 1000


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return formats, each once.

    Raises:
        UsageError: One is unknown.
    """
    for name in formats:
        if name not in FORMATS:
            hint = f"{did_you_mean(name, FORMATS)} Formats: {', '.join(FORMATS)}.".strip()
            raise UsageError(f"Unknown label format {name!r}.", hint)
    return tuple(dict.fromkeys(formats))


def export(folder: Path, formats: Sequence[str], pairs: PairSet, facts: dict[str, str]) -> list[Path]:
    """Export finished labels to files beside them, and return the files.

    `coco` writes a COCO data set and the page; `html` writes only the page.

    Args:
        folder: Folder of the labels.
        formats: Some of `FORMATS`.
        pairs: The images that were labelled.
        facts: Facts at the top of the page.

    Raises:
        MissingError: A shard is missing.
        OutputError: A file cannot be written.
    """
    labels = RegionLabels.open(folder)
    written = []
    if "coco" in formats:
        records = _LabelRecords(labels)
        coco.render(records, folder, records.categories)
        written.append(folder / coco.FILE)
    frequent = _frequent(labels)
    write_region_page(folder / PAGE, facts, frequent, _samples(labels, pairs))
    return [*written, folder / PAGE]


def write_errors(folder: Path, manifest: LabelManifest) -> Path | None:
    """List the unreadable images of all finished shards, and return the file, or None without failures.

    Of several processes that end at the same time, the last one to write has seen all shards.

    Raises:
        OutputError: The list cannot be written.
    """
    path = folder / ERRORS
    while True:
        there = [shard for shard in range(manifest.shards) if is_there(folder, shard)]
        lines = [
            json.dumps({"image": key, "error": error}).encode() for key, error in _failures(folder, manifest, there)
        ]
        if lines:
            with whole_file(path) as part:
                part.write_bytes(b"\n".join([*lines, b""]))
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if there == [shard for shard in range(manifest.shards) if is_there(folder, shard)]:
            return path if lines else None


def count_failures(folder: Path, manifest: LabelManifest, shards: Sequence[int]) -> int:
    """Return the number of unreadable images in finished shards."""
    return sum(
        int(read_index(folder, shard, len(manifest.rows_of(shard)))["failed"].sum())
        for shard in shards
        if is_there(folder, shard)
    )


def _failures(folder: Path, manifest: LabelManifest, shards: Sequence[int]) -> Iterator[tuple[str, str]]:
    for shard in shards:
        with suppress(UsageError):  # damaged since: the run that repairs it lists its failures
            index = read_index(folder, shard, len(manifest.rows_of(shard)))
            for row in read_rows(folder, shard, index["start"], index["failed"].nonzero()[0].tolist(), manifest.kept):
                yield row.key, row.error


class _LabelRecords(Records):
    """Region labels as a COCO writer reads them: the best concept of every region."""

    def __init__(self, labels: RegionLabels) -> None:
        self._labels = labels
        used = {concept for _, label in _labelled(labels) for concept in label.concepts[:, 0].tolist()}
        self.categories = [labels.manifest.names[concept] for concept in sorted(used)]

    def __iter__(self) -> Iterator[ImageRecord]:
        """Yield every image that could be read."""
        names = self._labels.manifest.names
        for key, label in _labelled(self._labels):
            yield {
                "image": key,
                "width": label.size[0],
                "height": label.size[1],
                "detections": [
                    {"label": names[concept], "score": round(float(prob), 4), "box": [round(float(x), 2) for x in box]}
                    for box, concept, prob in zip(label.boxes, label.concepts[:, 0], label.probs[:, 0], strict=True)
                ],
            }

    def __len__(self) -> int:
        """Return the number of images, unreadable ones included."""
        return len(self._labels)


def _labelled(labels: RegionLabels) -> Iterator[tuple[str, Any]]:
    return ((row.key, row.label) for row in labels.rows() if row.label is not None)


def _spread(total: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced numbers below `total`."""
    count = min(total, most)
    return [place * total // count for place in range(count)]


def _frequent(labels: RegionLabels) -> list[tuple[str, int]]:
    """Return the most frequent concepts with their counts, from a sample of images."""
    counts: Counter[int] = Counter()
    for number in _spread(len(labels), COUNTED_IMAGES):
        label = labels.row(number).label
        if label is not None:
            counts.update(label.concepts[:, 0].tolist())
    return [(labels.manifest.names[concept], count) for concept, count in counts.most_common(40)]


def _samples(labels: RegionLabels, pairs: PairSet) -> Iterator[PageImage]:
    """Yield sample images, each with its most probable regions."""
    for number in _spread(len(labels), PAGE_IMAGES):
        key, label, _ = labels.row(number)
        if label is None:
            continue
        with suppress(InputError):  # the image may have been removed since
            pair = pairs[number]
            order = (-label.probs[:, 0]).argsort(kind="stable")[:PAGE_REGIONS]
            regions = tuple(_region(labels, label, int(at)) for at in order)
            yield PageImage(key, pair.captions, decode(pair.read(), key), regions, len(label.boxes))


def _region(labels: RegionLabels, label: Any, at: int) -> PageRegion:
    named = zip(label.concepts[at][:5].tolist(), label.probs[at][:5].tolist(), strict=True)
    return PageRegion(
        box=tuple(label.boxes[at].tolist()),
        objectness=None if label.objectness is None else float(label.objectness[at]),
        concepts=tuple((labels.manifest.names[concept], prob) for concept, prob in named),
    )
