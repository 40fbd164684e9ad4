"""Which image is seen when: an endless order that depends on the seed alone.

Images follow each other in epochs; the order within an epoch depends on (seed, epoch), and every random choice about an
image on (seed, position), its place in the endless row. Nothing depends on how many processes share the work or on
when it was interrupted: position 12,345 is the same image with the same crop, flip and caption in every run.

Letters: a step of the optimiser sees a batch of B images, computed in A parts by W processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Dataset, Sampler

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.errors import InputError, RegionClipError, UsageError

TRIES = 10
"""Images to try in the place of one that cannot be read."""


class TrainingSet(Protocol):
    """What can be trained on. An object may also have `order(generator) -> (n,) int array`, one epoch's images."""

    def __len__(self) -> int:
        """Return the number of images."""

    def draw(self, index: int, seed: int) -> dict[str, Any]:
        """Return image `index` as {"inputs": (3, h, w) uint8 RGB, "data_samples": DetDataSample}.

        All that is random about it comes from `seed`. The sample's metainfo has a `key` that names the image.

        Raises:
            InputError: The image cannot be read; another one takes its place.
        """


@dataclass(frozen=True)
class SampleIndex:
    """One place in the row of all images: which one, and the seed of what is drawn about it."""

    index: int
    seed: int


class Batches(Sampler[list[SampleIndex]]):
    """The parts of batches that one process computes, from a given step on, without end.

    A batch is B places in a row. It is cut into A parts, and each part into one piece per process, so that all
    processes together see, part by part, what one would see alone.

    Args:
        dataset: What is trained on.
        batch_size: B.
        accumulate: A.
        rank: Number of this process.
        world_size: W.
        seed: Of the run.

    Raises:
        UsageError: There is no image, or B is no multiple of A * W.
    """

    def __init__(
        self, dataset: TrainingSet, batch_size: int, accumulate: int, rank: int, world_size: int, seed: int
    ) -> None:
        if not len(dataset):
            raise UsageError("There is no image to train on.")
        if batch_size % (accumulate * world_size):
            several = f"{world_size} processes" if world_size > 1 else "one process"
            raise UsageError(
                f"A batch of {batch_size} images cannot be cut into {accumulate} equal parts for {several}.",
                f"Make batch_size a multiple of {accumulate * world_size}.",
            )
        self.dataset, self.seed = dataset, seed
        self.batch_size, self.accumulate = batch_size, accumulate
        self.rank, self.world_size = rank, world_size
        self.first_step = 0

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        """Yield A pieces a step, of B / (A W) places each."""
        places = self._places(self.first_step * self.batch_size)
        piece = self.batch_size // (self.accumulate * self.world_size)
        while True:
            for _ in range(self.accumulate):
                part = [next(places) for _ in range(piece * self.world_size)]
                yield part[self.rank * piece : (self.rank + 1) * piece]

    def _places(self, first: int) -> Iterator[SampleIndex]:
        """Yield the places from position `first` on."""
        position, epoch = 0, 0
        while True:
            indices = self._order(epoch)
            for index in indices[max(0, first - position) :]:
                at = max(position, first)
                yield SampleIndex(int(index), item_seed(self.seed, at))
                first = at + 1
            position += len(indices)
            epoch += 1

    def _order(self, epoch: int) -> np.ndarray:
        """Return the images (n,) of an epoch.

        Raises:
            UsageError: The data set has none in this epoch.
        """
        generator = np.random.default_rng([self.seed, epoch])
        order: Callable[[np.random.Generator], np.ndarray] | None = getattr(self.dataset, "order", None)
        indices = generator.permutation(len(self.dataset)) if order is None else order(generator)
        if not len(indices):
            raise UsageError("There is no image to train on.")
        return indices


class SampledDataset(Dataset):
    """A data set seen through places; errors come back as values, since a loader's process cannot raise ours whole."""

    def __init__(self, dataset: TrainingSet) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def __getitem__(self, place: SampleIndex) -> dict[str, Any] | RegionClipError:
        """Return the item of a place, or of another image where that one cannot be read.

        The sample's metainfo then has `problems`, one sentence for each image that was passed over.
        """
        generator = np.random.default_rng(place.seed)
        index, problems = place.index, []
        for _ in range(TRIES):
            try:
                item = self.dataset.draw(index, place.seed)
            except InputError as err:
                problems.append(err.message)
                index = int(generator.integers(len(self.dataset)))
            except RegionClipError as err:
                return err
            else:
                if problems:
                    item["data_samples"].set_metainfo({"problems": tuple(problems)})
                return item
        return UsageError(f"{TRIES} images in a row cannot be read. The last one: {problems[-1]}")


def item_seed(seed: int, position: int) -> int:
    """Return the seed of what is drawn about the image at a position."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0])


def collate(items: list[dict[str, Any] | RegionClipError]) -> dict[str, Any] | RegionClipError:
    """Return items as one {"inputs": [...], "data_samples": [...]}, or the first error among them."""
    for item in items:
        if isinstance(item, RegionClipError):
            return item
    batch: dict[str, Any] = pseudo_collate(items)
    return batch


def build_loader(batches: Batches, workers: int, device: torch.device) -> DataLoader:
    """Return the loader of one process: `workers` processes of its own read images, or it reads them itself."""
    return DataLoader(
        SampledDataset(batches.dataset),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
    )


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
