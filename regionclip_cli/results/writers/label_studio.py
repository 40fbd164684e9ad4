"""Label Studio: tasks with predictions to correct, and the labelling configuration of the project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regionclip_cli import __version__
from regionclip_cli.files import replacing
from regionclip_cli.results.detections import DetectionRecord, ImageRecord
from regionclip_cli.results.drawing import PALETTE
from regionclip_cli.results.records import Records
from regionclip_cli.results.writers.json_list import write_list
from regionclip_cli.results.writers.xml_text import XmlFile

TASKS, CONFIG = "label-studio.json", "label-studio.xml"
LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio addresses files below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""


def render(records: Records, folder: Path, labels: Sequence[str], prefix: str = LOCAL_FILES) -> None:
    """Write `label-studio.json`, to be imported as tasks, and `label-studio.xml`, the labelling configuration.

    Args:
        records: The detections.
        folder: The output folder.
        labels: The class names.
        prefix: What stands before the image's relative path in its address; the default serves local files, with the
            folder in which `detect` ran as document root.

    Raises:
        OutputError: A file cannot be written.
    """
    with replacing(folder / CONFIG) as file:
        xml = XmlFile(file, declaration=False)
        with xml.element("View"):
            xml.text("Image", name="image", value="$image", zoom="true")
            with xml.element("RectangleLabels", name="label", toName="image"):
                for number, label in enumerate(labels):
                    xml.text("Label", value=label, background=PALETTE[number % len(PALETTE)])
        xml.close()
    with replacing(folder / TASKS) as file:
        write_list(file, _tasks(records, prefix))
        file.write(b"\n")


def _tasks(records: Records, prefix: str) -> Iterator[dict[str, Any]]:
    for record in records:
        scores = [one["score"] for one in record["detections"]]
        prediction = {
            "model_version": f"regionclip {__version__}",
            "score": round(sum(scores) / len(scores), 6) if scores else 0.0,
            "result": [_region(record, number, one) for number, one in enumerate(record["detections"], 1)],
        }
        url = prefix + quote(record["image"], errors="surrogateescape")
        yield {"data": {"image": url, "name": record["image"]}, "predictions": [prediction]}


def _region(record: ImageRecord, number: int, one: DetectionRecord) -> dict[str, Any]:
    """Return one rectangle, in per cent of the image."""
    x1, y1, x2, y2 = one["box"]
    width, height = record["width"], record["height"]
    return {
        "id": f"box-{number}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": one["score"],
        "value": {
            "x": round(100 * x1 / width, 6),
            "y": round(100 * y1 / height, 6),
            "width": round(100 * (x2 - x1) / width, 6),
            "height": round(100 * (y2 - y1) / height, 6),
            "rotation": 0,
            "rectanglelabels": [one["label"]],
        },
    }
