"""Tiles and mirror images."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import batched_nms
from toys import write_toy_model

from regionclip_cli import Detector
from regionclip_cli.errors import UsageError
from regionclip_cli.inference.engines.selection import greedy_nms
from regionclip_cli.inference.views import View, windows


@pytest.mark.parametrize(("width", "height"), [(1000, 400), (401, 1601), (640, 641), (1283, 720)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_windows_cover_image_and_overlap(width: int, height: int, overlap: float) -> None:
    seen = np.zeros((height, width), bool)
    tiles = windows(width, height, 400, overlap)
    for x1, y1, x2, y2 in tiles:
        seen[y1:y2, x1:x2] = True
        assert (x2 - x1, y2 - y1) == (min(400, width), min(400, height))
    assert seen.all()
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in tiles})
        assert all(later - earlier <= 400 * (1 - overlap) + 1 for earlier, later in itertools.pairwise(starts))


def test_image_that_fits_has_no_windows() -> None:
    assert windows(400, 300, 400, 0.2) == []


@pytest.mark.parametrize("mirrored", [False, True])
def test_view_maps_boxes_back(mirrored: bool) -> None:
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[20:30, 45:65] = 255
    view = View((30, 10, 90, 50), mirrored)
    rows, columns = np.nonzero(view.cut(pixels)[..., 0])
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    assert view.boxes_in_image(box).tolist() == [[45, 20, 65, 30]]


def test_cut_boxes_are_those_at_inner_borders() -> None:
    view = View((0, 0, 50, 100))
    boxes = np.array([[0, 0, 20, 20], [10, 10, 49, 30], [10, 70, 30, 100]], np.float32)
    assert view.is_cut(boxes, 100, 100).tolist() == [False, True, False]


def test_suppression_equals_torchvision() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 80, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (300, 2))], axis=1).astype(np.float32)
    scores, groups = rng.permutation(300).astype(np.float32), rng.integers(0, 3, 300)
    expected = batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(groups), 0.5)
    order = np.argsort(-scores)
    kept = order[greedy_nms(boxes[order], groups[order], 0.5, 1000)]
    assert kept.tolist() == expected.tolist()
    assert order[greedy_nms(boxes[order], groups[order], 0.5, 7)].tolist() == expected.tolist()[:7]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = write_toy_model(tmp_path_factory.mktemp("model") / "toy.safetensors", conf=0.01)
    return Detector(path, device="cpu").set_classes(["cat", "dog"])


def scene(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    small = rng.integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST))


def test_tiles_add_small_objects_inside_the_image(detector: Detector) -> None:
    image = scene(320, 192)
    whole = detector.detect(image, max_dets=1000)
    tiled = detector.detect(image, tiles=96, max_dets=1000)
    assert len(tiled) > len(whole)
    assert (np.diff(tiled.scores) <= 0).all()
    assert tiled.boxes.min() >= 0
    assert tiled.boxes[:, [0, 2]].max() <= 320
    assert tiled.boxes[:, [1, 3]].max() <= 192
    assert len(detector.detect(image, tiles=96, max_dets=5)) == 5


def test_tiles_larger_than_image_change_nothing(detector: Detector) -> None:
    image = scene(160, 96)
    assert detector.detect(image, tiles=640).to_json() == detector.detect(image).to_json()


def test_flipped_detections_mirror_those_of_the_mirrored_image(detector: Detector) -> None:
    image = scene(128, 96)
    one, other = detector.detect(image, flip=True), detector.detect(np.ascontiguousarray(image[:, ::-1]), flip=True)
    assert sorted(map(len, (one, other))) == [len(one)] * 2
    assert np.allclose(np.sort(one.scores), np.sort(other.scores), atol=1e-5)


def test_batch_of_mixed_sizes_equals_single_images(detector: Detector) -> None:
    images = [scene(320, 192), scene(96, 64), scene(200, 300)]
    together = detector.detect(images, tiles=128)
    alone = [detector.detect(image, tiles=128) for image in images]
    assert [{**found.to_json(), "image": ""} for found in together] == [
        {**found.to_json(), "image": ""} for found in alone
    ]


@pytest.mark.parametrize(
    "options", [{"tiles": 4}, {"tiles": 96, "overlap": 1.0}, {"tiles": 64, "boxes": [[0, 0, 9, 9]]}]
)
def test_wrong_settings(detector: Detector, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        detector.detect(scene(128, 96), **options)


def test_command_line(toy_model: Path, photos: Path) -> None:
    from regionclip_cli.recipe.detection import DetectSettings
    from regionclip_cli.stages.detect import run

    found = run(DetectSettings(inputs=("photos",), classes="cat", model=str(toy_model), tiles=48, formats=(), out="o"))
    assert found.tally.detections
    with pytest.raises(UsageError):  # other tiles would mix two kinds of results
        run(DetectSettings(inputs=("photos",), classes="cat", model=str(toy_model), tiles=64, resume=True, out="o"))
