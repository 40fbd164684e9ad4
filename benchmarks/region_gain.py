"""What region-text pretraining gains, on real photos and with no named box in it.

    python benchmarks/region_gain.py --data DIR --work FOLDER           # goes on where it was stopped
    python benchmarks/region_gain.py --data DIR --work FOLDER --steps 200 --variants all

`DIR` holds `flickr8k-1000/`, `imagenet-sample/`, `caltech101-sample/` (photos with `captions.jsonl` or `labels.jsonl`)
and `coco-mini/` (COCO 2017 photos, captions of the training ones, boxes of both). Captions and photos go through the
three stages: concepts, pseudolabel (the teacher sees each region as a crop), pretrain. Then every ground-truth box of
the validation photos is named from the feature map: by the teacher itself (as CLIP in the paper's table), by the
student, and by students that learned from one loss alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIANTS = {
    "all": {"region_text": 1.0, "distill": 1.0, "image_text": 1.0},
    "region-text": {"region_text": 1.0, "distill": 0.0, "image_text": 0.0},
    "distillation": {"region_text": 0.0, "distill": 1.0, "image_text": 0.0},
    "image-text": {"region_text": 0.0, "distill": 0.0, "image_text": 1.0},
}

KEPT = ("top1", "top5", "mean_class_accuracy", "AP50")


def captions(data: Path, work: Path, photos: int) -> list[dict[str, Any]]:
    """Return the caption sources; label sets get "a photo of a <label>" in a file of the work folder."""
    sources: list[dict[str, Any]] = [
        {"dataset": "jsonl", "path": str(data / "flickr8k-1000/captions.jsonl"), "images": str(data / "flickr8k-1000")},
        {
            "dataset": "coco-captions",
            "path": str(data / "coco-mini/annotations/captions_train.json"),
            "images": str(data / "coco-mini/train"),
        },
    ]
    for name in ("imagenet-sample", "caltech101-sample"):
        file = work / f"{name}.jsonl"
        if not file.exists():  # labels belong to a file as it was made, with its time
            file.write_text("".join(labelled(data / name, photos)), encoding="utf-8")
        sources.append({"dataset": "jsonl", "path": str(file), "images": str(data / name)})
    return sources


def labelled(folder: Path, photos: int) -> Iterator[str]:
    """Yield a line with a caption for so many photos of a label set, spread over its classes."""
    lines = (folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines[:: max(1, len(lines) // photos)]:
        row = json.loads(line)
        label = row["label"].replace("_", " ").replace("BACKGROUND Google", "thing").lower()
        yield json.dumps({"image": row["image"], "captions": [f"a photo of a {label}."]}) + "\n"


def recipe(options: argparse.Namespace, variant: str, out: Path) -> Any:
    """Return the recipe of one variant; all share concepts and labels."""
    from regionclip_cli.recipe.fields import checked
    from regionclip_cli.recipe.schema import Recipe

    shared = options.work / "shared"
    validation = {
        "dataset": "coco",
        "annotations": str(options.data / "coco-mini/annotations/instances_val.json"),
        "images": str(options.data / "coco-mini/val"),
    }
    return checked(
        Recipe,
        name=variant,
        out=str(out),
        model={"start": options.model},
        data={"captions": captions(options.data, options.work, options.labelled_photos)},
        concepts={"min_count": options.min_count},
        pseudolabel={
            "teacher_view": options.view,
            "regions": options.regions,
            "source": options.source,
            "min_score": options.min_score,
            "temperature": options.teacher_temperature,
            "top_k": 20,
            "short_side": options.short_side,
            "max_side": 2 * options.short_side,
            "shard_size": 100,
            "dtype": "bf16",
            "concept_bank": str(shared / "concepts.safetensors"),
        },
        pretrain={
            "teacher_mode": "labels",
            "losses": VARIANTS.get(variant, VARIANTS["all"]),
            "steps": options.steps,
            "batch_size": options.batch,
            "lr": options.lr,
            "optimiser": "adamw",
            "weight_decay": 0.02,
            "schedule": "cosine",
            "warmup_steps": 10,
            "frozen_stages": options.freeze,
            "channels_last": True,
            "regions": options.student_regions,
            "temperature": options.temperature,
            "min_score": options.min_score,
            "short_side": options.short_side,
            "max_side": 2 * options.short_side,
            "workers": 0,
            "log_every": 10,
            "checkpoint_every": 50,
            "labels": str(shared / "labels"),
            "concept_bank": str(shared / "concepts.safetensors"),
        },
        evaluate=[{**validation, "boxes": "ground-truth", "name": "ground-truth", "split": "coco-48-17"}],
    )


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for concepts, labels, checkpoints, results")
    parser.add_argument("--model", default="regionclip-tiny", help="teacher, and start of the students [%(default)s]")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="which of %(default)s")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--student-regions", type=int, default=6, help="regions of an image in a step [%(default)s]")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--freeze", type=int, default=6, help="stages of the tower that stay as they are [%(default)s]")
    parser.add_argument("--short-side", type=int, default=320)
    parser.add_argument("--regions", type=int, default=8, help="regions of an image that the teacher names")
    parser.add_argument("--labelled-photos", type=int, default=500, help="of each label set [%(default)s]")
    parser.add_argument("--source", default="network", choices=["network", "random", "grid"])
    parser.add_argument("--view", default="crop", choices=["crop", "roi"], help="how the teacher sees a region")
    parser.add_argument("--temperature", type=float, default=0.05, help="of the losses [%(default)s]")
    parser.add_argument("--teacher-temperature", type=float, default=0.034)
    parser.add_argument("--min-score", type=float, default=0.1)
    parser.add_argument("--min-count", type=int, default=5, help="captions that must name a concept [%(default)s]")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--labels-only", action="store_true", help="stop when the teacher has named the regions")
    options = parser.parse_args()
    unknown = set(options.variants.split(",")) - set(VARIANTS)
    if unknown:
        parser.error(f"there is no variant {', '.join(sorted(unknown))}; choose from {', '.join(VARIANTS)}")
    return options


def prepare(options: argparse.Namespace) -> None:
    """Mine the concepts and let the teacher name regions, where that is not done yet."""
    from regionclip_cli.stages import concepts, pseudolabel

    shared = recipe(options, "shared", options.work / "shared")
    if not (options.work / "shared/concepts.safetensors").exists():
        print(concepts.run(shared).summary(), flush=True)
    found = pseudolabel.run(shared, resume=(options.work / "shared/labels").exists())
    print(found.summary(), flush=True)


def trained(options: argparse.Namespace, variant: str) -> tuple[Path, float]:
    """Train the student of one variant, unless it is there; return its model file and the minutes that took."""
    from regionclip_cli.stages import pretrain

    out = options.work / variant
    model = out / "pretrain" / "model.safetensors"
    start = time.time()
    if not model.exists():
        print(pretrain.run(recipe(options, variant, out), resume=(out / "pretrain").exists()).summary(), flush=True)
    return model, (time.time() - start) / 60


def measured(options: argparse.Namespace, name: str, model: str) -> dict[str, float]:
    """Return top-1 and AP50 of a model on ground-truth boxes."""
    from regionclip_cli.stages import evaluate

    chosen = recipe(options, name, options.work / f"{name}-measured")
    settings = chosen.evaluate[0].model_copy(update={"model": model})
    result = evaluate.run(chosen.model_copy(update={"evaluate": (settings,)}), resume=True)
    found = result.finished[0]
    kept = {key: round(float(found[key]), 1) for key in KEPT if found.get(key) is not None}
    novel = found.get("novel", {}).get("AP50")
    return kept | ({} if novel is None else {"novel AP50": round(float(novel), 1)})


def main() -> None:
    """Label, train and measure; print the table and write it to `results.json` in the work folder."""
    options = read_options()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    prepare(options)
    if options.labels_only:
        return
    rows = {"teacher": measured(options, "teacher", options.model)}
    for variant in options.variants.split(","):
        model, minutes = trained(options, variant)
        rows[variant] = measured(options, variant, str(model)) | ({"minutes": round(minutes, 1)} if minutes > 1 else {})
        print(variant, rows[variant], flush=True)
        (options.work / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    heads = list(dict.fromkeys(key for row in rows.values() for key in row))
    print(f"{'':<14}" + "".join(f"{head:>22}" for head in heads))
    for name, row in rows.items():
        print(f"{name:<14}" + "".join(f"{row.get(head, ''):>22}" for head in heads))


if __name__ == "__main__":
    main()
