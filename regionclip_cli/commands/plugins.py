"""`regionclip plugins`: list and check plugins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)

AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per line.")]


@app.callback()
def about() -> None:
    """List and check installed plugins.

    Python packages can add backbones, datasets, output formats and commands
    through entry points. A broken plugin does not affect the rest. Set
    REGIONCLIP_PLUGINS="" to disable all plugins, or REGIONCLIP_PLUGINS="a,b"
    to enable only those of the packages a and b.

    [bold]Examples:[/bold]
      regionclip plugins ls
      regionclip plugins check
    """


@app.command("ls")
def list_all(context: typer.Context, as_json: AsJson = False) -> ExitCode:
    """List available backbones, datasets, writers and commands.

    Includes built-in ones and those of plugins. Plugins that cannot be loaded
    are listed with their error (exit code 4).

    [bold]Examples:[/bold]
      regionclip plugins ls
      regionclip plugins ls --json
    """
    from regionclip_cli import plugins

    console = context.ensure_object(Console)
    offers = plugins.describe()
    if as_json:
        for offer in offers:
            console.json(asdict(offer))
    else:
        rows = [(o.kind, o.name, f"{o.distribution} {o.version}", o.summary or "BROKEN") for o in offers]
        console.table(("kind", "name", "package", "description"), rows)
        for offer in offers:
            if offer.problem:
                console.error(offer.problem)
    return ExitCode.PLUGIN if any(offer.problem for offer in offers) else ExitCode.OK


@app.command("check")
def check_all(
    context: typer.Context,
    as_json: AsJson = False,
    built_in: Annotated[
        bool, typer.Option("--all", metavar="", help="Also check built-in backbones and writers (takes a minute).")
    ] = False,
) -> ExitCode:
    """Check that plugins work.

    Builds each backbone with random weights and checks its output shapes,
    writes sample detections with each writer, checks the loader and classes
    of each dataset, and loads each command. Exit code 4 if a check fails.

    [bold]Examples:[/bold]
      regionclip plugins check
      regionclip plugins check --all --json
    """
    console = context.ensure_object(Console)
    from regionclip_cli.stages.plugin_check import check

    outcomes = check(console.progress(), built_in=built_in)
    if not outcomes:
        console.note("No plugins are installed. Use --all to check the built-in ones.")
    elif as_json:
        for outcome in outcomes:
            console.json(asdict(outcome))
    else:
        rows = [(o.kind, o.name, o.distribution, "BROKEN" if o.problem else f"ok: {o.fact}") for o in outcomes]
        console.table(("kind", "name", "package", "result"), rows)
        for outcome in outcomes:
            if outcome.problem:
                console.error(f"{outcome.kind[:-1]} {outcome.name}: {outcome.problem}", outcome.hint)
    return ExitCode.PLUGIN if any(outcome.problem for outcome in outcomes) else ExitCode.OK
