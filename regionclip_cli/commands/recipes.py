"""`regionclip recipes`: list, show, check, explain, copy and run recipes."""

from __future__ import annotations

from pathlib import Path
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
from regionclip_cli.errors import ExitCode, RegionClipError

app = typer.Typer(
    help="List, show, check, explain, copy and run recipes.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command("ls")
def list_recipes(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a recipe on stdout.")] = False,
) -> None:
    """List the recipes that come with the tool.

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
    console.table(("name", "what"), [(name, what) for name, what, _ in found])


@app.command()
def show(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every setting, as a run would use it.")] = False,
) -> None:
    """Print a recipe as it is written, or with every setting resolved.

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
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Recipe files, or names of recipes.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a recipe on stdout.")] = False,
) -> ExitCode:
    """Tell everything that is wrong with recipes, each with file and line.

    Names of models and of forms of data must be known. Whether models and
    data are on this machine is not looked at.

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
        str, typer.Argument(metavar="[SECTION]", help="Such as pretrain, data.captions or pretrain.lr.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a setting on stdout.")] = False,
) -> None:
    """Explain the settings of a section, or of all: type, default and purpose.

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
        ("setting", "what may be written", "default", "purpose"),
        [(row.key, row.kind, row.default, row.sentence) for row in found],
    )


@app.command()
def copy(
    ctx: typer.Context,
    recipe: RecipeArgument,
    to: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; left out, NAME.yaml here.")] = None,
) -> None:
    """Copy a recipe, and the files it brings, to change it as you like.

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
        bool, typer.Option("--force", help="Run every stage anew; earlier results go to earlier/ in the run folder.")
    ] = False,
    dry_run: DryRunFlag = False,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Run the stages of a recipe in order.

    A stage whose settings, files and earlier stages are unchanged is left
    alone. Results that newer ones take the place of go to earlier/.

    [bold]Examples:[/bold]
      regionclip recipes run tiny
      regionclip recipes run tiny pretrain.steps=100 out=runs/longer
      regionclip recipes run cc3m --dry-run
      regionclip recipes run cc3m --resume
    """
    console = ctx.ensure_object(Console)
    opened = open_recipe(recipe, overrides, device=device)
    from regionclip_cli.stages.pipeline import run as run_stages

    result = run_stages(opened, run_progress(console), resume=resume, dry_run=dry_run, force=force)
    if as_json:
        console.json(result.to_json())
    else:
        rows = [
            (each.stage, each.state, each.why, each.reads, ", ".join(map(str, each.writes))) for each in result.stages
        ]
        console.table(("stage", "state", "why", "inputs", "results"), rows, to="stdout" if dry_run else "stderr")
    if not dry_run:
        console.note(f"Results are in {result.out}.")
    return ExitCode.SOME_FAILED if result.failed else ExitCode.OK
