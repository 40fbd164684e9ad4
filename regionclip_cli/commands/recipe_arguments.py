"""What every command that runs a stage of a recipe takes, and how it opens the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from regionclip_cli.console import Console
from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.loader import load_recipe
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.log import LoggedProgress

RECIPE_HELP = "A recipe file, or the name of one that `regionclip recipes ls` lists."
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)]
OptionalRecipeArgument = Annotated[str | None, typer.Argument(metavar="[RECIPE]", help=RECIPE_HELP)]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Settings said anew, such as pretrain.steps=100; `recipes explain` tells them."
    ),
]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on where an earlier run was cut off.")]
DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be read, written and computed, and do nothing.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps; left out, what the recipe says.")
]


def open_recipe(
    recipe: str, overrides: Sequence[str] | None = None, *, device: str | None = None, section: str | None = None
) -> Recipe:
    """Return the recipe that a command line asks for.

    Args:
        recipe: A file or a name.
        overrides: `key.sub=value` each.
        device: What `--device` says, if anything.
        section: The stage that is to be run; the recipe must have it.

    Raises:
        UsageError: The recipe cannot be used, or has no such section.
    """
    opened = load_recipe(recipe, [*(overrides or ()), *([f"device={device}"] if device else ())])
    if section is not None and getattr(opened, section) in (None, ()):
        raise UsageError(
            f"{recipe} has no section `{section}`.",
            f"Add `{section}: {{}}` for its defaults; `regionclip recipes explain {section}` tells its settings.",
        )
    return opened


def run_progress(console: Console) -> Any:
    """Return a `Progress` that shows on the terminal and is kept in the run's log."""
    return LoggedProgress(console.progress())
