"""`regionclip detect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from regionclip_cli.commands import completion
from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.detection import DetectSettings


def _flag(field: str, *names: str, panel: str, **more: Any) -> Any:
    """Return the option for a settings field; its help is the field description."""
    return typer.Option(*names, help=fields.describe(DetectSettings, field), rich_help_panel=panel, **more)


def _default(field: str) -> Any:
    return fields.default(DetectSettings, field)


WHAT, SCORES, WORK, OUTPUT = "Classes and boxes", "Filtering", "Model and processing", "Output"


def detect(
    ctx: typer.Context,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help=fields.describe(DetectSettings, "inputs"))],
    classes: Annotated[
        str | None, _flag("classes", "--classes", "-c", panel=WHAT, autocompletion=completion.class_lists)
    ] = None,
    distractors: Annotated[str, _flag("distractors", "--not", panel=WHAT, autocompletion=completion.class_lists)] = "",
    concepts: Annotated[Path | None, _flag("concepts", "--concepts", panel=WHAT)] = None,
    boxes: Annotated[Path | None, _flag("boxes", "--boxes", panel=WHAT)] = None,
    conf: Annotated[float | None, _flag("conf", "--conf", panel=SCORES)] = _default("conf"),
    iou: Annotated[float, _flag("iou", "--iou", panel=SCORES)] = _default("iou"),
    nms: Annotated[Literal["class", "agnostic", "off"], _flag("nms", "--nms", panel=SCORES)] = _default("nms"),
    max_dets: Annotated[int, _flag("max_dets", "--max-dets", panel=SCORES)] = _default("max_dets"),
    scoring: Annotated[Literal["default", "official"], _flag("scoring", "--scoring", panel=SCORES)] = _default(
        "scoring"
    ),
    model: Annotated[
        str, _flag("model", "--model", "-m", panel=WORK, autocompletion=completion.installed_models)
    ] = _default("model"),
    proposals: Annotated[
        str | None, _flag("proposals", "--proposals", panel=WORK, autocompletion=completion.installed_models)
    ] = _default("proposals"),
    short_side: Annotated[int | None, _flag("short_side", "--short-side", panel=WORK)] = _default("short_side"),
    tiles: Annotated[int, _flag("tiles", "--tiles", panel=WORK)] = _default("tiles"),
    overlap: Annotated[float, _flag("overlap", "--overlap", panel=WORK)] = _default("overlap"),
    flip: Annotated[bool, _flag("flip", "--flip", metavar="", panel=WORK)] = _default("flip"),
    device: Annotated[str, _flag("device", "--device", panel=WORK, autocompletion=completion.devices)] = _default(
        "device"
    ),
    engine: Annotated[Literal["auto", "torch", "onnx"], _flag("engine", "--engine", panel=WORK)] = _default("engine"),
    dtype: Annotated[Literal["auto", "fp32", "bf16"], _flag("dtype", "--dtype", panel=WORK)] = _default("dtype"),
    batch: Annotated[int, _flag("batch", "--batch", panel=WORK)] = _default("batch"),
    recursive: Annotated[bool, _flag("recursive", "--recursive", "-r", metavar="", panel=WORK)] = _default("recursive"),
    max_pixels: Annotated[int, _flag("max_pixels", "--max-pixels", panel=WORK)] = _default("max_pixels"),
    strict: Annotated[bool, _flag("strict", "--strict", metavar="", panel=WORK)] = _default("strict"),
    out: Annotated[Path | None, _flag("out", "--out", "-o", panel=OUTPUT)] = None,
    formats: Annotated[
        str, _flag("formats", "--format", "-f", panel=OUTPUT, autocompletion=completion.formats)
    ] = ",".join(_default("formats")),
    format_options: Annotated[
        list[str] | None, _flag("format_options", "--format-option", metavar="NAME.KEY=VALUE", panel=OUTPUT)
    ] = None,
    json_lines: Annotated[bool, _flag("json_lines", "--json", metavar="", panel=OUTPUT)] = _default("json_lines"),
    resume: Annotated[bool, _flag("resume", "--resume", metavar="", panel=OUTPUT)] = _default("resume"),
) -> ExitCode:
    """Find objects by name in images.

    Requires --classes, or --concepts for saved text embeddings. Unreadable
    images are reported and skipped (exit code 3). Continue an interrupted
    run with --resume.

    [bold]Examples:[/bold]
      regionclip detect kitchen.jpg --classes "cat,kettle"
      regionclip detect photos -r --classes "referee=striped shirt|whistle"
      regionclip detect "photos/**/*.jpg" --classes @coco --format coco,csv
      regionclip detect kitchen.jpg --classes ball --not "orange,balloon"
      regionclip detect kitchen.jpg --classes names.txt --boxes boxes.json
      regionclip detect kitchen.jpg --concepts bank.safetensors --conf 0.3
      regionclip detect photos -r --classes "car,boat" --tiles 640
      regionclip detect photos --classes cat --out results --resume
      cat kitchen.jpg | regionclip detect - --classes cat --json
    """
    console = ctx.ensure_object(Console)
    settings = fields.checked(
        DetectSettings,
        **{name: value for name, value in ctx.params.items() if name not in ("formats", "format_options")},
        format_options=tuple(format_options or ()),
        formats=tuple(word for word in (part.strip() for part in formats.split(",")) if word),
    )
    progress = console.progress()
    progress.start(f"Loading {model}", None, "")
    from regionclip_cli.stages.detect import run

    result = run(settings, progress, (lambda found: console.json(found.to_json())) if json_lines else None)
    if not json_lines:
        console.table(*result.tally.table(), to="stderr")
    console.note(result.summary())
    if result.broken_formats:
        return ExitCode.PLUGIN
    return ExitCode.SOME_FAILED if result.failed else ExitCode.OK
