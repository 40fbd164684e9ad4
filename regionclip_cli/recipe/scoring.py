"""How a detector turns probabilities into detections: settings that can change between two images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from regionclip_cli.errors import UsageError, did_you_mean

Fusion = Literal["logit", "sigmoid", "none"]
FUSIONS: tuple[Fusion, ...] = ("logit", "sigmoid", "none")


@dataclass(frozen=True)
class Scoring:
    """Test-time settings.

    Attributes:
        conf: Detections must score above this.
        iou: Overlap at which non-maximum suppression drops the lower of two boxes.
        nms: "class" lets boxes of different classes overlap, "agnostic" does not, "off" keeps everything.
        max_dets: Best detections to keep of an image.
        soft: "gaussian" or "linear" lowers the scores of overlapping boxes (Soft-NMS, ICCV 2017) instead of dropping
            them.
        sigma: Width of the Gaussian.
        min_score: Soft-NMS drops what falls below this.
        fusion: How objectness enters the score, see `classifier.fuse`.
        calibration: Slope and offset of `classifier.calibrate` for the fused scores; None leaves them as they are.
        proposal_iou: Overlap threshold of the proposal network's own suppression; None takes what it was built with.
        pre_nms: Boxes of each feature level that enter that suppression; None as above.
        max_proposals: Boxes of an image that leave it; None as above.
    """

    conf: float = 0.001
    iou: float = 0.5
    nms: Literal["class", "agnostic", "off"] = "class"
    max_dets: int = 100
    soft: Literal["gaussian", "linear"] | None = None
    sigma: float = 0.5
    min_score: float = 0.001
    fusion: Fusion = "sigmoid"
    calibration: tuple[float, float] | None = None
    proposal_iou: float | None = None
    pre_nms: int | None = None
    max_proposals: int | None = None

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise UsageError(f"Unknown fusion {self.fusion!r}.", f"Choose one of {', '.join(FUSIONS)}.")

    def replace(self, **changes: Any) -> Scoring:
        """Return the same settings with some of them changed.

        Raises:
            UsageError: There is no setting of that name.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError(f"There is no test-time setting {name!r}.", did_you_mean(name, known))
        return dataclasses.replace(self, **changes)


SCORINGS: Mapping[str, Scoring] = {
    "default": Scoring(),
    # What the paper's zero-shot results on proposals were made with: many overlapping boxes, raw logits.
    # How many boxes enter the suppression is the network's own: 1,000 a level with FPN, 6,000 with C4.
    "official": Scoring(fusion="logit", proposal_iou=0.9, max_proposals=1000),
}


def as_scoring(given: Scoring | Mapping[str, Any] | str | None) -> Scoring:
    """Return settings from a preset's name, from a mapping of settings (`preset` names what it changes), or as given.

    Raises:
        UsageError: Unknown preset or setting.
    """
    if isinstance(given, Scoring):
        return given
    if isinstance(given, Mapping):
        changes = dict(given)
        return as_scoring(changes.pop("preset", None)).replace(**changes)
    name = given or "default"
    if name not in SCORINGS:
        raise UsageError(f"Unknown scoring {name!r}.", f"Choose one of {', '.join(SCORINGS)}.")
    return SCORINGS[name]
