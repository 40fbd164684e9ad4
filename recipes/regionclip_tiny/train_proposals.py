"""Train the light proposal head on the frozen trunk: one mmdet RPNHead on the stride-16 map, class-agnostic.

    python train_proposals.py --data DIR --maps maps.pt --out proposals.pt --minutes 20

Objects: the boxes of coco-mini train, and the pseudo boxes of the photos without boxes from objectness 0.3 up; weaker
pseudo boxes are neither object nor background (mmdet's ignored instances). Half of each batch is
coco-mini, half the photos without boxes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import feature_maps
import numpy as np
import torch
from image_tower import Map
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import box_iou

from regionclip_cli.vision.proposals.base import ProposalSource
from regionclip_cli.vision.proposals.build import build_proposals

HEAD = {
    "type": "rpn-trunk",
    "channels": 112,
    "feat_channels": 128,
    "num_convs": 2,
    "stride": 16,
    "sizes": [32, 64, 128, 256, 512],
    "ratios": [0.5, 1.0, 2.0],
    "max_proposals": 150,
}


def sample(found: Map, least: float = 0.3) -> DetDataSample:
    """Return boxes of objectness `least` and up as objects, weaker ones as ignored."""
    sure = torch.from_numpy(found.photo.objectness >= least)
    out = DetDataSample(metainfo={"img_shape": found.size, "pad_shape": found.size, "scale_factor": (1.0, 1.0)})
    labels = torch.zeros(int(sure.sum()), dtype=torch.long)
    out.gt_instances = InstanceData(bboxes=found.boxes[sure].float(), labels=labels)
    out.ignored_instances = InstanceData(bboxes=found.boxes[~sure].float())
    return out


def stacked(chosen: list[Map]) -> tuple[Tensor, list[DetDataSample]]:
    """Return features (B, 112, h, w), zero padded to the largest, and their samples."""
    height, width = (max(m.features.shape[i] for m in chosen) for i in (1, 2))
    out = torch.zeros(len(chosen), chosen[0].features.shape[0], height, width)
    for row, item in zip(out, chosen, strict=True):
        row[:, : item.features.shape[1], : item.features.shape[2]] = item.features
    return out, [sample(m) for m in chosen]


def recall(source: ProposalSource, val: list[Map]) -> str:
    """Return recall at IoU 0.5 over all boxes, and over boxes of 15 % of the photo, for 100 and 10 proposals."""
    hits: dict[tuple[int, bool], list[bool]] = {(k, b): [] for k in (10, 100) for b in (False, True)}
    source.eval()
    with torch.inference_mode():
        for item in val:
            if not len(item.boxes):
                continue
            features, samples = stacked([item])
            image = torch.zeros(1, 3, *item.size)
            boxes = source(image, samples, features)[0].boxes
            sides = item.boxes[:, 2:] - item.boxes[:, :2]
            large = sides.prod(1) > 0.15 * item.size[0] * item.size[1]
            for top in (10, 100):
                found = (box_iou(item.boxes, boxes[:top]) >= 0.5).any(1)
                hits[top, False] += found.tolist()
                hits[top, True] += found[large].tolist()
    source.train()
    return ", ".join(f"AR{k}{' large' if b else ''} {np.mean(v):.3f}" for (k, b), v in hits.items())


def main() -> None:
    """Train for a while and write the head's state dict and config."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    found, val = feature_maps.read(args.maps, args.data)
    usable = [m for m in found if len(m.boxes) and m.photo.objectness.max() >= 0.3]
    sets = [[m for m in usable if (m.photo.source == "coco") == named] for named in (True, False)]
    source = build_proposals(HEAD)
    source.configure(nms_iou=0.7, pre_nms=1000, max_proposals=100)
    source.train()
    optimiser = torch.optim.AdamW(source.parameters(), lr=args.lr, weight_decay=0.02)
    start, step, share = time.time(), 0, 0.0
    print(f"{[len(s) for s in sets]} maps", flush=True)
    while share < 1:
        share = min(1.0, (time.time() - start) / 60 / args.minutes)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * share))
        half = args.batch // 2
        chosen = [s[int(i)] for s in sets for i in rng.integers(len(s), size=half)]
        features, samples = stacked(chosen)
        losses = source.loss(features, samples)
        loss = sum(sum(v) if isinstance(v, list) else v for v in losses.values())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(source.parameters(), 5.0)
        optimiser.step()
        step += 1
        if step % 200 == 0 or share >= 1:
            print(f"step {step}: loss {loss.item():.3f}, {recall(source, val)}", flush=True)
            torch.save({"state": source.state_dict(), "config": HEAD}, args.out)


if __name__ == "__main__":
    main()
