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
    """Pretrain a model on region-text and image-text pairs.

    The student learns to match regions to concepts from a CLIP teacher, either
    online or from pseudo-labels (pretrain.teacher_mode=labels), and images to
    their captions. Writes RUN/pretrain/model.safetensors, for use with
    `detect --model` and finetune. An interrupted run continued with --resume
    ends with identical weights. Under torchrun, each batch is split across
    processes.

    [bold]Examples:[/bold]
      regionclip pretrain tiny
      regionclip pretrain cc3m --dry-run
      regionclip pretrain cc3m pretrain.teacher_mode=labels pretrain.amp=bf16
      regionclip pretrain cc3m --resume
      torchrun --nproc-per-node 8 -m regionclip_cli pretrain cc3m
    """
    console = ctx.ensure_object(Console)
    chosen = open_recipe(recipe, overrides, device=device, section="pretrain")
    progress = run_progress(console)
    from regionclip_cli.stages.pretrain import run

    result = run(chosen, progress, resume=resume, dry_run=dry_run)
    if not result.plan:  # only rank 0 prints
        return ExitCode.OK
    if as_json:
        console.json(result.to_json())
    console.note(result.summary())
    return ExitCode.OK
