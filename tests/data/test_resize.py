from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regionclip_cli.data.resize import resize, target_size


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((500, 500), 800, 1333, (800, 800)),
        ((375, 1242), 800, 1333, (402, 1333)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((480, 640), 0, 1333, (480, 640)),
        ((1, 5000), 800, 1333, (1, 1333)),
    ],
)
def test_sizes_round_as_detectron2(size: tuple[int, int], short: int, long: int, expected: tuple[int, int]) -> None:
    assert target_size(*size, short, long) == expected


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 1200), st.integers(1, 2000))
def test_neither_side_goes_over_its_limit(height: int, width: int, short: int, long: int) -> None:
    new_height, new_width = target_size(height, width, short, long)
    assert 1 <= min(new_height, new_width) <= short
    assert max(new_height, new_width) <= max(long, short if long >= short else long)


def test_resize_returns_planes_and_factors() -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, :20] = (10, 20, 30)
    planes, factors = resize(pixels, 60, 1000)
    assert planes.shape == (3, 60, 80)
    assert planes.dtype == torch.uint8
    assert factors == (2.0, 2.0)
    assert planes[:, 5, 5].tolist() == [10, 20, 30]
    assert planes[:, 5, 70].tolist() == [0, 0, 0]
    same, factors = resize(pixels, 0, 1000)
    assert (same.permute(1, 2, 0).numpy() == pixels).all()
    assert factors == (1.0, 1.0)
