"""Fit the scores of a trained detector on the dev split, so that a score is the probability of being right.

    python calibrate.py --data DIR --lite0 WEIGHTS --text text.pt --detector detector.pt --out calibration.json

A detection scores s = sqrt(p o): p the softmax over the names asked for and the zero background, o the sigmoid of the
objectness. First a factor of the scale (the inverse temperature) and an offset of the objectness are fitted to all
detections by logistic loss. Then Platt scaling, sigmoid(slope * logit(s) + offset), makes a probability of s and leaves
the ranking as it is; it is fitted to the best ten detections a photo, since those below are nearly all wrong and so
many that they would decide the fit. A detection is right if its IoU with an object of its name is at least 0.5.

Several detectors are averaged first, weight by weight (a model soup, Wortsman et al., 2022), as in `assemble.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sources
import torch
import torch.nn.functional as F
import train_text
from image_tower import MEAN, STD, Network, averaged, imagenet_tower
from mmdet.structures import DetDataSample
from PIL import Image
from sources import Photo
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

LEAST = 0.02
"""Detections of a lower score are not looked at."""
FITTED = 10
"""Best detections a photo, on average, that Platt scaling is fitted to."""
CONF = 0.25
"""Default score threshold."""


@torch.inference_mode()
def detections(network: Network, photo: Photo, text: Tensor, names: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return cosines (N, 80) with the names, objectness logits (N,), and whether each detection is right (N,)."""
    image = Image.open(photo.path).convert("RGB")
    factor = min(480 / min(image.size), 800 / max(image.size))
    width, height = (round(side * factor) for side in image.size)
    pixels = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BILINEAR)))
    features = network.trunk((pixels.permute(2, 0, 1)[None].float() / 255 - MEAN) / STD)
    sample = DetDataSample(metainfo={"img_shape": (height, width)})
    (found,) = network.proposals(pixels.permute(2, 0, 1)[None], [sample], features)
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


def fit(loss_of: Callable[[Tensor], Tensor], start: list[float]) -> Tensor:
    """Return the numbers that have the least loss."""
    free = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = loss_of(free)
        loss.backward()
        return loss

    optimiser.step(closure)
    return free.detach()


def main() -> None:
    """Fit the four numbers, print the calibration error before and after, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "lite0", "text", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--detector", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    names = sources.coco_names(args.data)
    text = train_text.embed(args.text, names)
    network = Network(imagenet_tower(args.lite0)).eval()
    network.load_state_dict(averaged(args.detector))
    network.proposals.configure(max_proposals=100)
    _, dev = sources.training(args.data)
    parts = [detections(network, photo, text, names) for photo in dev]
    cosine, logits, right = (torch.cat(column) for column in zip(*parts, strict=True))
    start = network.scale.detach().exp()

    def fused(free: Tensor) -> Tensor:
        return scores(cosine, logits, start * free[0].exp(), free[1]).amax(dim=1).clamp(max=1 - 1e-6)

    ranking = fit(lambda free: F.binary_cross_entropy(fused(free), right.float()), [0.0, 0.0])
    raw = fused(ranking)
    best = raw.topk(FITTED * len(dev)).indices

    def platt(free: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(free[0] * raw[best].logit() + free[1], right[best].float())

    slope, offset = fit(platt, [1.0, 0.0]).tolist()
    after = (slope * raw.logit() + offset).sigmoid()
    shown = after >= CONF
    for when, score in (("before", fused(torch.zeros(2))), ("after", after)):
        above = calibration_error(score[shown], right[shown])
        print(f"{when}: ECE {calibration_error(score, right):.3f}, {above:.3f} above the threshold")
    print(f"{int(shown.sum())} detections above the threshold, {right[shown].float().mean():.2f} of them right")
    numbers = {"scale": float(ranking[0].exp()), "objectness": float(ranking[1]), "slope": slope, "offset": offset}
    result = {key: round(value, 4) for key, value in numbers.items()} | {"conf": CONF}
    print(f"{result} on {len(dev)} photos", flush=True)
    args.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
