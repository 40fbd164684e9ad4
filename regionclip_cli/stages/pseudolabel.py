"""All that is decided before the first image is read: which images, concepts, networks and shards."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regionclip_cli.data.region_labels.format import MANIFEST, claim, format_row, read_manifest
from regionclip_cli.errors import UsageError, pluralize
from regionclip_cli.recipe.schema import PseudolabelSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress, Silent, resumable
from regionclip_cli.runs.sharding import choose_share
from regionclip_cli.stages.label_exports import check_formats, count_failures, export, write_errors
from regionclip_cli.stages.label_plan import Plan, make_plan
from regionclip_cli.stages.label_shards import Reader, Tally, label_batches, label_shards
from regionclip_cli.stages.label_teacher import RegionTeacher

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
            f"{self.images} images in {self.shards} shards, up to {self.regions} regions per image, {self.concepts} "
            f"concepts. Would write labels to {self.folder}."
        )
        if self.seconds is None or self.bytes is None:
            return said + (" None of the sampled images can be read." if self.images else " Nothing left to do.")
        said += (
            f" About {_time(self.seconds)} here ({self.images_per_second:.3g} images/s), {self.labels} labelled regions"
            f" and {_size(self.bytes)} of disk space ({_size(self.free)} free)."
        )
        return said + (" Not enough disk space." if self.bytes > self.free else "")


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


@dataclass(frozen=True)
class PseudolabelResult:
    """What a run did.

    Attributes:
        images: Images labelled in this run.
        regions: Regions that got a label in it.
        shards: Shards written in it.
        done_before: Shards of this share that were there already.
        shards_in_all: Shards of all shares.
        failed: Images of this share that could not be read, now or before.
        folder: Where the labels are.
        finished: Whether the shards of all shares are there.
        errors: The list of unreadable images, where there are any.
        written: Other forms of the labels that were written.
    """

    images: int
    regions: int
    shards: int
    done_before: int
    shards_in_all: int
    failed: int
    folder: Path
    finished: bool
    errors: Path | None = None
    written: tuple[Path, ...] = ()

    def summary(self) -> str:
        """Return one sentence for a person."""
        done = (pluralize(self.regions, "regions"), pluralize(self.images, "images"), pluralize(self.shards, "shards"))
        parts = ["{} of {} labelled, {} written".format(*done)]
        parts += [f"{self.done_before} already done"] if self.done_before else []
        parts += [f"{pluralize(self.failed, 'images')} unreadable, listed in {self.errors}"] if self.failed else []
        said = f"{'; '.join(parts)}. Labels are in {self.folder}."
        said += "" if self.finished else f" Other processes are still working on the {self.shards_in_all} shards."
        return said + (f" Written: {', '.join(map(str, self.written))}." if self.written else "")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        return values | {
            "folder": str(self.folder),
            "errors": None if self.errors is None else str(self.errors),
            "written": [str(path) for path in self.written],
        }


def run(
    recipe: Recipe,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    shard_of: str | None = None,
    formats: Sequence[str] = (),
) -> PseudolabelResult | Estimate:
    """Label the images of a recipe's captions.

    An image that cannot be read costs only itself: its row says why, and `errors.jsonl` lists it. To try it again,
    remove the shard that has it and resume.

    Args:
        recipe: Its sections `data.captions`, `model` and `pseudolabel`.
        progress: Told what is going on.
        resume: Go on with what an earlier run has left; shards that are whole stay as they are.
        dry_run: Only say what would be done; nothing is written.
        shard_of: This process's share, such as "2/8"; left out, what `torchrun` says, else everything.
        formats: Other forms to write when all is done, of `coco` and `html`. For labels that are finished already the
            teacher is not asked again.

    Raises:
        MissingError: Captions, a model or the concept bank is not there.
        OutputError: The labels cannot be written; shards that are whole stay.
        UsageError: The recipe does not fit together, or the folder holds labels already.
    """
    progress = progress or Silent()
    formats = check_formats(formats)
    share = choose_share(shard_of)
    plan = make_plan(recipe, share, progress)
    _check_folder(plan)
    if dry_run:
        return estimate(plan)
    begun, left = plan.begun(), plan.left()
    only_export = bool(formats) and not left and plan.finished()
    if begun and not (resume or only_export):
        raise UsageError(
            f"{plan.folder} already contains labels of another run: {len(begun)} of {len(plan.shards)} shards.",
            "Add --resume to continue that run, or choose another folder with out=...",
        )
    joint, taken_up = share.count > 1, (plan.folder / MANIFEST).exists()
    with RunFolder(Path(recipe.out)).opened(
        recipe, "pseudolabel", resume=taken_up, joint=joint, share=(share.index, share.count)
    ) as record:
        plan.manifest.check_same(claim(plan.folder, plan.manifest), plan.folder)
        tally = _label(plan, left, progress) if left else Tally()
        if tally.failed < tally.images and not tally.regions:
            progress.warn(_nothing(plan.settings))
        errors = write_errors(plan.folder, plan.manifest)
        finished = plan.finished()
        written: list[Path] = []
        if formats and finished and not joint:
            written = export(plan.folder, formats, plan.pairs, _facts(plan))
        elif formats:
            progress.note("Other formats need all shards: run again with --format and without --shard-of.")
        record.count(images=tally.images, regions=tally.regions, shards=len(left), failed=tally.failed)
    return PseudolabelResult(
        images=tally.images,
        regions=tally.regions,
        shards=len(left),
        done_before=len(plan.shards) - len(left),
        shards_in_all=plan.manifest.shards,
        failed=count_failures(plan.folder, plan.manifest, plan.shards),
        folder=plan.folder,
        finished=finished,
        errors=errors,
        written=tuple(written),
    )


def _label(plan: Plan, left: Sequence[int], progress: Progress) -> Tally:
    """Do the shards that are left."""
    teacher = RegionTeacher(plan)
    progress.note(
        f"{plan.manifest.teacher['name']} labels regions with {len(plan.bank.names)} concepts on {teacher.device}."
    )
    progress.start("Labelling", sum(len(plan.manifest.rows_of(shard)) for shard in left), "images")
    try:
        with resumable(progress):
            return label_shards(plan, left, teacher, progress)
    finally:
        progress.finish()


def _nothing(settings: PseudolabelSection) -> str:
    """Return what to say when no region got a label, which leaves pretraining with captions alone."""
    said = f"No labels: there are no regions, or no concept has a probability above {settings.min_score:g}."
    return said if settings.boxes is None else f"{said} Check that the keys in {settings.boxes} match the images."


def _check_folder(plan: Plan) -> None:
    """Refuse a folder whose labels are of something else, or of who knows what."""
    if (plan.folder / MANIFEST).exists():
        plan.manifest.check_same(read_manifest(plan.folder), plan.folder)
    elif plan.begun():
        raise UsageError(
            f"{plan.folder} contains shards but no {MANIFEST}.",
            "Remove the shards, or choose another folder with out=...",
        )


def _facts(plan: Plan) -> dict[str, str]:
    """Return what a page of regions says at its top."""
    chosen = plan.settings
    return {
        "recipe": plan.recipe.name,
        "images": f"{plan.manifest.images:,}",
        "concepts": f"{len(plan.bank.names):,}",
        "teacher": f"{plan.manifest.teacher['name']}, {chosen.teacher_view} view, temperature {chosen.temperature:g}",
        "regions": f"{plan.manifest.proposals.get('name', chosen.source)}, at most {chosen.regions} per image",
        "kept": f"regions whose best concept has a probability above {chosen.min_score:g}",
    }
