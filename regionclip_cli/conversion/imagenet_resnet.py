"""A ResNet-50 that torchvision or timm trained on ImageNet, as the beginning of a proposal network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from regionclip_cli.conversion.weights_file import read_weights
from regionclip_cli.errors import UsageError

STD_RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""What those networks divide pixels in 0..255 by; they subtract the mean that ours subtract, too."""


def read_resnet(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a file for a ResNet-50 in "pytorch" style that takes BGR pixels which nobody divides.

    Both differences go into the first convolution, which is linear: its input channels change places, and each is
    divided by its deviation. So the network computes what it computed before.

    Args:
        path: A state dict of `torchvision.models.resnet50` or timm's `resnet50`.
        wanted: State of the network that is to be filled, of its first three or four stages.

    Raises:
        MissingError: There is no such file.
        UsageError: It holds no weights, or those of another network.
    """
    found = read_weights(path)
    tensors = found if isinstance(found, Mapping) else {}
    fits = {name: tensors[name] for name, own in wanted.items() if name in tensors and tensors[name].shape == own.shape}
    missing = [name for name in wanted if name not in fits and not name.endswith("num_batches_tracked")]
    if missing:
        raise UsageError(
            f"{path} is not a torchvision or timm ResNet-50: {len(missing)} tensors are missing or have another shape "
            f"({', '.join(missing[:3])})."
        )
    first = fits["conv1.weight"].float() / torch.tensor(STD_RGB).view(1, 3, 1, 1)
    return fits | {"conv1.weight": first.flip(1)}
