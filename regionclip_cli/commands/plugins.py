"""`regionclip plugins`: what can be used here, what other packages added, and whether it works."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)

AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object a line.")]


@app.callback()
def about() -> None:
    """List and check what other packages add.

    A package adds backbones, datasets, output formats and commands by entry
    points. A broken one costs only itself. REGIONCLIP_PLUGINS="" ignores all
    of them, REGIONCLIP_PLUGINS="a,b" all but those of the packages a and b.

    [bold]Examples:[/bold]
      regionclip plugins ls
      regionclip plugins check
    """


@app.command("ls")
def list_all(context: typer.Context, as_json: AsJson = False) -> ExitCode:
    """List backbones, datasets, writers and commands, ours and those of plugins.

    Every entry is read, none is run. What cannot be read is listed with its
    error, and the exit code is then 4.

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
        console.table(("kind", "name", "from", "what it is"), rows)
        for offer in offers:
            if offer.problem:
                console.error(offer.problem)
    return ExitCode.PLUGIN if any(offer.problem for offer in offers) else ExitCode.OK


@app.command("check")
def check_all(
    context: typer.Context,
    as_json: AsJson = False,
    built_in: Annotated[
        bool, typer.Option("--all", metavar="", help="Check what comes with regionclip too; takes a minute.")
    ] = False,
) -> ExitCode:
    """Try whether plugins do what they promise.

    Builds each backbone with random weights and compares its shapes with its
    description, writes toy detections with each writer, looks up each
    dataset's loader and classes, loads each command. Exit code 4 when
    something fails.

    [bold]Examples:[/bold]
      regionclip plugins check
      regionclip plugins check --all --json
    """
    console = context.ensure_object(Console)
    from regionclip_cli.stages.plugin_check import check

    outcomes = check(console.progress(), built_in=built_in)
    if not outcomes:
        console.note("No plugins are installed. `--all` checks what comes with regionclip.")
    elif as_json:
        for outcome in outcomes:
            console.json(asdict(outcome))
    else:
        rows = [(o.kind, o.name, o.distribution, "BROKEN" if o.problem else f"ok: {o.fact}") for o in outcomes]
        console.table(("kind", "name", "from", "result"), rows)
        for outcome in outcomes:
            if outcome.problem:
                console.error(f"{outcome.kind[:-1]} {outcome.name}: {outcome.problem}", outcome.hint)
    return ExitCode.PLUGIN if any(outcome.problem for outcome in outcomes) else ExitCode.OK
