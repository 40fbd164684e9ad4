"""The output formats of `detect`, one file each. This table is all that is imported until one of them is used.

A format is one function, `render(records, folder, labels, **options)`, called once when detection has finished:

* `records`: a `results.records.Records`, to be iterated any number of times; each item is an `ImageRecord` (a dict
  with `image`, `width`, `height` and `detections`), and `records.pixels(record)` reads its image again;
* `folder`: the output folder, a `Path` that exists;
* `labels`: the class names; a detection's `label` is one of them;
* `options`: those of the format's spec, as changed by `--format-option NAME.KEY=VALUE`.

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
            "images",
            "images/: the images with boxes and labels drawn on them.",
            f"{_HERE}.images:render",
            outputs=("images",),
        ),
        WriterSpec(
            "html",
            "review.html: one page with filters by class and score.",
            f"{_HERE}.html:render",
            outputs=("review.html",),
            options={"max_images": 500, "side": 640},
        ),
        WriterSpec(
            "coco",
            "coco.json (a data set with scores) and coco_results.json (COCO result list).",
            f"{_HERE}.coco:render",
            outputs=("coco.json", "coco_results.json"),
            options={"annotations": None},
            check=f"{_HERE}.coco:check",
        ),
        WriterSpec(
            "yolo",
            "yolo/: a training set with data.yaml, images and labels.",
            f"{_HERE}.yolo:render",
            outputs=("yolo",),
            options={"scores": False, "images": "copy"},
            check=f"{_HERE}.yolo:check",
        ),
        WriterSpec(
            "voc",
            "voc/: a Pascal VOC data set with Annotations, JPEGImages and ImageSets.",
            f"{_HERE}.voc:render",
            outputs=("voc",),
            options={"scores": False, "images": "copy"},
            check=f"{_HERE}.voc:check",
        ),
        WriterSpec(
            "cvat",
            "cvat.xml: CVAT for images 1.1.",
            f"{_HERE}.cvat:render",
            outputs=("cvat.xml",),
            options={"scores": False},
        ),
        WriterSpec(
            "label-studio",
            "label-studio.json (tasks with predictions) and label-studio.xml (labelling configuration).",
            f"{_HERE}.label_studio:render",
            outputs=("label-studio.json", "label-studio.xml"),
            options={"prefix": "/data/local-files/?d="},
        ),
        WriterSpec("csv", "detections.csv: one row per detection.", f"{_HERE}.csv:render", outputs=("detections.csv",)),
        WriterSpec(
            "parquet",
            "detections.parquet: one row per detection; needs pyarrow.",
            f"{_HERE}.parquet:render",
            outputs=("detections.parquet",),
            requires=("pyarrow",),
            extra="parquet",
        ),
    )
}
