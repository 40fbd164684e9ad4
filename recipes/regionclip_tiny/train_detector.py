"""Train boxes and names together: the trunk, the pyramid of proposals, and the embeddings of regions.

    python train_detector.py --data DIR --lite0 WEIGHTS --text FILE --out detector.pt --minutes 75

One forward pass over square views serves three losses: quality focal and GIoU loss of `fpn-trunk`, and the naming of
regions. These are the known objects, jittered, good proposals for them, and proposals that meet no object. A region
learns its name in two ways at one learned temperature: cross entropy over all names and the zero background, and a
binary loss per name, which sets the zero point: above it "this is a ...", below it "it is not". Names that mean nearly
the same as the label are no negatives, nor is the finer or coarser name of the same object; background is known not to
be one of COCO's 80 classes and nothing more.

Names are embedded by the text tower, which stays as it is; the vocabulary holds besides the names of the photos those
of LVIS, Objects365 and OpenImages, as negatives, so that the space stays open.

Learning rates follow a cosine over the minutes; the weights that are kept are a moving average. Every ten minutes the
file is written and the dev split measured.
"""

from __future__ import annotations

import argparse
import math
import queue
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import sources
import torch
import torch.nn.functional as F
import train_text
from image_tower import MEAN, STD, Network, imagenet_tower
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image
from sources import Photo
from torch import Tensor
from torchvision.ops import box_iou
from views import View, make_view

SHARES = {"coco": 0.27, "narrow": 0.04, "boxed": 0.22, "imagenet-sample": 0.12, "caltech101-sample": 0.10}
SHARES |= {"flickr8k-1000": 0.25}
"""How often a photo of each group is drawn."""
ALIKE = 0.72
"""Cosine of two names' text embeddings from which one is no negative of the other."""
BACKGROUND = -2


def group(photo: Photo) -> str:
    """Return the group of `SHARES` that a photo is drawn with."""
    if photo.exhaustive:
        return "coco"
    return "narrow" if photo.narrow else photo.source


class Vocabulary:
    """The names with their embeddings.

    Args:
        photos: What is learned from.
        data: The folder of the data.
        text: State dict of the text tower, as `train_text.py` writes it.
        coco: COCO's names.
    """

    def __init__(self, photos: list[Photo], data: Path, text: Path, coco: list[str]) -> None:
        told = [name for photo in photos for name in (*photo.names, *photo.coarse) if name is not None]
        names = list(dict.fromkeys([*coco, *told]))
        known = {name.lower() for name in names}
        others = [name for name in dict.fromkeys(sources.clip_vectors(data)[0]) if name not in known]
        self.index = {name: i for i, name in enumerate(names)}
        self.embeddings = train_text.embed(text, [name.lower() for name in names] + others)  # (C, D)
        self.coco, self.learned = len(coco), len(names)
        alike = self.embeddings[: len(names)] @ self.embeddings.T > ALIKE
        alike[: len(coco), : len(coco)] = False
        self.alike = alike.scatter(1, torch.arange(len(names))[:, None], False)
        self.rarity = self._rarity(photos)

    def _rarity(self, photos: list[Photo]) -> Tensor:
        """Return (C,) weights that let rare names count more: (median share / share)^0.3, within 0.4 and 2.5."""
        sizes = Counter(group(photo) for photo in photos)
        share = torch.zeros(self.learned)
        for photo in photos:
            for name in photo.names:
                if name is not None:
                    share[self.index[name]] += SHARES[group(photo)] / sizes[group(photo)]
        return (share[: self.coco].median() / share.clamp(min=1e-6)).pow(0.3).clamp(0.4, 2.5)


