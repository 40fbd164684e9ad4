"""`regionclip train-proposals`."""

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


def train_proposals(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: ResumeFlag = False,
    dry_run: DryRunFlag = False,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Train a class-agnostic region proposal network.

    Trains on the boxes of data.train as configured in the section `proposals`;
    proposals.split excludes novel classes. Writes
    RUN/proposals/model.safetensors, for use with `detect --proposals` and
    as model.proposals in a recipe. A proposal head on a model's own features
    (proposals.network=fpn-trunk) is saved together with that model.

    [bold]Examples:[/bold]
      regionclip train-proposals train-rpn --dry-run
      regionclip train-proposals train-rpn proposals.init=resnet50.pth
      regionclip train-proposals train-rpn proposals.network=rpn-c4
      regionclip train-proposals finetune-tiny proposals.network=rpn-trunk \\
        proposals.steps=200 proposals.short_sides=[160] out=runs/boxes
      regionclip train-proposals train-rpn --resume
    """
    console = ctx.ensure_object(Console)
    chosen = open_recipe(recipe, overrides, device=device, section="proposals")
    progress = run_progress(console)
    from regionclip_cli.stages.train_proposals import run

    result = run(chosen, progress, resume=resume, dry_run=dry_run)
    if not result.plan:  # only rank 0 prints
        return ExitCode.OK
    if as_json:
        console.json(result.to_json())
    console.note(result.summary())
    return ExitCode.OK
