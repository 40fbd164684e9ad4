"""`--dry-run`: what a job of labelling would do, measured on a few of its images."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regionclip_cli.data.region_labels.rows import format_row
from regionclip_cli.stages.labelling.plan import Plan
from regionclip_cli.stages.labelling.teacher import RegionTeacher
from regionclip_cli.stages.labelling.work import Reader, label_batches

TIMED = 3
"""Batches that are timed, after one that is not."""


@dataclass(frozen=True)
class Estimate:
    """What a job of labelling would do.

    Attributes:
        images: Images of this share that are not labelled yet.
        shards: Shards of this share that are not whole yet.
        concepts: Number C of concepts.
        regions: Most regions of an image.
        labels: Labelled regions to be expected of all images.
        images_per_second: Measured; None where none of the tried images could be read.
        seconds: How long it would take on this machine.
        bytes: How much would be written.
        free: Bytes free on the disk.
        folder: Where the labels would go.
    """

    images: int
    shards: int
    concepts: int
    regions: int
    labels: int | None
    images_per_second: float | None
    seconds: float | None
    bytes: int | None
    free: int
    folder: Path

    @property
    def failed(self) -> int:
        """Nothing has failed: nothing was done."""
        return 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"dry_run": True, **asdict(self), "folder": str(self.folder)}

    def summary(self) -> str:
        """Return a few sentences for a person."""
        said = (
            f"{self.images} images in {self.shards} shards, up to {self.regions} regions each, {self.concepts} "
            f"concepts; labels would go to {self.folder}."
        )
        if self.seconds is None or self.bytes is None:
            return said + (" None of the images that were tried can be read." if self.images else " All is done.")
        said += (
            f" About {_time(self.seconds)} here ({self.images_per_second:.3g} images/s), {self.labels} labelled regions"
            f" and {_size(self.bytes)} on the disk, which has {_size(self.free)} free."
        )
        return said + (" THE DISK IS TOO SMALL." if self.bytes > self.free else "")


def estimate(plan: Plan) -> Estimate:
    """Load the networks, label a few images, and reckon; nothing is written."""
    left = plan.left()
    total = sum(len(plan.manifest.rows_of(shard)) for shard in left)
    rate = size = regions = None
    batch = plan.settings.batch
    if total:
        teacher, reader = RegionTeacher(plan), Reader(plan)
        seconds, done, written, labelled = 0.0, 0, 0, 0
        for turn in range(TIMED + 1):
            shard = plan.manifest.rows_of(left[turn * len(left) // (TIMED + 1)])
            first = shard[turn * len(shard) // (TIMED + 1)]
            began = time.perf_counter()
            for rows in label_batches(range(first, min(first + batch, shard.stop)), plan, reader, teacher):
                good = [row for row in rows if row.label is not None]
                if turn:
                    seconds += time.perf_counter() - began
                    done += len(good)
                    written += sum(len(format_row(row)) for row in good)
                    labelled += sum(len(row.label.boxes) for row in good if row.label is not None)
        if done:
            rate, size, regions = done / max(seconds, 1e-9), total * written // done, total * labelled // done
    return Estimate(
        images=total,
        shards=len(left),
        concepts=len(plan.bank.names),
        regions=plan.settings.regions,
        labels=regions,
        images_per_second=rate,
        seconds=None if rate is None else total / rate,
        bytes=size,
        free=_free(plan.folder),
        folder=plan.folder,
    )


def _free(folder: Path) -> int:
    """Return the bytes free where a folder is or would be."""
    nearest = Path(os.path.abspath(folder))
    while not nearest.exists():
        nearest = nearest.parent
    return shutil.disk_usage(nearest).free


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
