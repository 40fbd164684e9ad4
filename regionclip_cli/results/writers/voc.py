"""Pascal VOC: a folder with one XML file per image, the images, and a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from regionclip_cli.errors import OutputError
from regionclip_cli.files import is_name_too_long, replacing
from regionclip_cli.results.detections import ImageRecord
from regionclip_cli.results.drawing import PALETTE
from regionclip_cli.results.records import Records
from regionclip_cli.results.writers.image_files import check_way, place_image
from regionclip_cli.results.writers.xml_text import XmlFile

FOLDER = "voc"


def check(labels: Sequence[str], scores: bool, images: str) -> None:
    """Check the options.

    Raises:
        UsageError: `images` is not one of `image_files.WAYS`.
    """
    check_way(images)


def render(records: Records, folder: Path, labels: Sequence[str], scores: bool = False, images: str = "copy") -> None:
    """Write `voc/Annotations/`, `voc/JPEGImages/`, `voc/ImageSets/Main/default.txt` and `voc/labelmap.txt`.

    CVAT and Datumaro take the class names from `labelmap.txt`. Boxes are whole pixels counted from 1, both corners
    inside the box. An image in a sub-folder has its annotation in a sub-folder of the same name. Of two images that
    differ only in their suffix, the second keeps its suffix.

    Args:
        records: The detections.
        folder: The output folder.
        labels: The class names.
        scores: Add each score as `<score>`.
        images: How to place the images, see `image_files.place_image`.

    Raises:
        OutputError: A file cannot be written.
    """
    root, taken = folder / FOLDER, set[str]()
    with replacing(root / "labelmap.txt") as file:
        rows = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
        for number, label in enumerate(labels):
            colour = PALETTE[number % len(PALETTE)]
            channels = ",".join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))
            rows.append(f"{' '.join(label.replace(':', ' ').split())}:{channels}::")
        file.write("".join(f"{row}\n" for row in rows).encode())
    with replacing(root / "ImageSets" / "Main" / "default.txt") as listing:
        for record in records:
            name = PurePosixPath(record["image"])
            if not name.suffix:
                name = name.with_name(f"{name.name}.png")
            if str(name.with_suffix("")) in taken:
                name = name.with_name(f"{name.name}{name.suffix}")
            stem = str(name.with_suffix(""))
            taken.add(stem)
            try:
                with replacing(root / "Annotations" / f"{stem}.xml") as file:
                    _write(XmlFile(file), record, name, scores)
            except OutputError as err:
                if not is_name_too_long(err):
                    raise
                records.skip(record, err.message)
                continue
            if place_image(records, record, root / "JPEGImages" / name, images):
                listing.write(stem.encode("utf-8", "surrogateescape") + b"\n")


def _write(xml: XmlFile, record: ImageRecord, name: PurePosixPath, scores: bool) -> None:
    width, height = record["width"], record["height"]
    with xml.element("annotation"):
        xml.text("folder", (PurePosixPath("JPEGImages") / name.parent).as_posix())
        xml.text("filename", name.name)
        with xml.element("source"):
            xml.text("database", "regionclip detections")
        with xml.element("size"):
            for key, value in (("width", width), ("height", height), ("depth", 3)):
                xml.text(key, value)
        xml.text("segmented", 0)
        for one in record["detections"]:
            x1, y1, x2, y2 = one["box"]
            left, top = min(round(x1) + 1, width), min(round(y1) + 1, height)
            corners = (left, top, max(round(x2), left), max(round(y2), top))
            with xml.element("object"):
                xml.text("name", one["label"])
                xml.text("pose", "Unspecified")
                xml.text("truncated", 0)
                xml.text("difficult", 0)
                with xml.element("bndbox"):
                    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
                        xml.text(key, value)
                if scores:
                    xml.text("score", one["score"])
    xml.close()
