"""The output formats of `detect`, one file each. This table is all that is imported until one of them is used.

A format is one function, `render(records, folder, labels)`, called once when detection has finished:

* `records`: a `results.records.Records`, to be iterated any number of times; each item is an `ImageRecord` (a dict
  with `image`, `width`, `height` and `detections`), and `records.pixels(record)` reads its image again;
* `folder`: the output folder, a `Path` that exists;
* `labels`: the class names; a detection's `label` is one of them.

It writes each file under its final name only when the file is complete (`files.replacing`), holds one image in memory
at a time, and may be called again on the same folder when a run is resumed.
"""

from __future__ import annotations

from regionclip_cli.specs import WriterSpec

_HERE = "regionclip_cli.results.writers"

WRITERS: dict[str, WriterSpec] = {
    spec.name: spec
    for spec in (
        WriterSpec("jsonl", "detections.jsonl: one JSON object per image; always written.", f"{_HERE}.jsonl:render"),
        WriterSpec(
            "coco",
            "coco.json (images, categories, annotations with scores) and coco_results.json (COCO result list).",
            f"{_HERE}.coco:render",
            outputs=("coco.json", "coco_results.json"),
        ),
        WriterSpec(
            "images",
            "images/: the images with boxes and labels drawn on them.",
            f"{_HERE}.images:render",
            outputs=("images",),
        ),
        WriterSpec(
            "yolo",
            "labels/: one text file per image, a line `class cx cy w h score` per detection in 0..1, and classes.txt.",
            f"{_HERE}.yolo:render",
            outputs=("labels", "classes.txt", "labels.jsonl"),
        ),
        WriterSpec("csv", "detections.csv: one row per detection.", f"{_HERE}.csv:render", outputs=("detections.csv",)),
    )
}