def choose_regions(view: View, proposals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Return boxes (R, 4), labels (R,), coarse labels (R,) and weights (R,) to learn names from; None for no region."""
    side = view.image.shape[1]
    parts = []
    named = torch.nonzero(view.labels >= 0).flatten()
    named = named[torch.randperm(len(named))[:20]]
    if len(named):
        boxes = view.boxes[named]
        spread = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        boxes = (boxes + (torch.rand_like(boxes) - 0.5) * 0.16 * spread).clamp(0, side)
        parts.append((boxes, view.labels[named], view.coarse[named], view.weights[named]))
    if len(proposals):
        overlaps = box_iou(proposals, torch.cat([view.boxes, view.ignored, proposals.new_zeros(1, 4)]))
        objects = overlaps[:, : len(view.boxes)]
        best, owner = objects.max(dim=1) if len(view.boxes) else (proposals.new_zeros(len(proposals)), None)
        if owner is not None:
            good = torch.nonzero((best >= 0.6) & (view.labels[owner] >= 0)).flatten()
            good = good[torch.randperm(len(good))[:8]]
            own = owner[good]
            parts.append((proposals[good], view.labels[own], view.coarse[own], view.weights[own]))
        empty = torch.nonzero((overlaps < 0.4).all(dim=1)).flatten()[:40]
        empty = empty[torch.randperm(len(empty))[:8]]
        centres = (proposals[empty, :2] + proposals[empty, 2:])[:, None] / 2
        inside = ((centres > view.cells[:, :2]) & (centres < view.cells[:, 2:4])).all(dim=2).float()
        none = torch.full((len(empty),), -1)
        weights = (inside * view.cells[:, 4]).amax(dim=1)
        parts.append((proposals[empty], torch.full_like(none, BACKGROUND), none, weights))
    if not parts:
        return None
    boxes, labels, coarse, weights = (torch.cat(column) for column in zip(*parts, strict=True))
    return boxes, labels, coarse, weights


def naming_loss(
    embeddings: Tensor, labels: Tensor, coarse: Tensor, weights: Tensor, words: Vocabulary, scale: Tensor
) -> Tensor:
    """Return the loss of the module docstring for region embeddings (R, D)."""
    swap = (coarse >= 0) & (torch.rand(len(labels)) < 0.5)
    target, other = torch.where(swap, coarse, labels), torch.where(swap, labels, coarse)
    logits = F.normalize(embeddings, dim=1) @ words.embeddings.T * scale  # (R, C)
    named = target >= 0
    left_out = torch.zeros_like(logits, dtype=torch.bool)
    left_out[named] = words.alike[target[named]]
    both = torch.nonzero(named & (other >= 0)).flatten()
    left_out[both] |= words.alike[other[both]]
    left_out[both, other[both]] = True
    left_out[both, target[both]] = False
    left_out[~named, words.coco :] = True
    masked = torch.cat([logits.masked_fill(left_out, -1e4), logits.new_zeros(len(logits), 1)], dim=1)
    rarity = words.rarity[target.clamp(min=0)]
    share = torch.where(named, weights * rarity, 0.3 * weights)
    entropy = F.cross_entropy(masked, torch.where(named, target, logits.shape[1]), reduction="none")
    truth = torch.zeros_like(logits)
    truth[named, target[named]] = 1
    binary = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").masked_fill(left_out, 0)
    hardest = binary.masked_fill(truth.bool(), 0).topk(8, dim=1).values.mean(dim=1)
    right = (binary * truth).sum(dim=1)[named]
    return _mean(entropy, share) + 0.5 * (_mean(right, weights[named]) + 4 * _mean(hardest, weights))


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)


def samples_of(views: list[View]) -> list[DetDataSample]:
    """Return what `FpnTrunk.loss` learns from."""
    found = []
    for view in views:
        sample = DetDataSample(metainfo={"img_shape": tuple(view.image.shape[1:])})
        sample.gt_instances = InstanceData(bboxes=view.boxes, labels=torch.zeros(len(view.boxes), dtype=torch.long))
        sample.ignored_instances = InstanceData(bboxes=view.ignored)
        found.append(sample)
    return found


@torch.inference_mode()
def measure(network: Network, photos: list[Photo], words: Vocabulary) -> str:
    """Return recall at IoU 0.5 of 10 and 100 proposals, and top-1 of given boxes among COCO's names."""
    found: dict[int, list[bool]] = {10: [], 100: []}
    right: list[bool] = []
    for photo in photos:
        image = Image.open(photo.path).convert("RGB")
        factor = min(480 / min(image.size), 800 / max(image.size))
        width, height = (round(side * factor) for side in image.size)
        pixels = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BILINEAR)))
        features = network.trunk((pixels.permute(2, 0, 1)[None].float() / 255 - MEAN) / STD)
        sample = DetDataSample(metainfo={"img_shape": (height, width)})
        boxes = network.proposals(pixels.permute(2, 0, 1)[None], [sample], features)[0].boxes
        known = torch.from_numpy(photo.boxes) * torch.tensor([width / image.width, height / image.height] * 2)
        if not len(known):
            continue
        overlaps = box_iou(known, boxes)
        for limit, hits in found.items():
            hits += (overlaps[:, :limit] >= 0.5).any(dim=1).tolist()
        cosine = F.normalize(network.embed(features, [known]), dim=1) @ words.embeddings[: words.coco].T
        guesses = cosine.argmax(dim=1).tolist()
        pairs = zip(guesses, photo.names, strict=True)
        right += [words.index[name] == guess for guess, name in pairs if name is not None]
    recall = ", ".join(f"AR{limit} {100 * np.mean(hits):.1f}" for limit, hits in found.items())
    return f"dev: {recall}, top-1 {100 * np.mean(right):.1f}"


