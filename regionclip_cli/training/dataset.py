"""A detection set as a detector learns from it: `TrainingImages.draw` makes one image ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from regionclip_cli.data.detection_sets import DetectionImage, DetectionSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError, UsageError
from regionclip_cli.training.augment import Augment, stitch
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
        crowds: Whether samples tell of crowds, as `ignored_instances`.

    Raises:
        UsageError: Masks are wanted of mosaics.
    """

    def __init__(
        self,
        images: DetectionSet,
        views: Augment,
        *,
        masks: bool = False,
        repeats: np.ndarray | None = None,
        crowds: bool = False,
    ) -> None:
        if masks and views.mosaic:
            raise UsageError("A mosaic of images has no masks.", "Set mosaic: 0.")
        self.images, self.views, self.masks, self.repeats, self.crowds = images, views, masks, repeats, crowds

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
            pixels of the view, `labels` (N,) int64 and, where wanted, `masks`. With `crowds`, `ignored_instances`
            has `bboxes` (M, 4) and `crowd` (M,) bool.

        Raises:
            InputError: The image cannot be read, or has another size than its annotations say.
        """
        chance = np.random.default_rng(seed)
        if self.views.mosaic and chance.random() < self.views.mosaic:
            return self._mosaic(index, chance)
        image, pixels = self._read(index)
        height, width = pixels.shape[:2]
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
        if self.crowds:
            sample.ignored_instances = _crowds([boxes[image.crowd]])
        return {"inputs": view.planes, "data_samples": sample}

    def _mosaic(self, index: int, chance: np.random.Generator) -> dict[str, Any]:
        """Return a square of the image and three others, drawn at random."""
        views, side = self.views.quarter(), 2 * (self.views.canvas // 2)
        numbers = [index, *chance.integers(len(self), size=3).tolist()]
        parts = [(image, views.draw(pixels, chance)) for image, pixels in map(self._read, numbers)]
        planes, corners = stitch([view for _, view in parts], side)
        boxes, labels, crowds = [], [], []
        for (image, view), corner in zip(parts, corners, strict=True):
            seen = view.boxes(image.boxes)
            moved = seen + np.array([*corner, *corner], np.float32)
            kept = ~image.crowd & (seen[:, 2:] > seen[:, :2]).all(axis=1)
            boxes.append(moved[kept])
            labels.append(image.labels[kept])
            crowds.append(moved[image.crowd])
        sample = DetDataSample(
            metainfo={
                "key": parts[0][0].name,
                "img_id": parts[0][0].id,
                "img_shape": (side, side),
                "ori_shape": (side, side),
                "scale_factor": (1.0, 1.0),
                "flip": False,
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(np.concatenate(boxes)), labels=torch.from_numpy(np.concatenate(labels))
        )
        if self.crowds:
            sample.ignored_instances = _crowds(crowds)
        return {"inputs": planes, "data_samples": sample}

    def _read(self, index: int) -> tuple[DetectionImage, np.ndarray]:
        """Return an image and its pixels (H, W, 3).

        Raises:
            InputError: It cannot be read, or has another size than its annotations say.
        """
        image = self.images[index]
        pixels = decode(image.read(), image.name)
        height, width = pixels.shape[:2]
        if (height, width) != (image.height, image.width):
            raise InputError(
                f"{image.name} has {width} x {height} pixels, and its annotations are for {image.width} x "
                f"{image.height}."
            )
        return image, pixels

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


def _crowds(boxes: Sequence[np.ndarray]) -> InstanceData:
    """Return the boxes (M, 4) of crowds as mmdet's ignored instances."""
    every = torch.from_numpy(np.concatenate(boxes).reshape(-1, 4).astype(np.float32))
    return InstanceData(bboxes=every, crowd=torch.ones(len(every), dtype=torch.bool))


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
