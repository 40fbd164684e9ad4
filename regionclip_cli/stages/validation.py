"""Watching a fine-tuning: base, novel and all classes side by side, and the best model so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.evaluation.evaluator import measure
from regionclip_cli.evaluation.task import GROUND_TRUTH
from regionclip_cli.files import replacing
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.recipe.schema import EvaluateSection
from regionclip_cli.runs.progress import Progress
from regionclip_cli.stages.finetune_plan import Exporter, Plan
from regionclip_cli.training.weight_ensembling import blended
from regionclip_cli.vision.detector import OpenVocabularyDetector

EVALUATIONS = "evaluations.json"
BEST = "best.safetensors"
GROUPS = ("base", "novel", "all")

Measured = dict[str, dict[str, float]]
"""{"base": {"AP50": ...}, "novel": ..., "all": ...}; without a split `all` alone."""


class BestCheckpoint:
    """Measures a detector on `data.val` while it learns, and keeps the best.

    Args:
        plan: What is learned and measured.
        detector: That learns.
        exporter: Writes it.
        start: Its weights before, {name of a parameter: tensor}, of which a share is blended in.
        text: Encodes class names; None for a linear classifier.
        folder: Of the run's stage.
        progress: Told every result.
    """

    def __init__(
        self,
        plan: Plan,
        detector: OpenVocabularyDetector,
        exporter: Exporter,
        start: Mapping[str, Tensor],
        text: TextEncoder | None,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.plan, self.detector, self.exporter, self.start, self.text = plan, detector, exporter, start, text
        self.folder, self.progress = folder, progress
        self.group, self.number = criterion(plan)
        self.evaluations = _read(folder / EVALUATIONS)

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation of the best model so far; the start is not one of them."""
        trained = [each for each in self.evaluations if each["step"]]
        return max(trained, key=lambda each: self._worth(each), default=None)

    def before(self) -> None:
        """Measure the model that the training starts from, without heads that it does not have yet."""
        if any(each["step"] == 0 for each in self.evaluations):
            return
        box_head, mask_head = self.detector.box_head, self.detector.mask_head
        self.detector.mask_head = None
        if "box_head" not in self.plan.card.parts:
            self.detector.box_head = None
        try:
            self._keep(0, self._measure(self.plan.card))
        finally:
            self.detector.box_head, self.detector.mask_head = box_head, mask_head

    def __call__(self, step: int) -> dict[str, float]:
        """Measure the model as it would be written after `step` steps, and write it where it is the best so far."""
        mask_head, self.detector.mask_head = self.detector.mask_head, None  # boxes are what is compared
        try:
            with blended(self.detector, self.start, self.plan.settings.ensemble_alpha):
                self._keep(step, self._measure(self.exporter.card))
                self.detector.mask_head = mask_head
                best = self.best
                if best is not None and best["step"] == step:
                    self.exporter.write(self.folder / BEST, self.detector)
        finally:
            self.detector.mask_head = mask_head
        measured = next(each for each in self.evaluations if each["step"] == step)
        return {
            f"{group}_{name}": value
            for group in GROUPS
            for name, value in measured.get(group, {}).items()
            if name in ("AP", "AP50") and value is not None
        }

    def recognition(self, detector: OpenVocabularyDetector, card: ModelCard) -> Measured:
        """Return how well known boxes are named: top1, top5 and mean class accuracy of each group."""
        if self.plan.val is None:
            return {}
        settings = EvaluateSection(split=self.plan.split, boxes=GROUND_TRUTH, scoring=self.plan.settings.scoring)
        measured = measure(detector, self.plan.val, settings, text=self.text, card=card, progress=self.progress)
        return _groups(measured.summary, ("top1", "top5", "mean_class_accuracy"))

    def _measure(self, card: ModelCard) -> Measured:
        if self.plan.val is None:
            raise ValueError("there is nothing to measure on")
        settings = EvaluateSection(split=self.plan.split, scoring=self.plan.settings.scoring)
        measured = measure(self.detector, self.plan.val, settings, text=self.text, card=card, progress=self.progress)
        return _groups(measured.summary, ("AP", "AP50", "AP75", "APs", "APm", "APl"))

    def _keep(self, step: int, measured: Measured) -> None:
        """Put an evaluation on the list, in place of one of the same step, and say it."""
        others = [each for each in self.evaluations if each["step"] != step]
        self.evaluations = sorted([*others, {"step": step, **measured}], key=lambda each: each["step"])
        content = {"best_by": f"{self.group} {self.number}", "evaluations": self.evaluations}
        with replacing(self.folder / EVALUATIONS) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
        numbers = "; ".join(
            f"{group} {_short(measured[group].get('AP50'))} (AP {_short(measured[group].get('AP'))})"
            for group in GROUPS
            if group in measured
        )
        self.progress.note(f"{f'After {step} steps' if step else 'Before training'}, AP50: {numbers}.")

    def _worth(self, evaluation: Mapping[str, Any]) -> tuple[float, float]:
        """Return what the best model has most of: AP of the deciding group, and of all classes where that is equal."""
        values = [evaluation.get(group, {}).get(self.number) for group in (self.group, "all")]
        first, second = (-1.0 if value is None else float(value) for value in values)
        return first, second


def criterion(plan: Plan) -> tuple[str, str]:
    """Return the group and the number that tell which model is best.

    Novel classes decide: AP50 on COCO, as in all tables of the split, AP on LVIS. Without a split all classes do.
    """
    number = "AP" if plan.split is None or (plan.val is not None and plan.val.style == "lvis") else "AP50"
    return ("all" if plan.split is None else "novel"), number


def _groups(summary: Mapping[str, Any], names: tuple[str, ...]) -> Measured:
    """Return these numbers of base, novel and all; without a split those of the whole set as `all`."""
    parts = {group: summary[group] for group in GROUPS if group in summary} or {"all": summary}
    return {group: {name: part[name] for name in names if name in part} for group, part in parts.items()}


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the evaluations of the run that is taken up.

    Raises:
        UsageError: The file is damaged.
    """
    try:
        evaluations: list[dict[str, Any]] = json.loads(path.read_bytes())["evaluations"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as err:
        raise UsageError(f"{path} is damaged.", "Delete it; its evaluations are lost.") from err
    return evaluations


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
