"""Images with captions, and with region labels where a teacher has run before, as pretraining draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from regionclip_cli.data.captions import PairSet
from regionclip_cli.data.pixels import MAX_PIXELS, decode
from regionclip_cli.data.region_labels.format import RegionLabel
from regionclip_cli.data.region_labels.store import RegionLabels
from regionclip_cli.data.resize import resize
from regionclip_cli.errors import InputError


class RegionPairs:
    """A data set for `training.loop`: what is random about an image depends on the seed of its draw alone.

    Args:
        pairs: Images with captions.
        labels: What a teacher has said about their regions; None where it runs along.
        regions: Regions drawn of those of an image.
        short_side: Shorter image side in pixels; 0 leaves images as they are.
        max_side: Longest image side in pixels.
        flip: Share of images that are mirrored, with their boxes.
    """

    def __init__(
        self,
        pairs: PairSet,
        labels: RegionLabels | None = None,
        *,
        regions: int = 100,
        short_side: int = 800,
        max_side: int = 1333,
        flip: float = 0.5,
    ) -> None:
        self.pairs, self.labels = pairs, labels
        self.regions, self.short_side, self.max_side, self.flip = regions, short_side, max_side, flip

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pairs)

    def draw(self, index: int, seed: int) -> dict[str, Any]:
        """Return image `index` as {"inputs": (3, h, w) uint8 RGB, "data_samples": sample}.

        The sample's metainfo has `key`, `caption`, `img_shape`, `scale_factor`, `flip` and `seed`. With labels it has
        `regions`: numpy arrays `bboxes` (R, 4) in pixels of the network's input, `concepts` and `probs` (R, k), which
        travel between processes without a file handle for each.

        Raises:
            InputError: The image cannot be read, or has no labels.
        """
        generator = np.random.default_rng(seed)
        pair = self.pairs[index]
        label = None if self.labels is None else self._label(pair.key)
        caption = pair.captions[int(generator.integers(len(pair.captions)))]
        mirrored = bool(generator.random() < self.flip)
        pixels = decode(pair.read(), pair.key, MAX_PIXELS)
        height, width = pixels.shape[:2]
        planes, scale = resize(pixels, self.short_side, self.max_side)
        if mirrored:
            planes = planes.flip(2)
        info = {
            "key": pair.key,
            "caption": caption,
            "img_shape": tuple(planes.shape[1:]),
            "ori_shape": (height, width),
            "scale_factor": scale,
            "flip": mirrored,
            "seed": seed,
        }
        sample = DetDataSample(metainfo=info)
        if label is not None:
            if label.size != (width, height):
                size = f"{label.size[0]} x {label.size[1]}"
                raise InputError(f"{pair.key} has {width} x {height} pixels, and its labels are of {size}.")
            sample.regions = self._drawn(label, generator, scale, planes.shape[2] if mirrored else None)
        return {"inputs": planes, "data_samples": sample}

    def _label(self, key: str) -> RegionLabel:
        found = None if self.labels is None else self.labels.get(key)
        if found is None:
            raise InputError(f"{key} has no region labels.")
        return found

    def _drawn(
        self, label: RegionLabel, generator: np.random.Generator, scale: tuple[float, float], mirror: int | None
    ) -> InstanceData:
        """Draw regions, each as likely as any other, and bring them to the network's pixels; `mirror` is its width."""
        chosen = np.sort(generator.permutation(len(label.boxes))[: self.regions])
        boxes = label.boxes[chosen] * np.array([*scale, *scale], np.float32)
        if mirror is not None:
            boxes[:, [0, 2]] = mirror - boxes[:, [2, 0]]
        return InstanceData(bboxes=boxes, concepts=label.concepts[chosen], probs=label.probs[chosen])
