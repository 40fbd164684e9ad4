"""Images that are in memory already, in any of the forms Python people keep them in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from PIL import Image

from regionclip_cli.data.images import ImageInput, safe_name
from regionclip_cli.data.pixels import read_image, to_rgb
from regionclip_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

ImageLike = Union[str, Path, Image.Image, np.ndarray, "Tensor"]


def as_pixels(image: Any, name: str) -> tuple[str, np.ndarray]:
    """Return the name and the pixels, RGB uint8 (H, W, 3), of an image.

    Args:
        image: A path; a Pillow image; an array (H, W), (H, W, 3) or (H, W, 4); a tensor (3, H, W) or (1, H, W). Arrays
            and tensors are uint8, or floating with values in 0..1.
        name: What to call an image that is not a file.

    Raises:
        InputError: The file cannot be read.
        UsageError: It is none of these.
    """
    if isinstance(image, str | Path):
        path = Path(image)
        return safe_name(path), read_image(ImageInput(safe_name(path), path))
    if isinstance(image, Image.Image):
        return name, to_rgb(image)
    if is_tensor(image):
        if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
            raise UsageError(f"A tensor image has the shape (3, H, W), not {tuple(image.shape)}.")
        planes = image.detach().cpu()
        image = (planes.float() if planes.is_floating_point() else planes).permute(1, 2, 0).numpy()
    if not isinstance(image, np.ndarray):
        raise UsageError(f"An image is a path, a Pillow image, an array or a tensor, not a {type(image).__name__}.")
    image = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or 0 in image.shape:
        raise UsageError(f"An array image has the shape (H, W, 3), not {image.shape}.")
    if image.dtype.kind == "f":
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise UsageError("A floating image has values in 0..1.", "Convert it to uint8 if it has 0..255.")
        image = np.rint(image * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise UsageError(f"An array image is uint8 or floating, not {image.dtype}.")
    return name, to_rgb(Image.fromarray(np.ascontiguousarray(image)))


def is_tensor(value: object) -> bool:
    """Return whether a value is a torch tensor, without importing torch: who has a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
