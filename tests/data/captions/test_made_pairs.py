"""Drawn scenes and the datasets of plugins as images with captions."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_files import captions_of, pairs_of
from PIL import Image

from regionclip_cli import plugins
from regionclip_cli.data.captions.synthetic import encode_png
from regionclip_cli.data.pixels import decode
from regionclip_cli.data.scenes import draw_scene
from regionclip_cli.errors import InputError, PluginError, UsageError
from regionclip_cli.specs import DatasetSpec

RECORDS: list[Any] = []
"""What the toy plugin's dataset holds."""


def as_list(start: int = 0) -> list[Any]:
    return RECORDS[start:]


def one_by_one(start: int = 0) -> Iterator[Any]:
    yield from RECORDS[start:]


@pytest.fixture(params=["as_list", "one_by_one"])
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Offer a dataset `toy` of three records, once as a list and once as an iterator."""
    entry = plugins.Entry("datasets", "toy", "regionclip-toy", "1.0", "toy:SPEC")
    spec = DatasetSpec("toy", "Toy.", f"{__name__}:{request.param}", options={"start": 0})
    monkeypatch.setattr(plugins, "entries", lambda kind: [entry] if kind == "datasets" else [])
    monkeypatch.setattr(plugins, "load", lambda wanted: spec)
    monkeypatch.setattr("pkgutil.resolve_name", lambda name: globals()[name.partition(":")[2]])
    (tmp_path / "file.jpg").write_bytes(b"contents of a file")
    RECORDS[:] = [
        {"image": b"encoded", "captions": ["a cat", "one cat"], "key": "own key"},
        {"image": tmp_path / "file.jpg", "caption": "a dog", "boxes": [], "labels": []},
        {"image": Image.new("RGB", (4, 3), "red"), "captions": ("red",)},
    ]
    return str(request.param)


def test_scenes_come_as_png() -> None:
    pairs = pairs_of("scenes", options={"count": 5, "size": 48, "seed": 3})
    assert len(pairs) == 5
    scene = draw_scene(2, 3, 48)
    assert (decode(pairs[2].read(), "scene") == scene.pixels).all()
    assert pairs[2].captions == scene.captions
    assert captions_of("scenes", options={"count": 5, "size": 48, "seed": 3})[6:9] == list(scene.captions)
    assert len(pairs_of("scenes", limit=4)) == 4
    assert len(captions_of("scenes", limit=4)) == 12


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cuont": 3}, r"take no option 'cuont'\. Did you mean 'count'"),
        ({"count": 0}, "count of scenes is a whole number, not 0"),
        ({"size": 2.5}, "size of scenes is a whole number, not 2.5"),
        ({"size": 8}, "32 to 2048 pixels, not 8"),
    ],
)
def test_options_of_scenes(options: dict[str, Any], sentence: str) -> None:
    for read in (pairs_of, captions_of):
        with pytest.raises(UsageError, match=sentence):
            read("scenes", options=options)


def test_a_picture_survives_png() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(pixels)))) == pixels).all()


def test_a_dataset_of_a_plugin(toy: str) -> None:
    pairs = pairs_of("toy")
    assert [(pair.key, pair.captions) for pair in pairs] == [
        ("own key", ("a cat", "one cat")),
        ("toy-000001", ("a dog",)),
        ("toy-000002", ("red",)),
    ]
    assert [pair.read() for pair in pairs][:2] == [b"encoded", b"contents of a file"]
    assert (decode(pairs[2].read(), "red") == (255, 0, 0)).all()
    assert captions_of("toy") == ["a cat", "one cat", "a dog", "red"]
    again = pickle.loads(pickle.dumps(pairs))  # noqa: S301 - our own
    assert [pair.read() for pair in again] == [pair.read() for pair in pairs]
    assert pairs_of("toy", options={"start": 2})[0].captions == ("red",)
    assert len(pairs_of("toy", limit=2)) == 2


def test_what_a_plugin_breaks_is_its_own(toy: str) -> None:
    for record, sentence in (
        ({"image": b"x", "boxes": []}, "Record 3 of the dataset 'toy' has no captions"),
        ({"image": b"x", "captions": []}, "Record 3 of the dataset 'toy' has no captions"),
        ({"captions": ["x"]}, "Record 3 of the dataset 'toy' has no 'image'"),
        ("words", "Record 3 of the dataset 'toy' (is no mapping|has no 'image')"),
    ):
        RECORDS[3:] = [record]
        with pytest.raises(PluginError, match=sentence):
            pairs_of("toy")[3]
    RECORDS[:] = []
    for read in (pairs_of, captions_of):
        with pytest.raises(UsageError, match="'toy' has no record"):
            read("toy")
        with pytest.raises(UsageError, match=r"takes no option 'strat'\. Did you mean 'start'"):
            read("toy", options={"strat": 1})


def test_an_image_that_is_none(toy: str) -> None:
    RECORDS[1]["image"] = 7
    with pytest.raises(InputError, match="toy-000001 is a int, not bytes, a path or a Pillow image"):
        pairs_of("toy")[1].read()
