"""Train what follows RoIAlign: last stages and projection learn to place regions in the joint space.

    python train_regions.py --data DIR --lite0 WEIGHTS --maps maps.pt --space space.npz --out regions.pt --minutes 25

Regions with a name: the boxes of coco-mini train (jittered), and the surest pseudo box of each ImageNet and Caltech
photo. Two losses at one learned temperature: cross entropy over all training names and the zero background (names
that mean nearly the same as the label are left out), and a binary loss per name, which sets the zero point: above it
"this is a ...", below it "it is not". Background boxes of coco-mini are negatives for the 80 COCO names only, since
anything else may well be in them. The projection starts as a ridge regression on the frozen features.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import feature_maps
import numpy as np
import sources
import torch
import torch.nn.functional as F
import train_text
from image_tower import STRIDE, Map, Pool, imagenet_tower
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

BACKGROUND = -1


@dataclass
class Region:
    """One training region: index of its map, box (4,) in input pixels, class index or BACKGROUND."""

    map: int
    box: Tensor
    label: int


def jitter(box: Tensor, size: tuple[int, int], rng: np.random.Generator, amount: float = 0.12) -> Tensor:
    """Return the box with its sides moved by up to `amount` of its width and height, inside the image."""
    width, height = box[2] - box[0], box[3] - box[1]
    move = torch.from_numpy(rng.uniform(-amount, amount, 4)).float() * torch.stack([width, height, width, height])
    moved = box + move
    limit = torch.tensor([size[1], size[0], size[1], size[0]]).float()
    return torch.minimum(moved.clamp(min=0), limit)


def background(found: Map, count: int, rng: np.random.Generator) -> list[Tensor]:
    """Return boxes of a COCO photo that overlap no object by IoU 0.35 or more.

    Up to `count` lie anywhere; and for every object up to two lie inside it, since a part (a cat's ear, half a bus) is
    what a detector most easily takes for the whole.
    """
    height, width = found.size
    side = np.exp(rng.uniform(np.log(32), np.log(min(height, width)), (count * 3, 2)))
    corner = rng.random((count * 3, 2)) * np.maximum(np.array([width, height]) - side, 1)
    boxes = torch.from_numpy(np.concatenate([corner, corner + side], 1)).float()
    if not len(found.boxes):
        return list(boxes[:count])
    whole = found.boxes.repeat_interleave(2, 0).numpy()
    whole = whole[(whole[:, 2:] - whole[:, :2]).min(1) >= 48]
    extent = whole[:, 2:] - whole[:, :2]
    part = extent * rng.uniform(0.25, 0.6, extent.shape)
    corner = whole[:, :2] + rng.random(extent.shape) * (extent - part)
    parts = torch.from_numpy(np.concatenate([corner, corner + part], 1)).float()
    apart = [each[box_iou(each, found.boxes).amax(1) < 0.35] for each in (boxes, parts) if len(each)]
    return [*apart[0][:count], *(apart[1] if len(apart) > 1 else ())]


def regions(found: list[Map], classes: dict[str, int], rng: np.random.Generator) -> list[Region]:
    """Return one epoch of regions: every named box jittered, and four background boxes a COCO photo."""
    out = []
    for index, item in enumerate(found):
        for box, name in zip(item.boxes, item.photo.names, strict=True):
            if name is not None and min(box[2] - box[0], box[3] - box[1]) >= 16:
                out.append(Region(index, jitter(box, item.size, rng), classes[name]))
        if item.photo.source == "coco":
            out += [Region(index, box, BACKGROUND) for box in background(item, 4, rng)]
    return out


def pooled(found: list[Map], chosen: list[Region], side: int) -> Tensor:
    """Return RoI features (R, 112, P, P)."""
    out = []
    for region in chosen:
        features = found[region.map].features.float()[None]
        out.append(roi_align(features, [region.box[None]], side, 1 / STRIDE, 0, True))
    return torch.cat(out)


def region_loss(
    z: Tensor, labels: Tensor, text: Tensor, scale: Tensor, coco: int, alike: Tensor, negatives: int
) -> Tensor:
    """Return cross entropy over names and background plus the binary loss of the module docstring.

    z (R, D) region embeddings; text (C, D) unit rows, the first `coco` are COCO's; alike (C, C) bool.
    """
    cosine = F.normalize(z, dim=1) @ text.T  # (R, C)
    logits = cosine * scale
    named = labels >= 0
    drop = torch.zeros_like(logits, dtype=torch.bool)
    drop[named] = alike[labels[named]]
    drop[named, labels[named]] = False
    drop[~named, coco:] = True  # outside COCO's names nobody knows what a background box shows
    masked = torch.cat([logits.masked_fill(drop, -1e4), torch.zeros(len(z), 1)], 1)
    target = torch.where(named, labels, text.shape[0])
    weight = torch.where(named, 1.0, 0.3)
    entropy = (F.cross_entropy(masked, target, reduction="none") * weight).sum() / weight.sum()
    truth = torch.zeros_like(logits)
    truth[named, labels[named]] = 1
    binary = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").masked_fill(drop, 0)
    hardest = binary.masked_fill(truth.bool(), 0).topk(negatives, 1).values.mean()
    return entropy + 0.5 * (binary[truth.bool()].mean() + 4 * hardest)


def accuracy(pool: Pool, found: list[Map], text: Tensor, classes: dict[str, int], side: int) -> str:
    """Return top-1 among the 80 names over all ground-truth boxes of the photos, and over those of 48 px or more."""
    right, large = [], []
    with torch.inference_mode():
        for item in found:
            if not len(item.boxes):
                continue
            z = pool(roi_align(item.features.float()[None], [item.boxes], side, 1 / STRIDE, 0, True))
            best = (F.normalize(z, dim=1) @ text[:80].T).argmax(1)
            right += (best == torch.tensor([classes[n] for n in item.photo.names if n is not None])).tolist()
            large += ((item.boxes[:, 2:] - item.boxes[:, :2]).amin(1) >= 48).tolist()
    hits, big = np.array(right), np.array(large)
    return f"val top-1 {hits.mean():.3f}, boxes of 48 px or more {hits[big].mean():.3f}"


def start_projection(
    pool: Pool, found: list[Map], chosen: list[Region], text: Tensor, side: int, strength: float
) -> None:
    """Set the projection to the ridge regression from pooled features to the names' vectors."""
    named = [r for r in chosen if r.label >= 0]
    with torch.inference_mode():
        x = torch.cat([pool.features(pooled(found, named[i : i + 256], side)) for i in range(0, len(named), 256)])
    y = text[torch.tensor([r.label for r in named])]
    solved = torch.linalg.solve(x.T @ x + strength * torch.eye(x.shape[1]), x.T @ y)
    pool.proj.weight.data.copy_(solved.T)


def pooled_features(
    pool: Pool, found: list[Map], classes: dict[str, int], rng: np.random.Generator, args: argparse.Namespace
) -> tuple[Tensor, Tensor]:
    """Return pooled features (N, 1280) and labels (N,) of three epochs of regions, kept in `--pooled` if given."""
    if args.pooled and args.pooled.exists():
        kept = torch.load(args.pooled, weights_only=True)
        return kept["features"], kept["labels"]
    x, labels = [], []
    with torch.inference_mode():
        for _ in range(3):
            todo = regions(found, classes, rng)
            for some in (todo[i : i + 256] for i in range(0, len(todo), 256)):
                cut = pooled(found, some, args.side).contiguous(memory_format=torch.channels_last)
                x.append(pool.features(cut))
                labels += [region.label for region in some]
    features, marked = torch.cat(x).clone(), torch.tensor(labels)
    if args.pooled:
        torch.save({"features": features, "labels": marked}, args.pooled)
    return features, marked


def train_head(
    pool: Pool, scale: nn.Parameter, x: Tensor, labels: Tensor, text: Tensor, alike: Tensor, steps: int
) -> None:
    """Train the projection and the temperature alone, on pooled features x (N, 1280): cheap, hence long.

    The weights that remain are the average over the second half of the steps.
    """
    groups = [{"params": [pool.proj.weight], "weight_decay": 0.05}, {"params": [scale], "weight_decay": 0}]
    optimiser = torch.optim.AdamW(groups, lr=5e-4)
    total = torch.zeros_like(pool.proj.weight.data)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 5e-4 * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        rows = torch.randint(len(x), (512,))
        loss = region_loss(pool.proj(x[rows]), labels[rows], text, scale.exp(), 80, alike, 8)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step >= steps // 2:
            total += pool.proj.weight.data
    pool.proj.weight.data.copy_(total / (steps - steps // 2))


def main() -> None:
    """Train for a while and write the pool's state dict and the logit scale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lite0", type=Path, required=True)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="names as this text tower embeds them, not as the space has them")
    parser.add_argument("--start", type=Path, help="go on from an earlier --out")
    parser.add_argument("--head-only", type=int, metavar="STEPS", help="train the projection only, on pooled features")
    parser.add_argument("--pooled", type=Path, help="with --head-only: keep the pooled features in this file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--side", type=int, default=14, help="P, the RoIAlign grid")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-4)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pool = Pool(imagenet_tower(args.lite0)).eval()
    found, val = feature_maps.read(args.maps, args.data)
    found = [m for m in found if m.photo.source == "coco" or any(m.photo.names)]
    space = np.load(args.space)
    row = {str(p): i for i, p in enumerate(space["phrases"])}
    names, _ = sources.clip_vectors(args.data)
    extra = [n for item in found for n in item.photo.names if n is not None]
    classes = {name: i for i, name in enumerate(dict.fromkeys([*names[:80], *extra]))}
    targets = torch.from_numpy(space["targets"].astype(np.float32))
    goal = F.normalize(targets[torch.tensor([row[n.lower()] for n in classes])], dim=1)  # (C, D)
    text = train_text.embed(args.text, [n.lower() for n in classes]) if args.text else goal
    alike = goal @ goal.T > 0.75
    scale = nn.Parameter(torch.tensor(20.0).log())
    if args.start:
        earlier = torch.load(args.start, weights_only=True)
        pool.load_state_dict(earlier["pool"])
        scale.data.fill_(earlier["scale"]).log_()
    else:
        start_projection(pool, found, regions(found, classes, rng), text, args.side, 300.0)
    print(
        f"{len(found)} maps, {len(classes)} names; start: {accuracy(pool, val, text, classes, args.side)}", flush=True
    )
    if args.head_only:
        features, labels = pooled_features(pool, found, classes, rng, args)
        train_head(pool, scale, features, labels, text, alike, args.head_only)
        after = accuracy(pool, val, text, classes, args.side)
        print(f"{len(features)} regions, scale {scale.exp().item():.1f}, {after}", flush=True)
        torch.save({"pool": pool.state_dict(), "scale": scale.exp().item(), "side": args.side}, args.out)
        return
    decay = [p for p in pool.parameters() if p.ndim >= 2]
    rest = [p for p in pool.parameters() if p.ndim < 2]
    groups = [
        {"params": decay, "weight_decay": 0.02},
        {"params": rest, "weight_decay": 0},
        {"params": [scale], "weight_decay": 0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=args.lr)
    pool = pool.to(memory_format=torch.channels_last)
    start, step, share, epoch = time.time(), 0, 0.0, 0
    average = {k: v.clone() for k, v in pool.state_dict().items()}
    while share < 1:
        todo = regions(found, classes, rng)
        order = rng.permutation(len(todo))
        for first in range(0, len(order) - args.batch + 1, args.batch):
            chosen = [todo[i] for i in order[first : first + args.batch]]
            share = min(1.0, (time.time() - start) / 60 / args.minutes)
            for group in optimiser.param_groups:
                group["lr"] = args.lr * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * share))
            x = pooled(found, chosen, args.side).contiguous(memory_format=torch.channels_last)
            labels = torch.tensor([r.label for r in chosen])
            with torch.autocast("cpu", torch.bfloat16):
                z = pool(x)
            loss = region_loss(z.float(), labels, text, scale.exp(), 80, alike, 8)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(pool.parameters(), 5.0)
            optimiser.step()
            step += 1
            for key, value in pool.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - min(0.995, (step + 1) / (step + 10)))
            if share >= 1:
                break
        epoch += 1
        live = {k: v.clone() for k, v in pool.state_dict().items()}
        pool.load_state_dict(average)
        measured = accuracy(pool, val, text, classes, args.side)
        torch.save(
            {"pool": {k: v.clone() for k, v in average.items()}, "scale": scale.exp().item(), "side": args.side},
            args.out,
        )
        pool.load_state_dict(live)
        print(
            f"epoch {epoch} step {step}: loss {loss.item():.3f}, scale {scale.exp().item():.1f}, {measured}", flush=True
        )


if __name__ == "__main__":
    main()
