"""`regionclip pretrain`."""

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


def pretrain(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: ResumeFlag = False,
    dry_run: DryRunFlag = False,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Train a model on named regions and captions.

    A student learns to match regions to concepts as a teacher does, which
    runs along or has labelled them before (pretrain.teacher=labels), and
    images to their captions. Writes RUN/pretrain/model.safetensors, for
    `detect --model` and `finetune`. A run that was cut off goes on with
    --resume, to the same weights. Under torchrun the processes share every
    batch.

    Examples:
      regionclip pretrain tiny
      regionclip pretrain cc3m --dry-run
      regionclip pretrain cc3m pretrain.teacher=labels pretrain.amp=bf16
      regionclip pretrain cc3m --resume
      torchrun --nproc-per-node 8 -m regionclip_cli pretrain cc3m
    """
    console = ctx.ensure_object(Console)
    chosen = open_recipe(recipe, overrides, device=device, section="pretrain")
    from regionclip_cli.stages.pretrain import run

    result = run(chosen, run_progress(console), resume=resume, dry_run=dry_run)
    if not result.plan:  # one of several processes, and not the one that speaks
        return ExitCode.OK
    if as_json:
        console.json(result.to_json())
    console.note(result.summary())
    return ExitCode.OK
