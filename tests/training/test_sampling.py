"""The order of images depends on the seed alone."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_toys import Noise

from regionclip_cli.errors import UsageError
from regionclip_cli.training.sampler import Batches, SampleIndex


def parts(first_step: int = 0, steps: int = 3, count: int = 10, **options: int) -> list[list[SampleIndex]]:
    plain = {"batch_size": 4, "accumulate": 1, "rank": 0, "world_size": 1, "seed": 5}
    batches = Batches(Noise(count), **plain | options)
    batches.first_step = first_step
    return list(islice(batches, steps * batches.accumulate))


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 30),
    world_size=st.sampled_from([1, 2, 3]),
    accumulate=st.sampled_from([1, 2]),
    first_step=st.integers(0, 20),
)
def test_processes_and_resumption_share_one_order(
    count: int, world_size: int, accumulate: int, first_step: int
) -> None:
    alone = parts(0, first_step + 3, count, batch_size=12, accumulate=accumulate)
    shares = [
        parts(first_step, 3, count, batch_size=12, accumulate=accumulate, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    together = [[place for share in shares for place in share[part]] for part in range(3 * accumulate)]
    assert together == alone[first_step * accumulate :]


def test_an_epoch_shows_every_image_once_and_each_epoch_another_order() -> None:
    row = [place for part in parts(steps=10, batch_size=5) for place in part]
    epochs = [[place.index for place in row[start : start + 10]] for start in range(0, 50, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert len({place.seed for place in row}) == 50
    assert row != [place for part in parts(steps=10, batch_size=5, seed=6) for place in part]


class Favourites(Noise):
    """A data set that decides itself what an epoch shows, in epochs of changing length."""

    def order(self, generator: np.random.Generator) -> np.ndarray:
        return generator.integers(3, size=int(generator.integers(1, 7)))


def test_a_data_set_may_order_its_epochs() -> None:
    batches = Batches(Favourites(10), 2, 1, 0, 1, 0)
    whole = list(islice(batches, 40))
    assert {place.index for part in whole for place in part} == {0, 1, 2}
    batches.first_step = 25
    assert list(islice(batches, 15)) == whole[25:]


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UsageError, match="for 2 processes"):
        Batches(Noise(), 5, 1, 0, 2, 0)
    with pytest.raises(UsageError, match="no image"):
        Batches(Noise(0), 4, 1, 0, 1, 0)
