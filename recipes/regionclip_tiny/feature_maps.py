"""Pass every photo through the frozen trunk once, and keep the maps for the two trainings that follow.

    python feature_maps.py --data DIR --lite0 WEIGHTS --out maps.pt

coco-mini at several scales and mirrored; the others once each, at a drawn scale. About 2 GB in half precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sources
import torch
from image_tower import Map, Trunk, imagenet_tower, maps


def photos(data: Path) -> dict[str, list[sources.Photo]]:
    """Return the photos by set, in a fixed order; `val` is only ever measured on."""
    return {
        "coco": sources.coco(data, "train"),
        "imagenet": sources.labelled(data, "imagenet-sample"),
        "caltech": sources.labelled(data, "caltech101-sample"),
        "flickr": sources.captioned(data),
        "val": sources.coco(data, "val"),
    }


# set, short sides to draw from, whether to mirror half of them, seed
PLAN = [
    ("coco", [480], False, 0),
    ("coco", [360, 480, 600], True, 1),
    ("coco", [480, 560], True, 2),
    ("imagenet", [160, 224, 320], True, 3),
    ("caltech", [160, 224, 320], True, 4),
    ("flickr", [240, 320, 400], True, 5),
    ("val", [480], False, 6),
]


def read(cache: Path, data: Path) -> tuple[list[Map], list[Map]]:
    """Return (training maps, validation maps) of a file that this script wrote."""
    known = photos(data)
    rows = torch.load(cache, weights_only=True, mmap=True)
    found = [(r["set"], Map(r["features"], r["boxes"], tuple(r["size"]), known[r["set"]][r["photo"]])) for r in rows]
    return [m for name, m in found if name != "val"], [m for name, m in found if name == "val"]


def main() -> None:
    """Write one row a map: set, photo index, features (112, h, w) fp16, boxes (R, 4) and size in input pixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lite0", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    trunk = Trunk(imagenet_tower(args.lite0)).eval()
    known, rows = photos(args.data), []
    for name, shorts, flip, seed in PLAN:
        for index, item in enumerate(maps(trunk, known[name], shorts, flip, seed)):
            row = {"set": name, "photo": index, "features": item.features, "boxes": item.boxes, "size": list(item.size)}
            rows.append(row)
        print(f"{name}: {len(rows)} maps so far", flush=True)
    torch.save(rows, args.out)


if __name__ == "__main__":
    main()
