"""Put text tower and detector into one model file.

    python assemble.py --lite0 WEIGHTS --text text.pt --detector detector.pt --out FILE

The file is half precision and self-describing; `regionclip models where regionclip-tiny` tells where the package
keeps its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from image_tower import PROPOSALS, SIDE, Network, averaged, imagenet_tower
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


def main() -> None:
    """Write the model file and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("lite0", "text", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--detector", type=Path, nargs="+", required=True, help="several are averaged, weight by weight"
    )
    parser.add_argument("--calibration", type=Path, help="what calibrate.py wrote")
    args = parser.parse_args()
    text = torch.load(args.text, weights_only=True)
    state = averaged(args.detector)
    fitted = json.loads(args.calibration.read_text()) if args.calibration else {}
    state["scale"] = state["scale"] + torch.tensor(fitted.get("scale", 1.0)).log()
    for key, value in state.items():
        # The objectness is a linear layer's output, so that its offset is a part of that layer's bias.
        if key.startswith("proposals.head.rtm_cls.") and key.endswith("bias"):
            state[key] = value + fitted.get("objectness", 0.0)
    tensors = Network(imagenet_tower(args.lite0)).tensors(state)
    tensors |= {f"clip.{k}": v for k, v in text.items() if not k.startswith("visual.") and k != "logit_scale"}
    card = ModelCard(
        name="regionclip-tiny",
        kind="detector",
        backbone="tiny-pyramid",
        clip={"embed_dim": 512, "vision_cfg": VISION, "text_cfg": CONFIG},
        pool_size=SIDE,
        proposals=PROPOSALS,
        parts=("visual", "text", "proposals"),
        templates="plain",
        temperature=1 / float(state["scale"].exp()),
        short_side=480,
        max_side=800,
        conf=fitted.get("conf"),
        calibration=(fitted["slope"], fitted["offset"]) if fitted else None,
        licence="Apache-2.0",
        source="recipes/regionclip_tiny in the project's repository",
        notes="See MODEL_CARD.md beside the file.",
    )
    write_model(args.out, card, {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()})
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
