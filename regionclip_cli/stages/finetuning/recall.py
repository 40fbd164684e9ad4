"""How many objects a proposal network finds, whatever they are called."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError
from regionclip_cli.stages.detection.looking import Looking, make_ready
from regionclip_cli.stages.evaluation.predictions.coverage import cover
from regionclip_cli.stages.evaluation.predictions.tallies import LIMITS
from regionclip_cli.stages.progress import Progress
from regionclip_cli.vision.finetuning.proposal_training import ProposalTraining
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
    looking = Looking(Scoring(), *size)
    places = {name: [images.classes.index(each) for each in classes] for name, classes in groups.items()}
    hits: dict[str, np.ndarray] = {}
    objects = dict.fromkeys(groups, 0)
    progress.start("Measuring", len(images), "images")
    for image in images:
        try:
            ready = make_ready(image.name, decode(image.read(), image.name), looking)
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
