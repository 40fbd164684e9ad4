"""The evaluations of a recipe, checked before any of them starts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionclip_cli.data.boxes import BoxFile, read_boxes
from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.errors import MissingError, UsageError, did_you_mean
from regionclip_cli.evaluation.task import GROUND_TRUTH, PROPOSALS, Task, build_task, class_name_warnings
from regionclip_cli.files import user_path, whole_file
from regionclip_cli.hub.model_card import fingerprint, read_card
from regionclip_cli.hub.store import resolve
from regionclip_cli.recipe.schema import DetectionData, EvaluateSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress

ABOUT = "about.json"


@dataclass(frozen=True, eq=False)
class Job:
    """One evaluation, ready to start.

    Attributes:
        name: Name in tables and folders; unique in a recipe.
        settings: Of the recipe.
        folder: Where its predictions and results go.
        truth: The set, with all its classes.
        task: What is evaluated.
        model: File of the model; None where predictions come from a file.
        proposals: File of another model whose proposal network is used.
        boxes: Boxes from a file.
    """

    name: str
    settings: EvaluateSection
    folder: Path
    truth: DetectionSet
    task: Task
    model: Path | None
    proposals: Path | None
    boxes: BoxFile | None

    def about(self) -> dict[str, Any]:
        """Return what decides the predictions."""
        free = {"name", "model", "proposals_from", "batch", "report", "annotations", "images", "lenient"}
        return {
            **self.settings.model_dump(mode="json", exclude=free),
            "model": None if self.model is None else [read_card(self.model).name, fingerprint(self.model)],
            "proposals": None if self.proposals is None else fingerprint(self.proposals),
            "set": [self.truth.name, self.task.truth.fingerprint],
            "names": list(self.task.names.labels),
        }

    def claim(self) -> None:
        """Record the settings of the predictions in the folder, or check that they are the same.

        Raises:
            UsageError: They had other settings.
            OutputError: The folder cannot be written.
        """
        path, about = self.folder / ABOUT, json.loads(json.dumps(self.about()))
        try:
            before = json.loads(path.read_bytes())
        except (OSError, ValueError):
            before = None
        if isinstance(before, dict):
            for key, value in about.items():
                if before.get(key) != value:
                    raise UsageError(
                        f"The predictions in {self.folder} had {key} = {_short(before.get(key))}, and this run has "
                        f"{_short(value)}.",
                        "Resume with the same settings, or choose another folder.",
                    )
            return
        with whole_file(path) as part:
            part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def make_jobs(recipe: Recipe, progress: Progress) -> list[Job]:
    """Check every evaluation of a recipe: its set, names, model and boxes.

    Raises:
        MissingError: A file or model is missing.
        UsageError: A setting, a set or a file is wrong.
    """
    folder = RunFolder(Path(recipe.out))
    sets: dict[str, DetectionSet] = {}
    jobs: list[Job] = []
    for settings, name in zip(recipe.evaluate, _names(recipe.evaluate), strict=True):
        _check(settings)
        wanted = DetectionData(**settings.model_dump(include=set(DetectionData.model_fields)))
        key = wanted.model_dump_json()
        if key not in sets:
            sets[key] = open_detection_set(wanted)
            if sentence := sets[key].left_out():
                progress.warn(sentence)
        truth = sets[key]
        if not len(truth):
            raise UsageError(f"{truth.name} has no images.", "Choose another set.")
        for sentence in class_name_warnings(truth, settings):
            progress.warn(sentence)
        model = None if settings.predictions is not None else _model(recipe, settings, folder)
        uses_network = model is not None and settings.boxes == PROPOSALS
        jobs.append(
            Job(
                name=name,
                settings=settings,
                folder=folder.stage("evaluate") / name,
                truth=truth,
                task=build_task(truth, settings),
                model=model,
                proposals=_proposals(recipe, settings, folder, model) if uses_network else None,
                boxes=_boxes(settings) if model is not None else None,
            )
        )
    return jobs


def _check(settings: EvaluateSection) -> None:
    """Check that the settings of an evaluation fit together."""
    if settings.predictions is not None and (settings.crops or settings.model is not None):
        raise UsageError(
            "Predictions from a file are scored as they are; a model and crops do not apply.",
            "Remove either the predictions or the model.",
        )
    if settings.predictions is not None:
        idle = [key for key in ("proposals_from", "conf", "short_side") if getattr(settings, key) is not None]
        idle += ["boxes"] * (settings.boxes != PROPOSALS)
        if idle:
            raise UsageError(
                f"Predictions from a file are scored as they are; {idle[0]!r} does not apply.", "Remove it."
            )
        if not user_path(settings.predictions).exists():
            raise MissingError(f"Predictions file not found: {settings.predictions}.")
    if settings.proposals_from is not None and settings.boxes != PROPOSALS:
        raise UsageError(
            f"proposals_from does not apply to given boxes ({settings.boxes}).", "Remove proposals_from or boxes."
        )
    if settings.predictions is None and settings.images is None and settings.dataset in ("coco", "lvis"):
        raise UsageError("No image folder was given.", "Set --images, or `images:` in a recipe.")


def _model(recipe: Recipe, settings: EvaluateSection, folder: RunFolder) -> Path:
    """Return the model in the settings, else the last one the recipe has trained, else the one it starts from."""
    if settings.model is not None:
        return resolve(settings.model)
    trained = [folder.model(stage) for stage in ("finetune", "pretrain")]
    if recipe.proposals is not None and recipe.proposals.on_trunk:
        trained.insert(1, folder.model("proposals"))  # with the pretrained model in the same file
    return next((path for path in trained if path.is_file()), None) or resolve(recipe.model.start)


def _proposals(recipe: Recipe, settings: EvaluateSection, folder: RunFolder, model: Path | None) -> Path | None:
    """Return the other model whose proposals are used: the one in the settings, else the one this recipe has trained.

    None where the model has its own. A model that this recipe has fine-tuned contains its proposal network.
    """
    if settings.proposals_from is not None:
        return resolve(settings.proposals_from)
    made = folder.model("proposals")
    if model in (folder.model("finetune"), made):
        return None
    if recipe.proposals is not None and not recipe.proposals.on_trunk and made.is_file():
        return made
    return None if recipe.model.proposals is None else resolve(recipe.model.proposals)


def _boxes(settings: EvaluateSection) -> BoxFile | None:
    if settings.boxes in (GROUND_TRUTH, PROPOSALS):
        return None
    path = user_path(settings.boxes)
    if not path.exists():
        near = did_you_mean(settings.boxes, (GROUND_TRUTH, PROPOSALS))
        raise MissingError(f"Boxes file not found: {path}.", near or "`boxes` is ground-truth, proposals, or a file.")
    return read_boxes(path)


def _names(sections: Sequence[EvaluateSection]) -> list[str]:
    """Return a name for each section that can be a folder name; equal ones are numbered."""
    names: list[str] = []
    for settings in sections:
        parts = [settings.dataset, settings.boxes, settings.split, settings.vocabulary, settings.model]
        parts += [settings.scoring] * (settings.scoring != "default") + ["crops"] * settings.crops
        if settings.predictions is not None:
            parts = [settings.dataset, settings.predictions, settings.split]
        text = settings.name or "-".join(Path(part).stem for part in parts if part)
        name = re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:80] or "set"
        number = 2
        while (unique := name if number == 2 and name not in names else f"{name}-{number}") in names:
            number += 1
        names.append(unique)
    return names


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
