"""Reading, labelling and writing: one shard after the other, each whole or absent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from regionclip_cli.data.boxes import GivenBoxes
from regionclip_cli.data.pixels import decode
from regionclip_cli.data.region_labels.format import RegionLabel, Row
from regionclip_cli.data.region_labels.store import remove_parts, writing_shard
from regionclip_cli.errors import InputError
from regionclip_cli.inference.prefetch import prefetch
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage, prepare_image
from regionclip_cli.recipe.scoring import as_scoring
from regionclip_cli.runs.progress import Progress
from regionclip_cli.stages.label_plan import Plan
from regionclip_cli.stages.label_teacher import RegionTeacher

MOST_WARNINGS = 20
"""So many unreadable images are told one by one; all of them are listed in the end."""


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        images: Images labelled in this run.
        regions: Regions with a label.
        failed: Images that could not be read.
    """

    images: int = 0
    regions: int = 0
    failed: int = 0


class Reader:
    """Reads images by number and makes them ready for the teacher; called from several threads.

    Args:
        plan: What to do.
    """

    def __init__(self, plan: Plan) -> None:
        self._pairs = plan.pairs
        self._boxes = plan.boxes
        self._keep = plan.settings.teacher_view == "crop"
        self._looking = InferenceConfig(as_scoring(None), plan.settings.short_side, plan.settings.max_side)

    def __call__(self, number: int) -> PreparedImage:
        """Return an image.

        Raises:
            InputError: It cannot be read, or a given box lies outside it.
        """
        pair = self._pairs[number]
        pixels = decode(_bytes(pair.key, pair.read()), pair.key)
        given: GivenBoxes | None = None
        if self._boxes is not None:
            height, width = pixels.shape[:2]
            given, _ = self._boxes.find(pair.key).within(pair.key, width, height)
        return prepare_image(pair.key, pixels, self._looking, given, self._keep)


def label_shards(
    plan: Plan, shards: Sequence[int], teacher: RegionTeacher, progress: Progress, tally: Tally | None = None
) -> Tally:
    """Write shards, one after the other.

    A batch is always the same images, wherever a run was cut off: the shard's first `batch` images, the next ones, and
    so on. What stands in a shard depends on nothing else, so it has the same bytes from whichever process wrote it;
    between kinds of devices, or numbers of threads, networks round differently, and a last digit may be another.

    Args:
        plan: What to do.
        shards: Which ones; what killed runs have left of them is removed.
        teacher: Names the regions.
        progress: Is told of every batch.
        tally: Counted further.

    Raises:
        OutputError: A shard cannot be written; those before it stay.
    """
    tally = tally or Tally()
    reader = Reader(plan)
    for shard in shards:
        remove_parts(plan.folder, shard)
        with writing_shard(plan.folder, shard) as writer:
            for rows in label_batches(plan.manifest.rows_of(shard), plan, reader, teacher):
                for row in rows:
                    writer.add(row)
                    _count(row, tally, progress)
                progress.advance(len(rows))
    return tally


def label_batches(numbers: Sequence[int], plan: Plan, reader: Reader, teacher: RegionTeacher) -> Iterator[list[Row]]:
    """Yield the rows of images, by number, batch by batch."""
    size = plan.settings.batch
    with closing(prefetch(numbers, reader, ahead=size + 2)) as reading:
        while arrived := list(islice(reading, size)):
            ready = [(number, image) for number, image in arrived if isinstance(image, PreparedImage)]
            labels: dict[int, RegionLabel] = {}
            if ready:
                found = teacher.label([image for _, image in ready], [number for number, _ in ready])
                labels = {number: label for (number, _), label in zip(ready, found, strict=True)}
            yield [
                Row(plan.pairs.key(number), labels.get(number), image.message if isinstance(image, InputError) else "")
                for number, image in arrived
            ]


def _count(row: Row, tally: Tally, progress: Progress) -> None:
    tally.images += 1
    if row.label is not None:
        tally.regions += len(row.label.boxes)
        return
    tally.failed += 1
    if tally.failed <= MOST_WARNINGS:
        progress.warn(row.error)
    elif tally.failed == MOST_WARNINGS + 1:
        progress.warn("Further unreadable images are listed in errors.jsonl only.")


def _bytes(key: str, data: bytes) -> bytes:
    """Return the bytes of an image.

    Raises:
        InputError: There are none.
    """
    if not data:
        raise InputError(f"{key} is empty.")
    return data
