"""COCO's caption files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from caption_files import captions_of, contents, pairs_of, write_images

from regionclip_cli.errors import MissingError, UsageError

IMAGES = [{"id": 30, "file_name": "c.jpg"}, {"id": 10, "file_name": "a.jpg"}, {"id": 20, "file_name": "b.jpg"}]
ANNOTATIONS = [
    {"id": 1, "image_id": 10, "caption": "first of a"},
    {"id": 2, "image_id": 30, "caption": "one\nof c"},
    {"id": 3, "image_id": 10, "caption": " second of a "},
    {"id": 4, "image_id": 30, "caption": "  "},
]


def write(folder: Path, images: Any = IMAGES, annotations: Any = ANNOTATIONS) -> Path:
    path = folder / "captions.json"
    path.write_text(json.dumps({"annotations": annotations, "info": {}, "images": images}))
    write_images(folder, ["a.jpg", "b.jpg", "c.jpg"])
    return path


def test_images_with_captions_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = contents(pairs_of("coco-captions", write(tmp_path), images=tmp_path))
    assert list(found.items()) == [("c.jpg", ("one of c",)), ("a.jpg", ("first of a", "second of a"))]
    assert len(pairs_of("coco-captions", tmp_path / "captions.json", images=tmp_path, limit=1)) == 1


def test_captions_alone(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert captions_of("coco-captions", path) == ["first of a", "one of c", "second of a"]


def test_a_limit_gives_captions_of_the_images_that_are_learned_from(tmp_path: Path) -> None:
    path = write(tmp_path)
    for limit, captions in ((1, ["one of c"]), (2, ["first of a", "one of c", "second of a"])):
        assert captions_of("coco-captions", path, limit=limit) == captions
        pairs = pairs_of("coco-captions", path, images=tmp_path, limit=limit)
        assert sorted(caption for pair in pairs for caption in pair.captions) == sorted(captions)
    path.rename(tmp_path / "0.json")
    (tmp_path / "1.json").write_bytes((tmp_path / "0.json").read_bytes())
    assert captions_of("coco-captions", tmp_path / "*.json", limit=1) == ["one of c"]
    assert len(captions_of("coco-captions", tmp_path / "*.json", limit=3)) == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": []}, "has no `images`"),
        ({"annotations": []}, "has no captions"),
        ({"images": [{"id": 1}]}, r"images\[0\] needs a whole number `id` and a `file_name`"),
        ({"images": [*IMAGES, IMAGES[1]]}, "two images have the id 10"),
        ({"annotations": [{"image_id": 99, "caption": "x"}]}, "'x' is of an image 99 that is not there"),
        ({"annotations": [{"image_id": 10, "bbox": [0, 0, 1, 1]}]}, r"annotations\[0\] needs .* It has boxes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = write(tmp_path, **change)
    with pytest.raises(UsageError, match=sentence):
        pairs_of("coco-captions", path, images=tmp_path)


def test_a_file_cut_short_and_images_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(UsageError, match=r"folder of the images .* is not named"):
        pairs_of("coco-captions", path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"are not in .*c\.jpg is the first"):
        pairs_of("coco-captions", path, images=tmp_path / "empty")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"captions\.json is (cut off|not JSON)"):
        captions_of("coco-captions", path)
