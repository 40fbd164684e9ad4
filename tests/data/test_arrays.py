from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regionclip_cli.data.arrays import as_pixels
from regionclip_cli.errors import InputError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def test_every_form_gives_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.png"
    Image.fromarray(PIXELS).save(path)
    planes = torch.from_numpy(PIXELS).permute(2, 0, 1)
    forms = [path, str(path), Image.open(path), PIXELS, PIXELS / 255, PIXELS[:, ::-1][:, ::-1], planes, planes / 255]
    for form in forms:
        name, pixels = as_pixels(form, "image-1")
        assert name == ("x.png" if isinstance(form, str | Path) else "image-1")
        assert pixels.dtype == np.uint8
        assert (pixels == PIXELS).all()


def test_grey_and_transparent_arrays() -> None:
    grey = PIXELS[:, :, 0]
    for form in (grey, grey[:, :, None], torch.from_numpy(grey)[None]):
        assert (as_pixels(form, "x")[1] == grey[:, :, None]).all()
    clear = np.concatenate([PIXELS, np.zeros((6, 9, 1), np.uint8)], -1)
    assert (as_pixels(clear, "x")[1] == 255).all()


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (3, "not a int"),
        (np.zeros((2, 2, 2), np.uint8), r"not \(2, 2, 2\)"),
        (np.zeros((0, 2, 3), np.uint8), r"not \(0, 2, 3\)"),
        (np.zeros((2, 2, 3), np.int64), "not int64"),
        (np.full((2, 2, 3), 200.0), r"values in 0\.\.1"),
        (torch.zeros(2, 2), r"not \(2, 2\)"),
        (torch.zeros(5, 2, 2), r"not \(5, 2, 2\)"),
    ],
)
def test_other_things_are_refused(image: object, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        as_pixels(image, "x")


def test_a_missing_file_is_an_input_error() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        as_pixels("none.jpg", "x")
