"""`regionclip pseudolabel`."""

from __future__ import annotations

from typing import Annotated

import typer

from regionclip_cli.commands import completion
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

SHARD_HELP = "Process part I of N of the shards, e.g. 2/8 (automatic under torchrun)."
FORMAT_HELP = "Export finished labels: html (page with sample regions), coco (COCO file and that page)."


def pseudolabel(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: ResumeFlag = False,
    dry_run: DryRunFlag = False,
    shard_of: Annotated[str | None, typer.Option("--shard-of", metavar="I/N", help=SHARD_HELP)] = None,
    formats: Annotated[
        str, typer.Option("--format", "-f", metavar="NAMES", help=FORMAT_HELP, autocompletion=completion.label_formats)
    ] = "",
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Generate region pseudo-labels with a CLIP teacher.

    Proposes regions in the images of data.captions and stores the best
    matching concepts of each with their probabilities, in shards in the run
    folder. Split the work between processes with --shard-of or torchrun, and
    continue an interrupted run with --resume. Unreadable images are reported
    and skipped (exit code 3). --format exports finished labels without
    running the teacher again.

    [bold]Examples:[/bold]
      regionclip pseudolabel tiny
      regionclip pseudolabel tiny --dry-run
      regionclip pseudolabel tiny --resume
      regionclip pseudolabel tiny pseudolabel.teacher_view=crop
      regionclip pseudolabel tiny --shard-of 2/8
      regionclip pseudolabel tiny --format coco,html
    """
    console = ctx.ensure_object(Console)
    chosen = open_recipe(recipe, overrides, device=device, section="pseudolabel")
    progress = run_progress(console)
    from regionclip_cli.stages.pseudolabel import run

    result = run(
        chosen,
        progress,
        resume=resume,
        dry_run=dry_run,
        shard_of=shard_of,
        formats=tuple(word for word in (part.strip() for part in formats.split(",")) if word),
    )
    if as_json:
        console.json(result.to_json())
    console.note(result.summary())
    return ExitCode.SOME_FAILED if result.failed else ExitCode.OK
