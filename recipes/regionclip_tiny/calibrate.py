"""Fit the scores of a trained detector on the dev split, so that a score says how often it is right.

    python calibrate.py --data DIR --lite0 WEIGHTS --text text.pt --detector detector.pt --out calibration.json

A score is sqrt(p o): p the softmax over the names asked for and the zero background, o the sigmoid of the objectness.
Two numbers are fitted by logistic loss on the detections that are left after suppression: a factor of the temperature
and an offset of the objectness. A slope of the objectness would calibrate better and rank worse. A detection is right
if it overlaps an object of its name by half. The default threshold is the one with the best F1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import sources
import torch
import torch.nn.functional as F
import train_text
from image_tower import MEAN, STD, Network, imagenet_tower
from mmdet.structures import DetDataSample
from PIL import Image
from sources import Photo
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

LEAST = 0.02
"""Detections of a lower score take no part."""


@torch.inference_mode()
def detections(network: Network, photo: Photo, text: Tensor, names: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return cosines (N, 80) with the names, objectness logits (N,), and whether each detection is right (N,)."""
    image = Image.open(photo.path).convert("RGB")
    factor = min(480 / min(image.size), 800 / max(image.size))
    width, height = (round(side * factor) for side in image.size)
    pixels = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BILINEAR)))
    features = network.trunk((pixels.permute(2, 0, 1)[None].float() / 255 - MEAN) / STD)
    sample = DetDataSample(metainfo={"img_shape": (height, width)})
    (found,) = network.proposals(pixels, [sample], features)
    cosine = F.normalize(network.embed(features, [found.boxes]), dim=1) @ text.T
    score, label = scores(cosine, found.logits, network.scale.exp(), torch.tensor(0.0)).max(dim=1)
    kept = batched_nms(found.boxes, score, label, 0.5)
    kept = kept[score[kept] > LEAST]
    known = torch.from_numpy(photo.boxes) * torch.tensor([width / image.width, height / image.height] * 2)
    right = torch.zeros(len(kept), dtype=torch.bool)
    free = torch.ones(len(known), dtype=torch.bool)
    truth = torch.tensor([names.index(name) if name in names else -1 for name in photo.names])
    for row, (box, guess) in enumerate(zip(found.boxes[kept], label[kept], strict=True)):
        fits = (box_iou(box[None], known)[0] >= 0.5) & (truth == guess) & free
        if fits.any():
            right[row], free[fits.nonzero()[0]] = True, False
    return cosine[kept], found.logits[kept], right


def scores(cosine: Tensor, logits: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Return sqrt(p o) (N, C) for cosines (N, C) and objectness logits (N,)."""
    p = F.pad(cosine * scale, (0, 1)).softmax(dim=1)[:, :-1]
    return (p * (logits + offset).sigmoid()[:, None]).clamp(min=1e-8).sqrt()


def calibration_error(score: Tensor, right: Tensor, bins: int = 10) -> float:
    """Return the expected calibration error: the mean gap between score and accuracy over equal bins of the score."""
    which = (score * bins).long().clamp(max=bins - 1)
    gap = 0.0
    for number in range(bins):
        some = which == number
        if some.any():
            gap += float(some.float().mean() * (score[some].mean() - right[some].float().mean()).abs())
    return gap


def best_threshold(score: Tensor, right: Tensor, objects: int) -> tuple[float, float]:
    """Return the threshold with the best F1, and that F1."""
    order = score.argsort(descending=True)
    hits = right[order].float().cumsum(0)
    f1 = 2 * hits / (torch.arange(1, len(hits) + 1) + objects)
    best = int(f1.argmax())
    return float(score[order[best]]), float(f1[best])


def main() -> None:
    """Fit, say how well the scores are calibrated before and after, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "lite0", "text", "detector", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    names = sources.coco_names(args.data)
    text = train_text.embed(args.text, names)
    network = Network(imagenet_tower(args.lite0)).eval()
    network.load_state_dict(torch.load(args.detector, weights_only=True)["state"])
    network.proposals.configure(max_proposals=100)
    _, dev = sources.training(args.data)
    parts = [detections(network, photo, text, names) for photo in dev]
    cosine, logits, right = (torch.cat(column) for column in zip(*parts, strict=True))
    start = network.scale.detach().exp()
    free = torch.zeros(2, requires_grad=True)  # log of the scale's factor, offset
    optimiser = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def fitted() -> Tensor:
        return scores(cosine, logits, start * free[0].exp(), free[1]).amax(dim=1).clamp(max=1 - 1e-6)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy(fitted(), right.float())
        loss.backward()
        return loss

    before = fitted().detach()
    optimiser.step(closure)
    after = fitted().detach()
    objects = sum(len(photo.boxes) for photo in dev)
    conf, f1 = best_threshold(after, right, objects)
    for when, score in (("before", before), ("after", after)):
        shown = score >= conf
        print(f"{when}: ECE {calibration_error(score, right):.3f}, {calibration_error(score[shown], right[shown]):.3f}"
              f" of the {int(shown.sum())} detections above {conf:.2f}")  # fmt: skip
    values = free.detach()
    found = {"scale": values[0].exp(), "offset": values[1]}
    result = {key: round(float(value), 4) for key, value in found.items()} | {"conf": round(conf, 2)}
    print(f"{result}, F1 {f1:.3f} on {len(dev)} photos", flush=True)
    args.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
