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
    """Train a detector on boxes of base classes.

    Reads data.train and data.val. The classifier is the frozen text encoder
    (or a learned layer, finetune.classifier=linear). After each evaluation
    base, novel and all classes stand side by side; the model that is best on
    novel ones becomes RUN/finetune/model.safetensors, for `detect --model`.
    Under torchrun the processes share every batch.

    Examples:
      regionclip finetune finetune-tiny
      regionclip finetune finetune-ov-coco --dry-run
      regionclip finetune finetune-ov-coco finetune.blend=0.3 out=runs/mixed
      regionclip finetune finetune-ov-coco --resume
      regionclip finetune mine.yaml finetune.classifier=linear --device cuda
    """
    console = ctx.ensure_object(Console)
    chosen = open_recipe(recipe, overrides, device=device, section="finetune")
    from regionclip_cli.stages.finetune import run

    result = run(chosen, run_progress(console), resume=resume, dry_run=dry_run)
    if not result.plan:  # one of several processes, and not the one that speaks
        return ExitCode.OK
    if as_json:
        console.json(result.to_json())
    elif result.evaluations:
        console.table(*result.table(), to="stderr")
    console.note(result.summary())
    return ExitCode.OK
