"""Toy annotation files in COCO's form, with the pictures they speak of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from toys import COLOURS, draw_shapes

from regionclip_cli.recipe.schema import DetectionData


def write_shapes(
    folder: Path, images: int = 6, seed: int = 0, masks: bool = False, classes: tuple[str, ...] = tuple(COLOURS)
) -> DetectionData:
    """Write pictures of coloured rectangles with a COCO file, and return the settings that open them.

    Args:
        folder: Where they go.
        images: How many.
        seed: Of the pictures.
        masks: Whether objects have polygons: their left halves.
        classes: Names in the file; rectangles of other colours are not annotated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 * number, "name": name} for number, name in enumerate(classes, 1)],
    }
    for index in range(images):
        pixels, boxes, names = draw_shapes(seed * 1000 + index)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        height, width = pixels.shape[:2]
        content["images"].append({"id": index + 1, "file_name": f"{index}.png", "width": width, "height": height})
        for box, name in zip(boxes.tolist(), names, strict=True):
            if name in classes:
                content["annotations"].append(_annotation(len(content["annotations"]) + 1, index + 1, box, masks))
                content["annotations"][-1]["category_id"] = 10 * (classes.index(name) + 1)
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return DetectionData(dataset="coco", annotations=str(path), images=str(folder))


def _annotation(number: int, image: int, box: list[float], masks: bool) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    middle = (x1 + x2) / 2
    made: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
    }
    if masks:
        made["segmentation"] = [[x1, y1, middle, y1, middle, y2, x1, y2]]
    return made