def main() -> None:
    """Train for a while and write the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lite0", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="the text tower, from train_text.py")
    parser.add_argument("--start", type=Path, help="go on from an earlier --out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=352, help="of the square views, pixels")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--trunk-lr", type=float, default=2.5e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    photos, dev = sources.training(args.data)
    words = Vocabulary([*photos, *dev], args.data, args.text, sources.coco_names(args.data))
    groups = {name: [photo for photo in photos if group(photo) == name] for name in SHARES}
    print({name: len(members) for name, members in groups.items()}, f"{len(words.embeddings)} names", flush=True)

    def draw() -> Photo:
        members = groups[rng.choice(list(SHARES), p=list(SHARES.values()))]
        return members[rng.integers(len(members))]

    ready: queue.Queue[list[View]] = queue.Queue(3)

    def prepare() -> None:
        while True:
            ready.put([make_view(draw, words.index, args.side, rng) for _ in range(args.batch)])

    network = Network(imagenet_tower(args.lite0)).to(memory_format=torch.channels_last)
    if args.start:
        network.load_state_dict(torch.load(args.start, weights_only=True)["state"])
    tower = [p for p in network.tower.parameters() if p.requires_grad]
    others = [p for name, p in network.named_parameters() if not name.startswith("tower.")]
    groups_of = [
        {"params": tower, "base": args.trunk_lr, "weight_decay": 1e-4, "warm": 300},
        {"params": [p for p in others if p.ndim > 1], "base": args.lr, "weight_decay": 0.02, "warm": 150},
        {"params": [p for p in others if p.ndim <= 1], "base": args.lr, "weight_decay": 0.0, "warm": 150},
    ]
    optimiser = torch.optim.AdamW(groups_of)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    threading.Thread(target=prepare, daemon=True).start()
    start = written = time.time()
    step, share = 0, 0.0
    while share < 1:
        views = ready.get()
        share = min(1.0, (time.time() - start) / 60 / args.minutes)
        for each in optimiser.param_groups:
            cosine = 0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * share))
            each["lr"] = each["base"] * cosine * min(1, (step + 1) / each["warm"])
        network.train()
        images = (torch.stack([view.image for view in views]).float() / 255 - MEAN) / STD
        features = network.trunk(images)
        samples = samples_of(views)
        logits, distances = network.proposals.dense(features)
        losses = network.proposals.dense_loss(logits, distances, samples)
        proposals = [torch.zeros(0, 4)] * len(views)
        if step > 100:
            network.proposals.configure(max_proposals=60, pre_nms=200)
            with torch.no_grad():
                found = network.proposals.select(logits, distances, [(args.side, args.side)] * len(views))
            proposals = [each.boxes for each in found]
        chosen = [choose_regions(view, some) for view, some in zip(views, proposals, strict=True)]
        boxes = [torch.zeros(0, 4) if some is None else some[0] for some in chosen]
        known = [some for some in chosen if some is not None]
        if known:
            columns = [torch.cat([some[i] for some in known]) for i in (1, 2, 3)]
            losses["loss_name"] = naming_loss(network.embed(features, boxes), *columns, words, network.scale.exp())
        loss = sum(losses.values())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower, 5.0)
        torch.nn.utils.clip_grad_norm_(others, 10.0)
        optimiser.step()
        step += 1
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - min(0.998, (1 + step) / (20 + step)))
        if step % 25 == 0:
            told = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"{60 * share * args.minutes / 60:.1f} min, step {step}: {told}", flush=True)
        if time.time() - written > 600 or share >= 1:
            pause = time.time()
            torch.save({"state": average, "step": step}, args.out)
            judge = Network(imagenet_tower(args.lite0))
            judge.load_state_dict(average)
            print(measure(judge.eval(), dev, words), flush=True)
            written = time.time()
            start += written - pause


if __name__ == "__main__":
    main()
