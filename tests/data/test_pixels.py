from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from regionclip_cli.data.images import ImageInput
from regionclip_cli.data.pixels import decode, read_image
from regionclip_cli.errors import InputError

GRADIENT = np.stack([*np.meshgrid(np.arange(40) * 6, np.arange(30) * 8), np.full((30, 40), 90)], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    pixels = decode(encoded(image, kind, **options), "x")
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    return pixels


def test_rgb_comes_back_as_it_was() -> None:
    assert (read(Image.fromarray(GRADIENT)) == GRADIENT).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_respected(kind: str, orientation: int) -> None:
    stored = Image.new("RGB", (40, 20), "red")
    stored.paste("blue", (0, 0, 10, 10))  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(stored, kind, exif=exif)
    assert pixels.shape[:2] == ((20, 40) if orientation < 5 else (40, 20))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    row, column = corner[orientation]
    assert pixels[row, column, 2] > 200
    assert pixels[-1 - row, -1 - column, 0] > 200


def test_sixteen_bit_grey_is_scaled_by_its_range() -> None:
    for kind in ("PNG", "TIFF"):
        pixels = read(Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)), kind)
        assert pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),
        (np.array([[0, 500, 1000]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, np.nan, 1000.0]], np.float32), [0, 0, 255]),
        (np.array([[np.nan, np.inf, -np.inf]], np.float32), [0, 0, 0]),
    ],
)
def test_wide_tiff_is_kept_or_stretched(values: np.ndarray, expected: list[int]) -> None:
    assert read(Image.fromarray(values), "TIFF")[0, :, 1].tolist() == expected


def test_grey_bilevel_cmyk_and_lab() -> None:
    grey = Image.fromarray(GRADIENT).convert("L")
    assert (read(grey) == np.array(grey)[:, :, None]).all()
    assert set(np.unique(read(grey.convert("1")))) == {0, 255}
    cmyk = read(Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "TIFF")
    assert cmyk[4, 4, 0] > 200
    assert cmyk[4, 4, 1] < 60
    lab = read(Image.new("LAB", (9, 9), (255, 128, 128)), "TIFF")
    assert lab.min() > 240


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new(mode, (8, 8), 0)
    assert (read(image) == 255).all()
    image.putalpha(255)
    assert (read(image) == 0).all()


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((3, 3), 1)
    pixels = read(image, "PNG", transparency=0)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [200, 10, 10]


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    assert read(frames[0], "GIF", save_all=True, append_images=frames[1:])[0, 0].tolist() == [255, 0, 0]


def test_bad_files_get_one_sentence(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(GRADIENT), "JPEG")
    cases = {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"not a picture", "is not an image"),
        "cut.jpg": (whole[: len(whole) // 2], "is damaged"),
        "head.png": (b"\x89PNG\r\n\x1a\n", "is"),
    }
    for name, (data, sentence) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_image(ImageInput(name, tmp_path / name))
        assert caught.value.message.startswith(name)
        assert sentence in caught.value.message
        assert "\n" not in caught.value.message
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read: No such file"):
        read_image(ImageInput("gone.jpg", tmp_path / "gone.jpg"))
    with pytest.raises(InputError, match="is a folder"):
        read_image(ImageInput("folder", tmp_path))


def test_the_pixel_limit_is_asked_before_decoding() -> None:
    image = encoded(Image.fromarray(GRADIENT), "PNG")
    assert decode(image, "x", max_pixels=1200).shape == (30, 40, 3)
    with pytest.raises(InputError, match=r"x has 40 x 30 pixels, more than the limit of 1,199\. Raise --max-pixels"):
        decode(image[:60], "x", max_pixels=1199)


def test_our_limit_stands_in_for_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encoded(Image.fromarray(GRADIENT), "PNG"), "x").shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


SEEDS = [encoded(Image.fromarray(GRADIENT), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_of_any_kind_is_an_input_error(data: st.DataObject) -> None:
    broken = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(1, len(broken)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(InputError):
            assert decode(cut, "x", max_pixels=1_000_000).ndim == 3
