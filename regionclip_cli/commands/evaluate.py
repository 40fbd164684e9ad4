"""`regionclip evaluate`."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from regionclip_cli.commands import completion
from regionclip_cli.commands.recipe_arguments import (
    DeviceOption,
    DryRunFlag,
    JsonFlag,
    OptionalRecipeArgument,
    OverridesArgument,
    ResumeFlag,
    open_recipe,
    run_progress,
)
from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode, UsageError
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.schema import EvaluateSection, Recipe

SET, MODEL, WORK = "Dataset", "Model and protocol", "Processing"
DEFAULT_OUT = "regionclip-evaluation"
SHARE_HELP = "Process shard I of N images, e.g. 2/8 (automatic under torchrun); the last shard computes the metrics."
OUT_HELP = f"Folder for predictions and reports (default: {DEFAULT_OUT}; none with --json)."


def _flag(field: str, *names: str, panel: str, **more: Any) -> Any:
    """Return the option for a settings field; its help is the field description."""
    return typer.Option(*names, help=fields.describe(EvaluateSection, field), rich_help_panel=panel, **more)


def evaluate(
    ctx: typer.Context,
    recipe: OptionalRecipeArgument = None,
    overrides: OverridesArgument = None,
    dataset: Annotated[
        str | None, _flag("dataset", "--dataset", "-d", panel=SET, autocompletion=completion.datasets)
    ] = None,
    annotations: Annotated[str | None, _flag("annotations", "--annotations", "-a", panel=SET)] = None,
    images: Annotated[str | None, _flag("images", "--images", "-i", panel=SET)] = None,
    split: Annotated[str | None, _flag("split", "--split", panel=SET, autocompletion=completion.splits)] = None,
    vocabulary: Annotated[
        str | None, _flag("vocabulary", "--vocabulary", panel=SET, autocompletion=completion.class_lists)
    ] = None,
    limit: Annotated[int | None, _flag("limit", "--limit", panel=SET)] = None,
    lenient: Annotated[bool | None, _flag("lenient", "--lenient", metavar="", panel=SET)] = None,
    model: Annotated[
        str | None, _flag("model", "--model", "-m", panel=MODEL, autocompletion=completion.installed_models)
    ] = None,
    proposals: Annotated[
        str | None, _flag("proposals_from", "--proposals", panel=MODEL, autocompletion=completion.installed_models)
    ] = None,
    boxes: Annotated[str | None, _flag("boxes", "--boxes", panel=MODEL, autocompletion=completion.box_sources)] = None,
    scoring: Annotated[Literal["default", "official"] | None, _flag("scoring", "--scoring", panel=MODEL)] = None,
    crops: Annotated[bool | None, _flag("crops", "--crops", metavar="", panel=MODEL)] = None,
    predictions: Annotated[str | None, _flag("predictions", "--predictions", panel=MODEL)] = None,
    conf: Annotated[float | None, _flag("conf", "--conf", panel=MODEL)] = None,
    max_dets: Annotated[int | None, _flag("max_dets", "--max-dets", panel=MODEL)] = None,
    short_side: Annotated[int | None, _flag("short_side", "--short-side", panel=MODEL)] = None,
    batch: Annotated[int | None, _flag("batch", "--batch", panel=WORK)] = None,
    dtype: Annotated[Literal["auto", "fp32", "bf16"] | None, _flag("dtype", "--dtype", panel=WORK)] = None,
    device: DeviceOption = None,
    shard_of: Annotated[
        str | None, typer.Option("--shard-of", metavar="I/N", help=SHARE_HELP, rich_help_panel=WORK)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=OUT_HELP, rich_help_panel=WORK)] = None,
    resume: ResumeFlag = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Evaluate a model on an annotated dataset.

    Runs the evaluations in a recipe's `evaluate` section, or one defined by
    options. Prints average precision and, with ground-truth boxes, top-1
    accuracy (0 to 100); --split adds separate results for base and novel
    classes. Writes predictions, results.json and an HTML report. --json
    prints one object per evaluation.

    [bold]Examples:[/bold]
      regionclip evaluate zeroshot-coco
      regionclip evaluate -d coco -a instances.json -i val2017 --json
      regionclip evaluate -d coco -a instances.json -i val2017 \\
        --boxes ground-truth --split coco-48-17 --scoring official
      regionclip evaluate -d lvis -a lvis_v1_val.json -i . --split lvis-rare
      regionclip evaluate -d coco -a mine.json -i photos --vocabulary @lvis
      regionclip evaluate -d coco -a mine.json --predictions detections.jsonl
      regionclip evaluate zeroshot-coco --shard-of 2/8
    """
    console = ctx.ensure_object(Console)
    names = {"proposals": "proposals_from"}
    flags = {
        names.get(name, name): value
        for name, value in ctx.params.items()
        if names.get(name, name) in EvaluateSection.model_fields and value is not None
    }
    kept = recipe is not None or out is not None or not as_json or resume or shard_of is not None
    with ExitStack() as stack:
        if recipe is None:
            folder = out or Path(DEFAULT_OUT if kept else stack.enter_context(tempfile.TemporaryDirectory()))
            chosen = _own_recipe({"report": kept, **flags}, folder, device)
        else:
            if flags or out is not None:
                given = next(iter(flags), "out")
                raise UsageError(
                    f"--{given.replace('_', '-')} cannot be combined with a recipe.",
                    "Override the recipe with evaluate.0.KEY=VALUE or out=FOLDER, or omit the recipe.",
                )
            chosen = open_recipe(recipe, overrides, device=device, section="evaluate")
        progress = run_progress(console)
        from regionclip_cli.evaluation.tables import plan_table, result_table
        from regionclip_cli.stages.evaluate import run

        result = run(chosen, progress, resume=resume, dry_run=dry_run, shard_of=shard_of)
        if as_json:
            for each in result.measured:
                console.json({key: value for key, value in each.items() if kept or key != "results"})
        elif dry_run:
            console.table(*plan_table(result.measured))
        elif result.finished:
            console.table(*result_table(result.finished))
        console.note(result.summary())
    return ExitCode.SOME_FAILED if result.failed else ExitCode.OK


def _own_recipe(flags: dict[str, Any], out: Path, device: str | None) -> Recipe:
    """Build an in-memory recipe with the one evaluation that the options define."""
    if "dataset" not in flags and "annotations" not in flags:
        raise UsageError(
            "No dataset given.",
            "Give a recipe, or a dataset: --dataset coco --annotations FILE --images FOLDER.",
        )
    section = fields.checked(EvaluateSection, **flags)
    more = {"device": device} if device else {}
    return fields.checked(Recipe, name="evaluation", out=str(out), evaluate=(section,), **more)
