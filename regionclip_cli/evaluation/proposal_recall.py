"""How many objects a proposal network finds, whatever they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError
from regionclip_cli.evaluation.matching import overlap
from regionclip_cli.evaluation.metrics import LIMITS
from regionclip_cli.inference.preprocess import InferenceConfig, prepare_image
from regionclip_cli.runs.progress import Progress
from regionclip_cli.vision.proposals.training import ProposalTraining
from regionclip_cli.vision.scoring import Scoring


@torch.no_grad()
def proposal_recall(
    model: ProposalTraining,
    images: DetectionSet,
    groups: Mapping[str, tuple[str, ...]],
    size: tuple[int, int],
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Return AR@100, AR@300 and AR@1000 in 0..100 of each group of classes: recall, averaged over overlaps 0.5 to 0.95.

    Args:
        model: The network; its mode is the same afterwards.
        images: What is on the images.
        groups: {name: classes}; a group without an object is left out.
        size: Short side and limit of the long side in pixels at which images are looked at.
        progress: Told of every image.
    """
    training = model.training
    model.eval()
    model.source.configure(max_proposals=max(LIMITS))
    inference = InferenceConfig(Scoring(), *size)
    places = {name: [images.classes.index(each) for each in classes] for name, classes in groups.items()}
    hits: dict[str, np.ndarray] = {}
    objects = dict.fromkeys(groups, 0)
    progress.start("Measuring", len(images), "images")
    for image in images:
        try:
            ready = prepare_image(image.name, decode(image.read(), image.name), inference)
        except InputError as err:
            progress.warn(str(err))
            continue
        (sample,) = model.test_step({"inputs": [ready.planes], "data_samples": [ready.sample()]})
        found = sample.pred_instances
        order = found.scores.argsort(descending=True, stable=True)
        boxes = found.bboxes[order].float().cpu().numpy() / np.array([*ready.scale, *ready.scale], np.float32)
        for name, labels in places.items():
            known = image.boxes[~image.crowd & np.isin(image.labels, labels)]
            objects[name] += len(known)
            hits[name] = hits.get(name, 0) + cover(known, boxes, LIMITS)
        progress.advance()
    progress.finish()
    model.train(training)
    return {
        name: {
            f"AR@{limit}": float(100 * counted.mean() / objects[name])
            for limit, counted in zip(LIMITS, hits[name], strict=True)
        }
        for name in groups
        if objects[name]
    }


THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which on a proposal covers an object; COCO's."""


def cover(objects: np.ndarray, proposals: np.ndarray, limits: Sequence[int]) -> np.ndarray:
    """Count the objects that are covered, as COCO's protocol assigns them: the best proposal first, each object once.

    Images do not meet in this count, so that recall over a set is the sum of the counts over the number of objects.

    Args:
        objects: (G, 4) xyxy, float.
        proposals: (K, 4) xyxy, best first.
        limits: How many of the best proposals may be used.

    Returns:
        (limits, thresholds) int64.
    """
    hits = np.zeros((len(limits), len(THRESHOLDS)), np.int64)
    overlaps = overlap(proposals[: max(limits)], objects)  # (K, G)
    if not overlaps.size:
        return hits
    able = np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0] - 1e-10)
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(objects), bool)
        for proposal in able:
            row = np.where(free, overlaps[proposal], -1.0)
            # The last of equals, as COCO's loop has it.
            best = len(row) - 1 - int(row[::-1].argmax())
            if row[best] >= min(threshold, 1 - 1e-10):
                free[best] = False
                hits[:, column] += [proposal < limit for limit in limits]
                if not free.any():
                    break
    return hits
