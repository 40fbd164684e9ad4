"""The output formats of `detect`, one a file. This table is all that is imported until one of them is used."""

from __future__ import annotations

from regionclip_cli.specs import WriterSpec

_HERE = "regionclip_cli.results.writers"

WRITERS: dict[str, WriterSpec] = {
    spec.name: spec
    for spec in (
        WriterSpec("jsonl", "detections.jsonl: one JSON object an image, line by line.", f"{_HERE}.jsonl:JsonlWriter"),
        WriterSpec(
            "coco",
            "coco.json (images, categories, annotations with scores) and coco_results.json (COCO result list).",
            f"{_HERE}.coco:CocoWriter",
        ),
        WriterSpec(
            "images", "images/: the pictures with boxes and labels drawn.", f"{_HERE}.images:ImagesWriter", True
        ),
        WriterSpec(
            "yolo",
            "labels/: one text file an image, `class cx cy w h score` a line in 0..1, and classes.txt.",
            f"{_HERE}.yolo:YoloWriter",
        ),
        WriterSpec("csv", "detections.csv: one row a detection.", f"{_HERE}.csv:TableWriter"),
    )
}
