"""A detection set as a detector learns from it: `TrainingImages.draw` makes one image ready."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from regionclip_cli.data.detection_sets import DetectionImage, DetectionSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError, UsageError
from regionclip_cli.training.augment import Views
from regionclip_cli.training.masks import Masks, as_masks
from regionclip_cli.training.sampler import draw_epoch


class TrainingImages:
    """Images with objects, each in a new view whenever it is drawn.

    Crowds are no objects here, as in the official code: they are left out. Every random choice follows from the seed
    that `draw` is called with, so the same place of a training sees the same view, whoever computes it and however
    often it was interrupted.

    Args:
        images: What to learn from.
        views: How images are varied.
        masks: Whether samples have masks.
        repeats: (M,) how often each image is shown in an epoch, as `repeat_factors` counts; None shows each once.
    """

    def __init__(
        self, images: DetectionSet, views: Views, *, masks: bool = False, repeats: np.ndarray | None = None
    ) -> None:
        self.images, self.views, self.masks, self.repeats = images, views, masks, repeats

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def order(self, generator: np.random.Generator) -> np.ndarray:
        """Return one epoch's images (n,) in random order."""
        if self.repeats is None:
            return generator.permutation(len(self))
        return draw_epoch(self.repeats, generator)

    def draw(self, index: int, seed: int) -> dict[str, Any]:
        """Return a view of an image.

        Returns:
            `inputs`, RGB uint8 (3, h, w), and `data_samples` with `gt_instances`: `bboxes` (N, 4) float32 xyxy in
            pixels of the view, `labels` (N,) int64 and, where wanted, `masks`.

        Raises:
            InputError: The image cannot be read, or has another size than its annotations say.
        """
        chance = np.random.default_rng(seed)
        image = self.images[index]
        pixels = decode(image.read(), image.name)
        height, width = pixels.shape[:2]
        if (height, width) != (image.height, image.width):
            raise InputError(
                f"{image.name} has {width} x {height} pixels, and its annotations are for {image.width} x "
                f"{image.height}."
            )
        view = self.views.draw(pixels, chance)
        boxes = view.boxes(image.boxes)
        kept = ~image.crowd & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        sample = DetDataSample(
            metainfo={
                "key": image.name,
                "img_id": image.id,
                "img_shape": view.size,
                "ori_shape": (height, width),
                "scale_factor": view.scale,
                "flip": view.mirrored,
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes[kept]), labels=torch.from_numpy(image.labels[kept])
        )
        if self.masks:
            sample.gt_instances.masks = view.masks(self._masks(image, kept))
        return {"inputs": view.planes, "data_samples": sample}

    def _masks(self, image: DetectionImage, kept: np.ndarray) -> Masks:
        """Return the masks of an image's objects in pixels of the image."""
        segmentations = image.segmentation
        if segmentations is None:
            raise UsageError(
                f"{image.name} comes without masks, which the mask head learns from.",
                "Give annotations with `segmentation`, or set mask_head: false.",
            )
        own = [given for given, keep in zip(segmentations, kept, strict=True) if keep]
        return as_masks(own, image.height, image.width, image.name)


def with_objects(images: DetectionSet) -> DetectionSet:
    """Return the images that show an object: a box that is no crowd.

    An image without one teaches background only, and the official code leaves it out.

    Raises:
        UsageError: No image is left.
    """
    c = images.columns
    objects = ~c.crowd[c.objects.values]
    places = np.flatnonzero(np.bincount(c.objects.owners()[objects], minlength=len(images)))
    if not len(places):
        raise UsageError(f"{images.name} has no box of the {len(images.classes)} classes that are to be learned.")
    return images if len(places) == len(images) else images.at(places)
