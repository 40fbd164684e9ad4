"""Images with boxes and classes: annotation files of common formats, drawn scenes, and datasets of plugins.

`open_detection_set` opens one. Every entry is checked then, and invalid ones are reported one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from regionclip_cli.data.detection_sets.detection_set import DetectionImage, DetectionSet
from regionclip_cli.errors import UsageError
from regionclip_cli.files import user_path
from regionclip_cli.recipe.known_names import OTHER_FORMATS
from regionclip_cli.recipe.schema import DetectionData

__all__ = ["DetectionImage", "DetectionSet", "open_detection_set"]

STYLES: Mapping[str, Literal["coco", "lvis"]] = {"coco": "coco", "lvis": "lvis"}
"""Annotation formats that are also evaluation protocols."""


def open_detection_set(data: DetectionData, part: Literal["train", "val"] = "val") -> DetectionSet:
    """Open a set of images with boxes.

    Args:
        data: The settings.
        part: Part of a YOLO dataset, whose `data.yaml` describes both.

    Images keep the order of the file; `data.limit` takes the first so many whose file is there. A box may leave its
    image by less than a pixel, which is clipped; crowds are kept and marked. Without `data.images` the set has no
    pixels, which is enough to score predictions.

    Raises:
        MissingError: The annotation file, the folder or all images are missing.
        UsageError: The set is unknown; or, without `data.lenient`, an entry is wrong: a key is missing or of another
            type, an image, category or file is unknown, a box is empty or leaves the image, a number is NaN, an id
            or name comes twice. The sentence names the entry and says how many more there are.
        PluginError: The plugin that offers the set is broken.
    """
    if data.dataset in STYLES:
        from regionclip_cli.data.detection_sets.coco_files import open_coco

        if data.annotations is None:
            raise UsageError(f"The data set {data.dataset} needs an annotation file.", "Name it with --annotations.")
        folder = None if data.images is None else user_path(data.images)
        annotations = user_path(data.annotations)
        return open_coco(annotations, folder, STYLES[data.dataset], data.lenient, data.limit)
    if data.dataset in OTHER_FORMATS:
        from regionclip_cli.data.detection_sets.coco_files import open_other

        return open_other(data, part)
    from regionclip_cli.data.detection_sets.records import open_records

    return open_records(data)
