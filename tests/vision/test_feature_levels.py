"""Maps of several strides packed into one, and taken apart again."""

from __future__ import annotations

import pytest
import torch

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.feature_levels import Level, as_levels, pack_levels, packed_channels, unpack_levels

LEVELS = (Level(8, 2), Level(16, 3), Level(32, 5))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (40, 72), (33, 90)])
def test_unpacking_undoes_packing(height: int, width: int) -> None:
    maps = [torch.randn(2, c, -(-height // stride), -(-width // stride)) for stride, c in LEVELS]
    packed = pack_levels(maps, LEVELS, 16)
    assert packed.shape == (2, packed_channels(LEVELS, 16), -(-height // 16), -(-width // 16))
    for before, after in zip(maps, unpack_levels(packed, LEVELS, 16), strict=True):
        rows, columns = before.shape[-2:]
        assert torch.equal(after[:, :, :rows, :columns], before)
        assert not after[:, :, rows:].any()
        assert not after[:, :, :, columns:].any()


def test_a_single_level_is_the_map_itself() -> None:
    features = torch.randn(1, 4, 5, 6)
    assert unpack_levels(features, as_levels([(16, 4)], 16), 16)[0] is not None
    assert torch.equal(unpack_levels(features, as_levels([(16, 4)], 16), 16)[0], features)


def test_a_map_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="16 channels"):
        unpack_levels(torch.zeros(1, 15, 4, 4), LEVELS, 16)


@pytest.mark.parametrize("given", [[(8, 2), (32, 2)], [(8, 2)], [(16, 2), (8, 2)]])
def test_levels_that_do_not_fit_are_refused(given: list[tuple[int, int]]) -> None:
    with pytest.raises(UsageError):
        as_levels(given, 16)
