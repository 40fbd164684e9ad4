"""Average recall of a proposal network, whatever the classes of the objects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError
from regionclip_cli.evaluation.matching import count_hits
from regionclip_cli.evaluation.metrics import LIMITS
from regionclip_cli.inference.preprocess import InferenceConfig, prepare_image
from regionclip_cli.recipe.scoring import Scoring
from regionclip_cli.runs.progress import Progress
from regionclip_cli.vision.proposals.training import ProposalTraining


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
        model: The network; it keeps its mode.
        images: The annotated images.
        groups: {name: classes}; a group without an object is left out.
        size: Short side and limit of the long side in pixels of the input images.
        progress: Receives progress and warnings.
    """
    training = model.training
    model.eval()
    model.source.configure(max_proposals=max(LIMITS))
    inference = InferenceConfig(Scoring(), *size)
    places = {name: [images.classes.index(each) for each in classes] for name, classes in groups.items()}
    hits: dict[str, np.ndarray] = {}
    objects = dict.fromkeys(groups, 0)
    progress.start("Evaluating", len(images), "images")
    for image in images:
        try:
            ready = prepare_image(image.name, decode(image.read(), image.name), inference)
        except InputError as err:
            progress.warn(str(err))
            continue
        (sample,) = model.test_step({"inputs": [ready.tensor()], "data_samples": [ready.sample()]})
        found = sample.pred_instances
        order = found.scores.argsort(descending=True, stable=True)
        boxes = found.bboxes[order].float().cpu().numpy() / np.array([*ready.scale, *ready.scale], np.float32)
        for name, labels in places.items():
            known = image.boxes[~image.crowd & np.isin(image.labels, labels)]
            objects[name] += len(known)
            hits[name] = hits.get(name, 0) + count_hits(known, boxes, LIMITS)
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
