"""timm's EfficientNet-Lite0 with ImageNet weights, and the whole detector in a form that trains fast.

Batch norms of the tower are frozen. They are folded into the convolutions before training, which saves a third of the
time on a CPU, and come back as identities when the tensors are written (`Network.tensors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from regionclip_cli.vision.backbones.timm_pyramid import RegionHead
from regionclip_cli.vision.feature_levels import Level, pack_levels, packed_channels
from regionclip_cli.vision.proposals.fpn_trunk import FpnTrunk
from regionclip_cli.vision.roi_align import axis_weights

MEAN, STD, STRIDE, SIDE, DIM = 0.498, 0.502, 16, 7, 512
LEVELS = (Level(8, 40), Level(16, 112), Level(32, 320))
PROPOSALS = {"type": "fpn-trunk", "levels": [list(level) for level in LEVELS], "max_proposals": 100}


def imagenet_tower(weights: Path) -> nn.Module:
    """Return timm's tf_efficientnet_lite0 with weights whose tensors come in the order of timm's state_dict."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = list(torch.load(weights, map_location="cpu", weights_only=True).values())
    names = list(model.state_dict())
    if len(tensors) != len(names):
        raise SystemExit(f"{weights}: {len(tensors)} tensors, expected {len(names)}")
    model.load_state_dict(dict(zip(names, tensors, strict=True)))
    return model


def averaged(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return the mean, weight by weight, of the detectors that `train_detector.py` wrote."""
    states = [torch.load(file, weights_only=True)["state"] for file in files]
    return {
        key: sum(state[key] for state in states) / len(states) if value.is_floating_point() else value
        for key, value in states[0].items()
    }


class Network(nn.Module):
    """The backbone `tiny-pyramid` and the proposal network `fpn-trunk` as they are trained together.

    Args:
        tower: What `imagenet_tower` returns; it is used up.
        frozen: Blocks, after the stem, that do not learn.
    """

    def __init__(self, tower: nn.Module, frozen: int = 2) -> None:
        super().__init__()
        self.norm_eps = {name: m.eps for name, m in tower.named_modules() if isinstance(m, nn.BatchNorm2d)}
        fold_norms(tower)
        del tower.classifier
        self.tower, self.frozen = tower, frozen
        self.projection = nn.Linear(1280, DIM, bias=False)
        self.region_head = RegionHead(packed_channels(LEVELS, STRIDE), DIM, SIDE, 320)
        self.proposals = FpnTrunk(PROPOSALS["levels"])
        self.scale = nn.Parameter(torch.tensor(20.0).log())
        nn.init.normal_(self.projection.weight, std=0.02)
        place = self.region_head.place.weight
        place.data += torch.randn_like(place) * 0.3 / SIDE**2
        for module in (tower.conv_stem, *tower.blocks[:frozen]):
            module.requires_grad_(False)

    def trunk(self, images: Tensor) -> Tensor:
        """Return the packed maps (B, 592, h, w) of normalised images (B, 3, 16 h, 16 w)."""
        x = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            x = self.tower.blocks[: self.frozen](self.tower.bn1(self.tower.conv_stem(x)))
        fine = self.tower.blocks[self.frozen : 3](x)
        middle = self.tower.blocks[3:5](fine)
        return pack_levels([fine, middle, self.tower.blocks[5:](middle)], LEVELS, STRIDE)

    def embed(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """Return the embeddings (R, 512) of the boxes (R_i, 4) of each image, in pixels."""
        cuts = [_cut(each, some) for each, some in zip(features, boxes, strict=True) if len(some)]
        if not cuts:
            return features.new_zeros(0, DIM)
        regions = torch.cat(cuts).permute(0, 3, 1, 2)
        mean = regions.mean(dim=(2, 3))
        deep = self.tower.bn2(self.tower.conv_head(mean[:, -LEVELS[-1].channels :, None, None])).flatten(1)
        return self.projection(deep) + self.region_head(self.region_head.reduce(regions), mean)

    def tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state of this network under the names of a model file, batch norms written as identities."""
        found = {"clip.visual.head.proj.weight": state["projection.weight"], "clip.logit_scale": state["scale"]}
        for key, value in state.items():
            part, _, rest = key.partition(".")
            if part == "region_head":
                found[f"clip.visual.region_head.{rest}"] = value
            elif part == "proposals":
                found[key] = value
        original = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        for conv, norm in _pairs(original):
            weight, bias = state[f"tower.{conv}.weight"], state[f"tower.{conv}.bias"]
            identity = {
                "weight": torch.ones(len(bias)),
                "bias": bias,
                "running_mean": torch.zeros(len(bias)),
                "running_var": torch.full((len(bias),), 1 - self.norm_eps[norm]),
                "num_batches_tracked": torch.tensor(0),
            }
            found[f"clip.visual.trunk.{conv}.weight"] = weight
            found |= {f"clip.visual.trunk.{norm}.{key}": value for key, value in identity.items()}
        return found


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm into the convolution before it; the activation that timm keeps in the norm stays."""
    for conv, norm in _pairs(network):
        place, _, name = norm.rpartition(".")
        parent = network.get_submodule(place)
        layer, after = network.get_submodule(conv), network.get_submodule(norm)
        setattr(
            network.get_submodule(conv.rpartition(".")[0]), conv.rpartition(".")[2], fuse_conv_bn_eval(layer, after)
        )
        setattr(parent, name, getattr(after, "act", nn.Identity()))
    network.requires_grad_(True)


def _pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of each convolution and of the batch norm that its parent holds just after it."""
    found = []
    for path, parent in network.named_modules():
        names = [(f"{path}.{name}" if path else name, module) for name, module in parent.named_children()]
        for (conv, layer), (norm, after) in pairwise(names):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                found.append((conv, norm))
    return found


def _cut(features: Tensor, boxes: Tensor) -> Tensor:
    """Return RoIAlign's cuttings (R, P, P, c) of boxes (R, 4) from a map (c, h, w), as two products of matrices."""
    channels, height, width = features.shape
    left, top, right, bottom = (boxes / STRIDE - 0.5).unbind(dim=1)
    rows = axis_weights(top, bottom - top, SIDE, height)  # (R, P, h)
    columns = axis_weights(left, right - left, SIDE, width)  # (R, P, w)
    cells = features.permute(1, 2, 0).reshape(height, width * channels)
    lines = (rows.reshape(-1, height) @ cells).view(len(boxes), SIDE, width, channels)
    return torch.einsum("rqw,rpwc->rpqc", columns, lines)
