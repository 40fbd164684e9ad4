"""Showing images of rare classes oftener (LVIS, Gupta et al., CVPR 2019, appendix B.2)."""

from __future__ import annotations

import numpy as np

from regionclip_cli.data.detection_sets import DetectionSet

THRESHOLD = 0.001


def repeat_factors(images: DetectionSet, threshold: float = THRESHOLD) -> np.ndarray:
    """Return (M,) float64: how often each image is shown in an epoch, on average.

    A class c on a share f(c) of the images is repeated r(c) = max(1, sqrt(t / f(c))) times, and an image as often as
    its most repeated class. Images without a class are shown once.

    Args:
        images: M images; their classes are counted here.
        threshold: t, the share of images below which a class is repeated.
    """
    share = images.image_counts() / max(len(images), 1)
    of_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    objects = images.columns.objects
    factors = np.ones(len(images))
    np.maximum.at(factors, objects.owners(), of_class[images.columns.labels[objects.values]])
    return factors


def draw_epoch(factors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return one epoch's images (n,) in random order, image i floor(r) or ceil(r) times, r times on average."""
    whole = np.floor(factors)
    times = whole + (generator.random(len(factors)) < factors - whole)
    epoch = np.repeat(np.arange(len(factors)), times.astype(np.int64))
    return generator.permutation(epoch)
