"""CVAT for images 1.1: one XML file to upload to a CVAT task or project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regionclip_cli.files import replacing
from regionclip_cli.results.drawing import PALETTE
from regionclip_cli.results.records import Records
from regionclip_cli.results.writers.xml_text import XmlFile

FILE = "cvat.xml"


def render(records: Records, folder: Path, labels: Sequence[str], scores: bool = False) -> None:
    """Write `cvat.xml`. CVAT matches images by the `name` of each, which is the image's relative path.

    Args:
        records: The detections.
        folder: The output folder.
        labels: The class names.
        scores: Add each score as an attribute `score`, which the labels of the CVAT task must have too.

    Raises:
        OutputError: The file cannot be written.
    """
    with replacing(folder / FILE) as file:
        xml = XmlFile(file)
        with xml.element("annotations"):
            xml.text("version", "1.1")
            with xml.element("meta"), xml.element("task"):
                xml.text("name", "regionclip detections")
                xml.text("size", len(records))
                with xml.element("labels"):
                    for number, label in enumerate(labels):
                        with xml.element("label"):
                            xml.text("name", label)
                            xml.text("color", PALETTE[number % len(PALETTE)])
                            xml.text("type", "rectangle")
                            _declare(xml, scores)
            for number, record in enumerate(records):
                size = {"width": record["width"], "height": record["height"]}
                with xml.element("image", id=number, name=record["image"], **size):
                    for one in record["detections"]:
                        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), map("{:.2f}".format, one["box"]), strict=True))
                        kind = {"label": one["label"], "source": "auto", "occluded": 0}
                        with xml.element("box", **kind, **corners, z_order=0):
                            if scores:
                                xml.text("attribute", one["score"], name="score")
        xml.close()


def _declare(xml: XmlFile, scores: bool) -> None:
    """Write the attributes of a label."""
    with xml.element("attributes"):
        if scores:
            with xml.element("attribute"):
                for key, value in (("name", "score"), ("mutable", "False"), ("input_type", "text")):
                    xml.text(key, value)
                xml.text("default_value")
                xml.text("values")
