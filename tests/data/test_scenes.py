"""Drawn scenes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from regionclip_cli.data.scenes import COLOURS, FORMS, GROUNDS, MAX_SIZE, MIN_SIZE, SCENE_CLASSES, SHAPES, draw_scene
from regionclip_cli.errors import UsageError


def test_scenes_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for index in range(50):
        scene = draw_scene(index)
        digest.update(scene.pixels.tobytes() + scene.boxes.tobytes() + "|".join(scene.captions).encode())
    assert digest.hexdigest()[:16] == "c35253334c024b5f"


def test_a_scene_depends_on_number_seed_and_size_alone() -> None:
    assert (draw_scene(3, 1, 64).pixels == draw_scene(3, 1, 64).pixels).all()
    assert (draw_scene(3, 1, 64).pixels != draw_scene(3, 2, 64).pixels).any()
    assert (draw_scene(3, 1, 64).pixels != draw_scene(4, 1, 64).pixels).any()


@pytest.mark.parametrize("size", [MIN_SIZE, 97, 256])
def test_boxes_are_tight_and_apart(size: int) -> None:
    for index in range(40):
        scene = draw_scene(index, 7, size)
        assert scene.pixels.shape == (size, size, 3)
        assert scene.pixels.dtype == np.uint8
        assert 1 <= len(scene.boxes) == len(scene.labels) <= 4
        covered = np.zeros((size, size), int)
        for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int), scene.labels, strict=True):
            covered[y1:y2, x1:x2] += 1
            inside = of_colour(scene.pixels[y1:y2, x1:x2], SCENE_CLASSES[label].split()[0])
            for border in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert border.any()
        assert covered.max() == 1


def of_colour(pixels: np.ndarray, colour: str) -> np.ndarray:
    """Return where pixels (H, W, 3) have a colour at 85 to 100 % of its brightness."""
    shades = [[value * bright // 100 for value in COLOURS[colour]] for bright in range(85, 101)]
    return np.any([(pixels == shade).all(-1) for shade in shades], axis=0)


def test_the_last_caption_names_every_shape_and_the_ground() -> None:
    for index in range(60):
        scene = draw_scene(index)
        last = scene.captions[-1]
        assert all(SCENE_CLASSES[label] in last for label in scene.labels)
        assert any(last.endswith(ground) for ground in GROUNDS)
        assert all(caption == caption.strip() and caption for caption in scene.captions)


def test_every_class_and_ground_turns_up() -> None:
    scenes = [draw_scene(index) for index in range(400)]
    assert {int(label) for scene in scenes for label in scene.labels} == set(range(len(SCENE_CLASSES)))
    assert {ground for ground in GROUNDS for scene in scenes if scene.captions[-1].endswith(ground)} == set(GROUNDS)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_mirrored_and_fill_their_square(shape: str) -> None:
    for side in (8, 21, 50):
        mask = FORMS[shape](side)
        assert mask.shape == (side, side)
        assert mask.any(0).mean() >= 0.75
        assert (mask != mask[:, ::-1]).mean() < 0.05
        assert 0.25 < mask.mean() <= 1


@pytest.mark.parametrize("size", [MIN_SIZE - 1, MAX_SIZE + 1])
def test_sizes_that_cannot_be_drawn(size: int) -> None:
    with pytest.raises(UsageError, match="32 to 2048"):
        draw_scene(0, size=size)
