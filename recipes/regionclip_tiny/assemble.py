"""Put the three trained parts into one model file.

    python assemble.py --lite0 WEIGHTS --text text.pt --regions regions.pt --proposals proposals.pt --out FILE

The file is half precision and self-describing; `regionclip models where regionclip-tiny` tells where the package
keeps its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from image_tower import Pool, imagenet_tower
from train_text import CONFIG

from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.model_file import write_model

VISION = {
    "timm_model_name": "tf_efficientnet_lite0",
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "image_size": 224,
}


def tensors(lite0: Path, text: dict, regions: dict, proposals: dict) -> dict[str, torch.Tensor]:
    """Return every tensor of the model under its name in a model file, half precision."""
    tower = imagenet_tower(lite0)
    pool = Pool(tower)
    pool.load_state_dict(regions["pool"])  # shares the tower's modules, so this fills the tower too
    kept = {k: v for k, v in tower.state_dict().items() if not k.startswith("classifier.")}
    found = {f"clip.visual.trunk.{k}": v for k, v in kept.items()}
    found["clip.visual.head.proj.weight"] = pool.proj.weight.data
    found |= {f"clip.{k}": v for k, v in text.items() if not k.startswith("visual.") and k != "logit_scale"}
    found["clip.logit_scale"] = torch.tensor(float(regions["scale"])).log()
    found |= {f"proposals.{k}": v for k, v in proposals["state"].items()}
    return {k: v.half() if v.is_floating_point() else v for k, v in found.items()}


def main() -> None:
    """Write the model file and print its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("lite0", "text", "regions", "proposals", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--conf", type=float, default=None, help="recommended display threshold")
    args = parser.parse_args()
    text, regions, proposals = (torch.load(f, weights_only=True) for f in (args.text, args.regions, args.proposals))
    card = ModelCard(
        name="regionclip-tiny",
        kind="detector",
        backbone="regionclip-tiny",
        clip={"embed_dim": 512, "vision_cfg": VISION, "text_cfg": CONFIG},
        pool_size=regions["side"],
        proposals=proposals["config"],
        parts=("visual", "text", "proposals"),
        templates="plain",
        temperature=1 / float(regions["scale"]),
        short_side=480,
        max_side=800,
        conf=args.conf,
        licence="Apache-2.0",
        source="recipes/regionclip_tiny in the project's repository",
        notes="See MODEL_CARD.md beside the file.",
    )
    write_model(args.out, card, tensors(args.lite0, text, regions, proposals))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
