"""`regionclip recipes`: list, show, validate, explain, copy and run recipes."""

from __future__ import annotations

from pathlib import Path
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
from regionclip_cli.errors import ExitCode, RegionClipError

app = typer.Typer(
    help="List, show, validate, explain, copy and run recipes.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command("ls")
def list_recipes(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per recipe.")] = False,
) -> None:
    """List the included recipes.

    Show one with `regionclip recipes show NAME`.

    [bold]Examples:[/bold]
      regionclip recipes ls
      regionclip recipes ls --json
    """
    from regionclip_cli.recipe.library import packaged, summary

    console = ctx.ensure_object(Console)
    found = [(name, summary(file), file) for name, file in packaged().items()]
    if as_json:
        for name, what, file in found:
            console.json({"name": name, "what": what, "path": str(file)})
        return
    console.table(("name", "description"), [(name, what) for name, what, _ in found])


@app.command()
def show(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", metavar="", help="Print every setting with its final value.")
    ] = False,
) -> None:
    """Print a recipe, as written or fully resolved.

    With overrides or --resolved, prints every setting with its final value.

    [bold]Examples:[/bold]
      regionclip recipes show tiny
      regionclip recipes show tiny --resolved
      regionclip recipes show tiny pretrain.steps=100 > mine.yaml
    """
    from regionclip_cli.recipe.loader import find_recipe, read_text
    from regionclip_cli.recipe.resolved import dump

    console = ctx.ensure_object(Console)
    text = dump(open_recipe(recipe, overrides)) if overrides or resolved else read_text(find_recipe(recipe))
    console.line(text.rstrip("\n"))


@app.command()
def check(
    ctx: typer.Context,
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE", help="Recipe files or names.", autocompletion=completion.recipes)
    ],
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per recipe.")] = False,
) -> ExitCode:
    """Validate recipes and report all problems with file and line.

    Checks keys, values, and the names of models and dataset formats. Does not
    check whether models and data are available.

    [bold]Examples:[/bold]
      regionclip recipes check mine.yaml
      regionclip recipes check recipes/*.yaml --json
    """
    from regionclip_cli.recipe.errors import RecipeError, spell
    from regionclip_cli.recipe.loader import check_recipe
    from regionclip_cli.recipe.resolved import present

    console = ctx.ensure_object(Console)
    code = ExitCode.OK
    for name in recipes:
        lines: list[str] = []
        problems: list[dict[str, str | int | None]] = []
        stages: tuple[str, ...] = ()
        try:
            stages = present(check_recipe(name))
        except RecipeError as err:
            lines = [str(problem) for problem in err.problems]
            problems = [
                {"file": p.place.source, "line": p.place.line, "key": spell(p.key), "what": p.what}
                for p in err.problems
            ]
        except RegionClipError as err:
            lines = [f"{name}: {err}"]
            problems = [{"file": name, "line": None, "key": "", "what": str(err)}]
        code = ExitCode.USAGE if lines else code
        if as_json:
            console.json({"recipe": name, "ok": not lines, "stages": stages, "problems": problems})
            continue
        for line in lines or [f"{name}: ok, {', '.join(stages) or 'no stages'}"]:
            console.line(line)
    return code


@app.command()
def explain(
    ctx: typer.Context,
    section: Annotated[
        str,
        typer.Argument(
            metavar="SECTION",
            help="Section or setting, e.g. pretrain, data.captions or pretrain.lr.",
            autocompletion=completion.settings,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per setting.")] = False,
) -> None:
    """Describe recipe settings: type, default and purpose.

    Describes one setting, one section or, without an argument, all of them.

    [bold]Examples:[/bold]
      regionclip recipes explain
      regionclip recipes explain pretrain
      regionclip recipes explain pretrain.lr --json
    """
    from regionclip_cli.recipe.reference import rows

    console = ctx.ensure_object(Console)
    found = rows(section)
    if as_json:
        for row in found:
            console.json(vars(row))
        return
    console.table(
        ("setting", "values", "default", "purpose"),
        [(row.key, row.kind, row.default, row.sentence) for row in found],
    )


@app.command()
def copy(
    ctx: typer.Context,
    recipe: RecipeArgument,
    to: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Target file (default: NAME.yaml in this folder).")
    ] = None,
) -> None:
    """Copy a recipe to a file of your own.

    Files that the recipe depends on are copied along.

    [bold]Examples:[/bold]
      regionclip recipes copy tiny
      regionclip recipes copy cc3m mine/cc3m-small.yaml
    """
    from regionclip_cli.recipe.library import copy as write

    console = ctx.ensure_object(Console)
    for path in write(recipe, to):
        console.line(str(path))


@app.command()
def run(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: ResumeFlag = False,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Run every stage again, even if nothing changed.")
    ] = False,
    dry_run: DryRunFlag = False,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Run the stages of a recipe in order.

    Skips stages whose settings, input files and preceding stages have not
    changed. Replaced results are moved to earlier/ in the run folder.

    [bold]Examples:[/bold]
      regionclip recipes run tiny
      regionclip recipes run tiny pretrain.steps=100 out=runs/longer
      regionclip recipes run cc3m --dry-run
      regionclip recipes run cc3m --resume
    """
    console = ctx.ensure_object(Console)
    opened = open_recipe(recipe, overrides, device=device)
    progress = run_progress(console)
    from regionclip_cli.stages.pipeline import run as run_stages

    result = run_stages(opened, progress, resume=resume, dry_run=dry_run, force=force)
    if as_json:
        console.json(result.to_json())
    else:
        rows = [
            (each.stage, each.state, each.why, each.reads, ", ".join(map(str, each.writes))) for each in result.stages
        ]
        console.table(("stage", "state", "reason", "inputs", "results"), rows, to="stdout" if dry_run else "stderr")
    if not dry_run:
        console.note(f"Results are in {result.out}.")
    return ExitCode.SOME_FAILED if result.failed else ExitCode.OK
