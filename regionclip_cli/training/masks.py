"""A detection set as a detector learns from it: `TrainingImages.draw` makes one image ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as run_lengths
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from regionclip_cli.errors import InputError
from regionclip_cli.vision.mask_head import fill

Masks = Any
"""`BitmapMasks` or `PolygonMasks`; mmdet tells no types."""


def as_masks(segmentations: Sequence[Any], height: int, width: int, name: str) -> Masks:
    """Return one mask an object, in pixels of the image.

    Polygons stay polygons, which are small and are filled only where a region is cut out; an image with a run-length
    mask among them has all of them as bitmaps.

    Args:
        segmentations: For each object polygons [[x1, y1, x2, y2, ...], ...] or a run-length object.
        height: Of the image in pixels.
        width: Of the image in pixels.
        name: What errors call the image.

    Raises:
        InputError: An object has no mask, or one that is neither of the two.
    """
    for number, given in enumerate(segmentations):
        if not _is_polygons(given) and not _is_run_length(given):
            raise InputError(f"{name}: object {number} has no mask that can be read.", "Leave mask_head off.")
    if all(_is_polygons(given) for given in segmentations):
        polygons = [[np.asarray(ring, np.float64) for ring in given] for given in segmentations]
        return PolygonMasks(polygons, height, width)
    bitmaps = [_bitmap(given, height, width) for given in segmentations]
    return BitmapMasks(np.stack(bitmaps), height, width)


def _is_polygons(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(len(ring) >= 6 and len(ring) % 2 == 0 for ring in given)


def _is_run_length(given: Any) -> bool:
    return isinstance(given, dict) and {"counts", "size"} <= set(given)


def _bitmap(given: Any, height: int, width: int) -> np.ndarray:
    """Return (height, width) uint8, 1 where the object is."""
    if _is_polygons(given):
        return fill(given, height, width)
    packed = not isinstance(given["counts"], list)
    encoded = given if packed else run_lengths.frPyObjects(given, height, width)
    filled: np.ndarray = run_lengths.decode(encoded)
    return filled
