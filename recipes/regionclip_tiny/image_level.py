"""Make an image-level model out of the same parts: one that has never been shown a region.

    python image_level.py --data DIR --lite0 WEIGHTS --out image-level.safetensors

The paper starts from CLIP, which learned from whole images; `regionclip-tiny` has seen boxes. To measure what region
pretraining gains, this model plays CLIP's part: the ImageNet tower as it is, and a projection that ridge regression
fits to whole photos (ImageNet and Caltech names, Flickr8k captions) in the text space of `regionclip-tiny`, from which
the text tower is taken. Boxes are lent to it: `--proposals regionclip-tiny`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import sources
import torch
import torch.nn.functional as F
from assemble import VISION
from image_tower import MEAN, STD, imagenet_tower
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor

from regionclip_cli.hub.model_card import read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.hub.store import resolve
from regionclip_cli.language.text_encoder import TextEncoder

SIDE = 224


def picture(path: Path) -> Tensor:
    """Return the middle of a photo as pixels (3, 224, 224), normalised."""
    with Image.open(path) as file:
        image = ImageOps.fit(ImageOps.exif_transpose(file).convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - MEAN) / STD


def photos(data: Path) -> list[tuple[Path, list[str]]]:
    """Return every training photo with what is said about it."""
    found = [*sources.labelled(data, "imagenet-sample"), *sources.labelled(data, "caltech101-sample")]
    return [(photo.path, [text.lower() for text in photo.captions]) for photo in [*found, *sources.captioned(data)]]


@torch.inference_mode()
def features(tower: torch.nn.Module, paths: list[Path]) -> Tensor:
    """Return average-pooled features (N, 1280) of whole photos."""
    parts = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    return torch.cat(
        [tower.forward_features(torch.stack([picture(p) for p in some])).float().mean((2, 3)) for some in parts]
    )


def fit(x: Tensor, goal: Tensor, strength: float) -> Tensor:
    """Return the ridge regression (D, 1280) from features (N, 1280) to unit vectors (N, D), without an offset."""
    return torch.linalg.solve(x.T @ x + strength * torch.eye(x.shape[1]), x.T @ goal).T


def main() -> None:
    """Fit the projection and the temperature, print what came out, and write the model file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lite0", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strength", type=float, default=300.0, help="of the ridge regression [%(default)s]")
    args = parser.parse_args()
    base = resolve("regionclip-tiny")
    encoder = TextEncoder(base)
    told = photos(args.data)
    sentences = list(dict.fromkeys(text for _, texts in told for text in texts))
    vectors = dict(zip(sentences, F.normalize(encoder.encode(sentences), dim=1), strict=True))
    goal = F.normalize(torch.stack([torch.stack([vectors[t] for t in texts]).mean(0) for _, texts in told]), dim=1)
    tower = imagenet_tower(args.lite0)
    x = features(tower, [path for path, _ in told])
    held_out = torch.arange(len(told)) % 10 == 0
    labels = [texts[0] for _, texts in told]
    names = sorted({texts[0] for _, texts in told if len(texts) == 1})
    text = torch.stack([vectors[name] for name in names])
    rows = torch.tensor([i for i, (_, texts) in enumerate(told) if len(texts) == 1 and held_out[i]])
    target = torch.tensor([names.index(labels[i]) for i in rows.tolist()])
    cosine = F.normalize(x[rows] @ fit(x[~held_out], goal[~held_out], args.strength).T, dim=1) @ text.T
    right = (cosine.argmax(1) == target).float().mean()
    scales = torch.arange(5, 60, 1.0)
    scale = float(scales[int(torch.stack([F.cross_entropy(cosine * s, target) for s in scales]).argmin())])
    print(
        f"{len(told)} photos; {100 * right:.1f} % of {len(rows)} held out named among {len(names)}; scale {scale:.0f}"
    )
    kept = {k: v for k, v in load_file(base).items() if not k.startswith(("clip.visual.", "proposals."))}
    tensors = {f"clip.visual.trunk.{k}": v for k, v in tower.state_dict().items() if not k.startswith("classifier.")}
    tensors["clip.visual.head.proj.weight"] = fit(x, goal, args.strength)
    tensors["clip.logit_scale"] = torch.tensor(scale).log()
    card = read_card(base).model_copy(
        update={
            "name": "image-level",
            "backbone": "regionclip-tiny",
            "pool_size": None,
            "proposals": None,
            "parts": ("visual", "text"),
            "temperature": 1 / scale,
            "clip": {**(read_card(base).clip or {}), "vision_cfg": VISION},
            "notes": "Has never been shown a region; for measuring what region pretraining gains.",
        }
    )
    write_model(args.out, card, kept | tensors)


if __name__ == "__main__":
    main()
