"""From an image file of any common kind to RGB pixels, with Pillow alone.

What counts as a faithful picture is decided here, once:

* the orientation tag of cameras is respected;
* transparency is laid on white;
* 16-bit grey is scaled from 0..65535; 32-bit integer and float images, whose range no header tells, are kept where they
  fit 0..255 (0..1 for floats is scaled up), and otherwise stretched from their smallest to their largest value;
* an animation shows its first frame.
"""

from __future__ import annotations

import io
import struct
import sys
import threading
import zlib
from typing import TYPE_CHECKING

import numpy as np

from regionclip_cli.data.images import ImageInput
from regionclip_cli.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 178_956_970
"""Default pixel limit: the size at which Pillow itself takes an image for an attack on memory."""

_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, MemoryError, AttributeError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's decoders raise on damaged files, fuzzing included."""

_ORIENTATION = 0x0112
"""EXIF tag; values from 5 on swap width and height."""

_opening = threading.Lock()


def read_image(source: ImageInput, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the image as RGB uint8 (H, W, 3), upright.

    Raises:
        InputError: The file is missing, empty, damaged, not an image, or larger than `max_pixels` (which its header
            tells, before anything is decoded).
    """
    data = _bytes(source)
    if not data:
        raise InputError(f"{source.name} is empty.")
    return decode(data, source.name, max_pixels)


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return encoded image bytes as RGB uint8 (H, W, 3); see `read_image`. `name` is what errors call the image."""
    from PIL import UnidentifiedImageError

    try:
        image = _open(data)
    except UnidentifiedImageError as err:
        raise InputError(f"{name} is not an image that can be read.") from err
    except _DAMAGE as err:
        raise InputError(f"{name} is damaged: {_reason(err)}.") from err
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels:,}.",
            "Raise --max-pixels if you trust the file.",
        )
    try:
        image.load()
        return to_rgb(image)
    except _DAMAGE as err:
        raise InputError(f"{name} is damaged: {_reason(err)}.") from err


def to_rgb(image: Image) -> np.ndarray:
    """Return a Pillow image of any mode as RGB uint8 (H, W, 3), upright; see the head of this file."""
    from PIL import Image as pillow

    image = _upright(image)
    if image.mode.startswith("I;16"):
        return _grey(_scaled(np.asarray(image), top=65535))
    if image.mode in ("I", "F"):
        return _grey(_scaled(np.asarray(image)))
    if image.mode == "LAB":
        from PIL import ImageCms

        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        image = ImageCms.applyTransform(image, transform) or image
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _bytes(source: ImageInput) -> bytes:
    """Read the whole file, so that no decoder keeps it open."""
    if source.path is None:
        return sys.stdin.buffer.read()
    try:
        return source.path.read_bytes()
    except IsADirectoryError as err:
        raise InputError(f"{source.name} is a folder that cannot be listed.") from err
    except (OSError, MemoryError) as err:
        raise InputError(f"{source.name} cannot be read: {_reason(err)}.") from err


def _open(data: bytes) -> Image:
    """Read the header. Pillow's own limit would warn and raise before ours is asked, so it is lifted for a moment."""
    from PIL import Image as pillow

    with _opening:
        limit, pillow.MAX_IMAGE_PIXELS = pillow.MAX_IMAGE_PIXELS, None
        try:
            return pillow.open(io.BytesIO(data))
        finally:
            pillow.MAX_IMAGE_PIXELS = limit


def upright_size(image: Image) -> tuple[int, int]:
    """Return width and height of a Pillow image as it stands upright, from its header alone."""
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION, 1) >= 5 else (width, height)


def _upright(image: Image) -> Image:
    """Turn the image as its EXIF orientation says; an unreadable tag is no tag; Pillow turns TIFF itself."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _DAMAGE:
        return image
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    return image.transpose(turns[orientation]) if orientation in turns else image


def _scaled(values: np.ndarray, top: float | None = None) -> np.ndarray:
    """Return grey values of any range as uint8 (H, W)."""
    grey = values.astype(np.float64)
    finite = np.isfinite(grey)
    low, high = (float(grey[finite].min()), float(grey[finite].max())) if finite.any() else (0.0, 0.0)
    grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low)
    if top is not None:
        grey *= 255.0 / top
    elif low >= 0 and high <= 1 and values.dtype.kind == "f":
        grey *= 255.0
    elif low < 0 or high > 255:
        grey = (grey - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _grey(values: np.ndarray) -> np.ndarray:
    """Repeat grey (H, W) in three channels."""
    return np.repeat(values[:, :, None], 3, axis=2)


def _reason(err: BaseException) -> str:
    """Return what went wrong in one line without a full stop."""
    text = getattr(err, "strerror", None) or str(err) or type(err).__name__
    return " ".join(str(text).split()).rstrip(".")
