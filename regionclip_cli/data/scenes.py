"""Drawn scenes: coloured shapes on plain and busy grounds, with boxes, labels and captions, from a number alone.

They stand in where a real photo would need a download: in tests, in recipes that run in a minute, and wherever truth
must be known to the pixel. Everything is drawn with whole numbers and no antialiasing, and chance comes from hashes and
from `random.Random(text).random()`, whose numbers Python promises to keep: a scene is the same on every machine.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from regionclip_cli.errors import UsageError

COLOURS = {
    "red": (208, 32, 32), "green": (24, 144, 48), "blue": (32, 64, 208), "yellow": (240, 208, 16),
    "purple": (136, 32, 168), "white": (248, 248, 248),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
SCENE_CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""Names of the labels, in their order."""
GROUNDS = ("in front of a wall", "in the sky", "on a striped carpet", "on a tiled floor", "on the sand", "on a table")
MIN_SIZE, MAX_SIZE = 32, 2048
_NUMBERS = ("no", "a", "two", "three", "four")
# Corners of a five-pointed star in a square of side 1000.
_STAR = ((500, 0), (618, 363), (1000, 363), (691, 588), (809, 951), (500, 727), (191, 951), (309, 588), (0, 363),
         (382, 363))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scene:
    """One drawn picture and all that is true of it.

    Attributes:
        pixels: (size, size, 3) uint8 RGB.
        boxes: (R, 4) float32 xyxy in pixels, tight around each shape; shapes do not overlap. 1 <= R <= 4.
        labels: (R,) int64 indices into `SCENE_CLASSES`.
        captions: Three sentences about it, the last of them names every shape.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    captions: tuple[str, ...]


class _Chance:
    """Whole numbers and choices that follow from a text."""

    def __init__(self, text: str) -> None:
        self._draw = random.Random(text).random

    def number(self, low: int, high: int) -> int:
        """Return a whole number, low <= number <= high."""
        return low + int(self._draw() * (high - low + 1))

    def one(self, items: Sequence[str]) -> str:
        return items[self.number(0, len(items) - 1)]


def draw_scene(index: int, seed: int = 0, size: int = 128) -> Scene:
    """Draw scene number `index` of the set that `seed` names.

    Args:
        index: Which one; each is drawn by itself, in any order.
        seed: Names the set.
        size: Width and height in pixels.

    Raises:
        UsageError: The size is too small or too large to draw.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UsageError(f"Scenes have a size of {MIN_SIZE} to {MAX_SIZE} pixels, not {size}.")
    chance = _Chance(f"scene {seed} {index} {size}")
    ground = chance.number(0, len(GROUNDS) - 1)
    pixels = _draw_ground(ground, size, chance)
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for _ in range(chance.number(1, 4)):
        label = chance.number(0, len(SCENE_CLASSES) - 1)
        corner = _free_place(boxes, size, chance)
        if corner is None:
            continue
        left, top, side = corner
        colour, shape = SCENE_CLASSES[label].split()
        mask = FORMS[shape](side)
        bright = chance.number(85, 100)
        pixels[top : top + side, left : left + side][mask] = [value * bright // 100 for value in COLOURS[colour]]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1))
        labels.append(label)
    captions = _describe(boxes, labels, GROUNDS[ground], chance)
    return Scene(pixels, np.array(boxes, np.float32), np.array(labels, np.int64), captions)


def _free_place(boxes: Sequence[tuple[int, ...]], size: int, chance: _Chance) -> tuple[int, int, int] | None:
    """Return left, top and side of a square that is free, with a gap around it; None when luck does not find one."""
    for _ in range(30):
        side = chance.number(size // 6, size * 2 // 5)
        left, top = chance.number(1, size - side - 1), chance.number(1, size - side - 1)
        if all(
            left > x2 + 1 or x1 > left + side + 1 or top > y2 + 1 or y1 > top + side + 1 for x1, y1, x2, y2 in boxes
        ):
            return left, top, side
    return None


def _draw_ground(kind: int, size: int, chance: _Chance) -> np.ndarray:
    """Return (size, size, 3) uint8: one of `GROUNDS`, in muted colours of its own."""
    base = np.array([chance.number(96, 168) for _ in range(3)])
    rows, columns = np.arange(size)[:, None], np.arange(size)[None]
    step = chance.number(max(size // 16, 2), size // 6)
    noise = hashlib.shake_256(str(chance.number(0, 1 << 30)).encode()).digest(size * size)
    grain = np.frombuffer(noise, np.uint8).reshape(size, size).astype(np.int64)
    shade: np.ndarray
    match GROUNDS[kind].split()[-1]:
        case "sky":
            base, shade = np.array([112, 152, 184]), 40 - rows * 64 // size + 0 * columns
        case "carpet":
            shade = (columns + rows // 2) // step % 2 * 40 - 20
        case "floor":
            shade = (rows // step + columns // step) % 2 * 48 - 24
        case "sand":
            base, shade = np.array([184, 160, 120]), grain % 48 - 24
        case "table":
            base, shade = np.array([120, 84, 52]), (rows * 5 + grain % 8) // step % 3 * 10
        case _:
            shade = grain % 8
    return np.clip(base + shade[:, :, None], 0, 255).astype(np.uint8)


def _describe(
    boxes: Sequence[tuple[int, ...]], labels: Sequence[int], ground: str, chance: _Chance
) -> tuple[str, str, str]:
    """Return three captions: of one shape, of how two stand to each other, of all."""
    names = [SCENE_CLASSES[label] for label in labels]
    everything = _listing([_count(name, number) for name, number in Counter(names).items()])
    first = chance.number(0, len(names) - 1)
    one = chance.one((f"a {names[first]} {ground}", f"there is a {names[first]} {ground}", f"a {names[first]}"))
    if len(names) == 1:
        two = f"the only thing {ground} is a {names[0]}"
    else:
        second = (first + 1) % len(names)
        relation = chance.one(("next to", _relation(boxes[first], boxes[second])))
        two = f"a {names[first]} {relation} a {names[second]}"
    return one, two, f"{everything} {ground}"


def _relation(box: Sequence[int], other: Sequence[int]) -> str:
    """Return how one box lies to another, by the larger distance of their middles."""
    right = box[0] + box[2] - other[0] - other[2]
    down = box[1] + box[3] - other[1] - other[3]
    if abs(right) > abs(down):
        return "to the right of" if right > 0 else "to the left of"
    return "below" if down > 0 else "above"


def _count(name: str, number: int) -> str:
    plural = {"cross": "es"}.get(name.split()[-1], "s") if number > 1 else ""
    return f"{_NUMBERS[number]} {name}{plural}"


def _listing(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _offsets(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how far columns (1, side) and rows (side, 1) lie from the middle, in half pixels."""
    away = 2 * np.arange(side) + 1 - side
    return away[None], away[:, None]


def _circle(side: int) -> np.ndarray:
    across, down = _offsets(side)
    return across**2 + down**2 <= side**2


def _square(side: int) -> np.ndarray:
    return np.ones((side, side), bool)


def _triangle(side: int) -> np.ndarray:
    across, _ = _offsets(side)
    return np.abs(across) <= np.arange(side)[:, None] + 1


def _cross(side: int) -> np.ndarray:
    across, down = _offsets(side)
    return (3 * np.abs(across) <= side) | (3 * np.abs(down) <= side)


def _heart(side: int) -> np.ndarray:
    """Two circles of half the width side by side, and a point below them."""
    across, down = _offsets(side)
    lobes = (2 * np.abs(across) - side) ** 2 + (2 * down + side) ** 2 <= side**2
    point = (2 * down >= -side) & (3 * np.abs(across) <= 2 * (side - down))
    return lobes | point


def _star(side: int) -> np.ndarray:
    """Five points: a pixel is inside when a ray from it crosses the outline an odd number of times."""
    middle = 1000 * (2 * np.arange(side) + 1)  # in units of 1 / (2 * side) of the star's square
    across, down = middle[None], middle[:, None]
    inside = np.zeros((side, side), bool)
    for (x1, y1), (x2, y2) in zip(_STAR, (*_STAR[1:], _STAR[0]), strict=True):
        x1, y1, x2, y2 = (2 * side * value for value in (x1, y1, x2, y2))
        crosses = (y1 > down) != (y2 > down)
        turn = (across - x1) * (y2 - y1) - (x2 - x1) * (down - y1)
        inside ^= crosses & ((turn < 0) == (y2 > y1))
    return inside


FORMS: dict[str, Callable[[int], np.ndarray]] = {
    "circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "heart": _heart, "cross": _cross,
}  # fmt: skip
