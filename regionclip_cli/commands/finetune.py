"""`regionclip finetune`."""

from __future__ import annotations

import typer

from regionclip_cli.commands.recipe_arguments import (
    DeviceOption,
    DryRunFlag,
    JsonFlag,
    OverridesArgument,
    RecipeArgument,
    ResumeFlag,
    open_recipe,
    run_progress,
)
from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode


def finetune(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: ResumeFlag = False,
    dry_run: DryRunFlag = False,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Fine-tune a detector on annotated boxes.

    Trains on data.train and validates on data.val. Classes are scored with
    the frozen text encoder, or with a linear layer trained from scratch
    (finetune.classifier=linear). Validation reports base, novel and all
    classes; the best model on novel classes is written to
    RUN/finetune/model.safetensors, for use with `detect --model`. Under
    torchrun, each batch is split across processes.

    [bold]Examples:[/bold]
      regionclip finetune finetune-tiny
      regionclip finetune finetune-ov-coco --dry-run
      regionclip finetune finetune-tiny finetune.ensemble_alpha=0.3 out=runs/mixed
      regionclip finetune finetune-ov-coco --resume
      regionclip finetune mine.yaml finetune.classifier=linear --device cuda
    """
    console = ctx.ensure_object(Console)
    chosen = open_recipe(recipe, overrides, device=device, section="finetune")
    progress = run_progress(console)
    from regionclip_cli.stages.finetune import run

    result = run(chosen, progress, resume=resume, dry_run=dry_run)
    if not result.plan:  # only rank 0 prints
        return ExitCode.OK
    if as_json:
        console.json(result.to_json())
    elif result.evaluations:
        console.table(*result.table(), to="stderr")
    console.note(result.summary())
    return ExitCode.OK
