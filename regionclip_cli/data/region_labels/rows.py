"""One row of a shard: the labelled regions of one image, or why it has none."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from regionclip_cli.errors import UsageError


class RegionLabel(NamedTuple):
    """The regions of one image that a teacher has named (RegionCLIP section 3.2); R may be 0.

    Attributes:
        size: Width and height of the upright image in pixels.
        boxes: (R, 4) float32 xyxy in pixels of that image, the likeliest object first where a network proposed them.
        objectness: (R,) float32 in 0..1, or None where nobody judged the boxes.
        concepts: (R, k) int64, rows of the concept bank, the best one first; column 0 is the pseudo label.
        probs: (R, k) float32, their probabilities among all C concepts; a row sums to 1 only when k is C.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    objectness: np.ndarray | None
    concepts: np.ndarray
    probs: np.ndarray


class Row(NamedTuple):
    """A row as it stands in a shard.

    Attributes:
        key: Of the image.
        label: Its regions, or None for an image that could not be read.
        error: Why it could not be read, else an empty text.
    """

    key: str
    label: RegionLabel | None
    error: str = ""


def format_row(row: Row) -> bytes:
    """Return a row as one line of JSON: boxes with 2 decimals, probabilities and objectness with 4."""
    if row.label is None:
        record: dict[str, Any] = {"key": row.key, "error": row.error}
    else:
        label = row.label
        record = {
            "key": row.key,
            "size": [int(side) for side in label.size],
            "boxes": _rounded(label.boxes, 2),
            "objectness": None if label.objectness is None else _rounded(label.objectness, 4),
            "concepts": label.concepts.tolist(),
            "probs": _rounded(label.probs, 4),
        }
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def parse_row(line: bytes, where: str, kept: int) -> Row:
    """Read a line back.

    Args:
        line: Of a shard.
        where: File and row, for messages.
        kept: Concepts k that are kept of a region.

    Raises:
        UsageError: It is no row.
    """
    try:
        record = json.loads(line)
        if "error" in record:
            return Row(str(record["key"]), None, str(record["error"]))
        width, height = record["size"]
        boxes = np.array(record["boxes"], np.float32).reshape(-1, 4)
        count = len(boxes)
        objectness = None if record["objectness"] is None else np.array(record["objectness"], np.float32)
        concepts = np.array(record["concepts"], np.int64).reshape(count, kept)
        probs = np.array(record["probs"], np.float32).reshape(count, kept)
        if objectness is not None and objectness.shape != (count,):
            raise ValueError("objectness and boxes differ in number")
        return Row(record["key"], RegionLabel((int(width), int(height)), boxes, objectness, concepts, probs))
    except (ValueError, KeyError, TypeError) as err:
        raise UsageError(f"{where} is no row of region labels: {err}.", REPAIR) from err


REPAIR = "`regionclip pseudolabel RECIPE --resume` writes what is missing or damaged again, and keeps the rest."


def _rounded(values: np.ndarray, decimals: int) -> list[Any]:
    """Return nested lists of floats with so many decimals."""
    return np.round(values.astype(np.float64), decimals).tolist()
