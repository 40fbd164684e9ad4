"""`regionclip pseudolabel`."""

from __future__ import annotations

from typing import Annotated

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

SHARE_HELP = (
    "This process's share of the shards, such as 2/8 for the second of eight; under torchrun it knows by itself."
)
FORMAT_HELP = "Other forms of the finished labels: html, a page of sample regions; coco, a COCO file and that page."


def pseudolabel(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: ResumeFlag = False,
    dry_run: DryRunFlag = False,
    shard_of: Annotated[str | None, typer.Option("--shard-of", metavar="I/N", help=SHARE_HELP)] = None,
    formats: Annotated[str, typer.Option("--format", "-f", metavar="NAMES", help=FORMAT_HELP)] = "",
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Let a teacher name the regions of every image.

    Reads the images of data.captions, proposes regions, and keeps for each the
    best concepts of the bank with their probabilities, in shards in the run's
    folder. A run that was cut off goes on with --resume; several processes
    share a job with --shard-of or torchrun. An image that cannot be read is
    listed and costs only itself (exit code 3). Labels that are finished can be
    written in other forms without asking the teacher again.

    Examples:
      regionclip pseudolabel tiny
      regionclip pseudolabel tiny --dry-run
      regionclip pseudolabel tiny --resume
      regionclip pseudolabel tiny pseudolabel.teacher_view=crop
      regionclip pseudolabel tiny --shard-of 2/8
      regionclip pseudolabel tiny --format coco,html
    """
    console = ctx.ensure_object(Console)
    chosen = open_recipe(recipe, overrides, device=device, section="pseudolabel")
    from regionclip_cli.stages.pseudolabel import run

    result = run(
        chosen,
        run_progress(console),
        resume=resume,
        dry_run=dry_run,
        shard_of=shard_of,
        formats=tuple(word for word in (part.strip() for part in formats.split(",")) if word),
    )
    if as_json:
        console.json(result.to_json())
    console.note(result.summary())
    return ExitCode.SOME_FAILED if result.failed else ExitCode.OK
