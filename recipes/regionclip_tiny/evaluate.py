"""Measure a model file on coco-mini/val through the public API; these are the figures of MODEL_CARD.md.

    python evaluate.py --data DIR --model regionclip-tiny

* main object: the largest box over 15 % of the photo, person aside, is among the ten best detections of the 80 COCO
  names (right name, IoU 0.5);
* regions: top-1 of ground-truth boxes among the 80 names;
* AP50 of the 80 names.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import sources
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.ops import box_iou

from regionclip_cli import Detector
from regionclip_cli.language.text_encoder import TextEncoder


def average_precision(found: list[tuple[float, int, np.ndarray]], truth: dict[int, np.ndarray]) -> float:
    """Return AP at IoU 0.5 (all-point) of one class: detections (score, photo, box), true boxes by photo."""
    total = sum(len(b) for b in truth.values())
    used = {k: np.zeros(len(b), bool) for k, b in truth.items()}
    hits = []
    for _, photo, box in sorted(found, key=lambda f: -f[0]):
        hit = False
        if len(truth.get(photo, ())):
            iou = box_iou(torch.tensor(box[None]), torch.tensor(truth[photo]))[0].numpy() * ~used[photo]
            if iou.max() >= 0.5:
                used[photo][iou.argmax()] = hit = True
        hits.append(hit)
    tp = np.cumsum(hits)
    precision = tp / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hits).sum() / total)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="regionclip-tiny")
    args = parser.parse_args()
    names, _ = sources.clip_vectors(args.data)
    names = names[:80]
    photos = sources.coco(args.data, "val")
    detector = Detector(args.model).set_classes(names)
    text = F.normalize(TextEncoder(detector.path).encode(names), dim=1)
    main_hits, top1, spent = [], [], 0.0
    found: dict[str, list] = {n: [] for n in names}
    truth: dict[str, dict[int, np.ndarray]] = {n: {} for n in names}
    for number, photo in enumerate(photos):
        image = Image.open(photo.path).convert("RGB")
        start = time.perf_counter()
        result = detector.detect(image, conf=0.0005, max_dets=100)
        spent += time.perf_counter() - start
        for box, score, label in zip(result.boxes, result.scores, result.labels, strict=True):
            found[label].append((float(score), number, np.asarray(box, np.float32)))
        for name in {n for n in photo.names if n}:
            truth[name][number] = photo.boxes[[n == name for n in photo.names]]
        if len(photo.boxes):
            z = F.normalize(detector.embed_regions(image, photo.boxes), dim=1)
            top1 += [names[i] == n for i, n in zip((z @ text.T).argmax(1).tolist(), photo.names, strict=True)]
        sides = photo.boxes[:, 2:] - photo.boxes[:, :2]
        areas = sides.prod(1) / (image.width * image.height)
        order = [i for i in np.argsort(-areas) if photo.names[i] != "person" and areas[i] > 0.15]
        if order:
            goal = photo.boxes[order[:1]]
            same = [n == photo.names[order[0]] for n in list(result.labels)[:10]]
            best = box_iou(torch.tensor(goal), torch.tensor(np.asarray(result.boxes[:10], np.float32).reshape(-1, 4)))
            main_hits.append(bool((best[0].numpy()[: len(same)] * np.array(same) >= 0.5).any()) if same else False)
    present = [n for n in names if truth[n]]
    ap = [average_precision(found[n], truth[n]) for n in present]
    figures = {
        "photos": len(photos),
        "main object in ten best": round(100 * float(np.mean(main_hits)), 1),
        "photos with a main object": len(main_hits),
        "AP50": round(100 * float(np.mean(ap)), 1),
        "top-1 of regions": round(100 * float(np.mean(top1)), 1),
        "seconds a photo": round(spent / len(photos), 3),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
