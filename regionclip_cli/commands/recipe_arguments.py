"""Arguments and options shared by the commands that run recipe stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from regionclip_cli.commands import completion
from regionclip_cli.console import Console
from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.loader import load_recipe
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.log import LoggedProgress

RECIPE_HELP = "Recipe file, or a name listed by `regionclip recipes ls`."
_RECIPE = typer.Argument(metavar="RECIPE", help=RECIPE_HELP, autocompletion=completion.recipes)
RecipeArgument = Annotated[str, _RECIPE]
OptionalRecipeArgument = Annotated[str | None, _RECIPE]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Overrides, e.g. pretrain.steps=100 (see `regionclip recipes explain`).",
        autocompletion=completion.overrides,
    ),
]
ResumeFlag = Annotated[bool, typer.Option("--resume", metavar="", help="Continue an interrupted run.")]
DryRunFlag = Annotated[
    bool,
    typer.Option("--dry-run", metavar="", help="Check all inputs and show what the run would do, without running it."),
]
JsonFlag = Annotated[bool, typer.Option("--json", metavar="", help="Print the result to stdout as JSON.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="auto, cpu, cuda, cuda:1 or mps (default: set in the recipe).",
        autocompletion=completion.devices,
    ),
]


def open_recipe(
    recipe: str, overrides: Sequence[str] | None = None, *, device: str | None = None, section: str | None = None
) -> Recipe:
    """Load a recipe with its command-line overrides.

    Args:
        recipe: File or name.
        overrides: Items of the form `key.sub=value`.
        device: Value of `--device`, None if absent.
        section: Section that the recipe must contain.

    Raises:
        UsageError: The recipe is invalid, or lacks the section.
    """
    opened = load_recipe(recipe, [*(overrides or ()), *([f"device={device}"] if device else ())])
    if section is not None and getattr(opened, section) in (None, ()):
        raise UsageError(
            f"The recipe {recipe} has no section `{section}`.",
            f"Add `{section}: {{}}` to use the defaults; `regionclip recipes explain {section}` lists its settings.",
        )
    return opened


def run_progress(console: Console, *, heavy: bool = True) -> Any:
    """Return a `Progress` that writes to the terminal and to the run log.

    Args:
        console: Where to print.
        heavy: Announce that libraries and models are being loaded; call this before importing the stage.
    """
    progress = LoggedProgress(console.progress())
    if heavy and os.environ.get("RANK", "0") == "0":  # one line for all processes of torchrun
        progress.start("Loading libraries and models", None, "")
    return progress
