"""The settings of one call, and an image prepared for the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regionclip_cli.data.boxes import GivenBoxes
from regionclip_cli.data.resize import resize_array
from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.inference.views import Views
from regionclip_cli.recipe.detection import MAX_OVERLAP, MIN_TILE
from regionclip_cli.recipe.scoring import Scoring, as_scoring
from regionclip_cli.results.detections import ImageDetections

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from torch import Tensor

FALLBACK_CONF = 0.2
"""Score threshold of the default scoring where the model's card has none."""


@dataclass(frozen=True)
class InferenceConfig:
    """Settings of one call.

    Attributes:
        scoring: How detections are scored and selected.
        short_side: Shorter side of the network's input in pixels; 0 keeps the original size.
        long_side: Maximum of the longer side in pixels.
        tiles: Side in pixels of overlapping tiles that are detected besides the whole image; 0 for none.
        overlap: Fraction of a tile's side that neighbouring tiles share at least.
        flip: Whether the mirror image of each view is detected too.
    """

    scoring: Scoring
    short_side: int
    long_side: int
    tiles: int = 0
    overlap: float = 0.2
    flip: bool = False


def decide(
    card: ModelCard,
    scoring: str = "default",
    short_side: int | None = None,
    tiles: int = 0,
    overlap: float = 0.2,
    flip: bool = False,
    **changes: Any,
) -> InferenceConfig:
    """Complete the settings with those of the scoring preset and of the model's card.

    Args:
        card: The model's card.
        scoring: Name of a preset.
        short_side: In pixels; None for the card's.
        tiles: See `InferenceConfig`.
        overlap: See `InferenceConfig`.
        flip: See `InferenceConfig`.
        changes: Fields of `Scoring`; None keeps the value of the preset or the card.

    Raises:
        UsageError: A preset or field is unknown, or tiles are too small or overlap entirely.
    """
    if tiles and tiles < MIN_TILE:
        raise UsageError(f"Tiles must have a side of at least {MIN_TILE} pixels, not {tiles}.")
    if not 0 <= overlap <= MAX_OVERLAP:
        raise UsageError(f"The overlap of tiles must be between 0 and {MAX_OVERLAP}, not {overlap}.")
    base = as_scoring(scoring)
    if scoring == "default":
        base = base.replace(conf=FALLBACK_CONF if card.conf is None else card.conf, calibration=card.calibration)
    chosen = base.replace(**{name: value for name, value in changes.items() if value is not None})
    side = card.short_side if short_side is None else short_side
    return InferenceConfig(chosen, side, card.max_side, tiles, overlap, flip)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image at the network's size.

    Attributes:
        name: Name of the image.
        height: Original height in pixels.
        width: Original width in pixels.
        planes: RGB uint8 (3, h, w).
        scale: Factors (x, y) from original to network pixels.
        boxes: Given boxes in original pixels, or None to use proposals.
        pixels: The original, RGB uint8 (H, W, 3), if a writer needs it.
        views: Tiles and mirror images to detect instead of the image alone, or None.
    """

    name: str
    height: int
    width: int
    planes: np.ndarray
    scale: tuple[float, float]
    boxes: GivenBoxes | None = None
    pixels: np.ndarray | None = None
    views: Views | None = None

    def tensor(self) -> Tensor:
        """Return the planes as a tensor uint8 (3, h, w)."""
        import torch

        return torch.from_numpy(self.planes)

    def sample(self) -> DetDataSample:
        """Return the description that mmdet's models take, with given boxes (R, 4) in network pixels."""
        import torch
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        size = tuple(self.planes.shape[-2:])
        sample = DetDataSample(
            metainfo={"img_shape": size, "ori_shape": (self.height, self.width), "scale_factor": self.scale}
        )
        if self.boxes is not None:
            factors = np.array([*self.scale, *self.scale], np.float32)
            sample.proposals = InstanceData(bboxes=torch.from_numpy(self.boxes.boxes * factors))
            if self.boxes.scores is not None:
                sample.proposals.scores = torch.from_numpy(self.boxes.scores)
        return sample

    def detections(self, found: InstanceData, labels: tuple[str, ...]) -> ImageDetections:
        """Return what a model found as plain arrays with class names."""
        boxes, scores = found.bboxes.float().cpu().numpy(), found.scores.float().cpu().numpy()
        return self.named(boxes, scores, found.labels.cpu().numpy(), labels)

    def named(self, boxes: np.ndarray, scores: np.ndarray, ids: np.ndarray, labels: tuple[str, ...]) -> ImageDetections:
        """Return detections with class names: boxes (N, 4) in original pixels, scores (N,), class indices (N,)."""
        ids = ids.astype(np.int64)
        return ImageDetections(
            image=self.name,
            width=self.width,
            height=self.height,
            boxes=boxes,
            scores=scores,
            labels=tuple(labels[index] for index in ids),
            ids=ids,
        )


def prepare_image(
    name: str, pixels: np.ndarray, inference: InferenceConfig, boxes: GivenBoxes | None = None, keep: bool = False
) -> PreparedImage:
    """Resize an image RGB uint8 (H, W, 3) for the network.

    Args:
        name: Name of the image.
        pixels: The original.
        inference: Settings.
        boxes: Given boxes in original pixels.
        keep: Whether the original pixels are needed afterwards.

    Raises:
        UsageError: Boxes are given, and tiles or mirror images are asked for.
    """
    if boxes is not None and (inference.tiles or inference.flip):
        raise UsageError("Given boxes cannot be combined with tiles or flips.")
    planes, scale = resize_array(pixels, inference.short_side, inference.long_side)
    height, width = pixels.shape[:2]
    views = Views.of(pixels, inference)
    return PreparedImage(name, height, width, planes, scale, boxes, pixels if keep else None, views)
