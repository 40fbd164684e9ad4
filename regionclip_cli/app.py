"""Root of the command line: global options, built-in and plugin commands, and the error boundary.

Only the requested command is imported; the others contribute their one-line summary. This keeps `regionclip --help`
fast and prevents a broken command from breaking the rest.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from regionclip_cli import __version__
from regionclip_cli.commands.completion import bash_words
from regionclip_cli.console import Console, report
from regionclip_cli.errors import ExitCode, RegionClipError

PROGRAM = "regionclip"
ROOT_OPTIONS = frozenset({"-q", "--quiet", "-v", "--verbose", "--offline", "--version"})
PASSES_FROM_PLUGINS = (RegionClipError, typer.TyperException, typer.Abort, typer.Exit, SystemExit)
BROKEN_PIPE = 141
"""Exit code that shells report for a process killed by SIGPIPE: 128 + 13."""


class BuiltIn(NamedTuple):
    """A row of the command table."""

    name: str
    location: str
    summary: str


BUILT_IN = (
    BuiltIn("detect", "regionclip_cli.commands.detect:detect", "Find objects by name in images."),
    BuiltIn("recipes", "regionclip_cli.commands.recipes:app", "List, show, validate, explain, copy and run recipes."),
    BuiltIn("concepts", "regionclip_cli.commands.concepts:concepts", "Build a concept bank from image captions."),
    BuiltIn(
        "pseudolabel",
        "regionclip_cli.commands.pseudolabel:pseudolabel",
        "Generate region pseudo-labels with a CLIP teacher.",
    ),
    BuiltIn(
        "pretrain", "regionclip_cli.commands.pretrain:pretrain", "Pretrain a model on region-text and image-text pairs."
    ),
    BuiltIn(
        "train-proposals",
        "regionclip_cli.commands.train_proposals:train_proposals",
        "Train a class-agnostic region proposal network.",
    ),
    BuiltIn("finetune", "regionclip_cli.commands.finetune:finetune", "Fine-tune a detector on annotated boxes."),
    BuiltIn(
        "evaluate",
        "regionclip_cli.commands.evaluate:evaluate",
        "Evaluate a model on an annotated dataset.",
    ),
    BuiltIn("splits", "regionclip_cli.commands.splits:app", "List class splits and split COCO annotation files."),
    BuiltIn("models", "regionclip_cli.commands.models:app", "List, download, import and export models."),
    BuiltIn("plugins", "regionclip_cli.commands.plugins:app", "List and check installed plugins."),
    BuiltIn("doctor", "regionclip_cli.commands.doctor:doctor", "Show versions, devices and known problems."),
)

HELP = """Find objects by name in any image.

Open-vocabulary object detection with RegionCLIP: describe the classes in
plain words, no training needed. A small model is included and works
offline; download or import larger ones with `regionclip models`.

[bold]Examples:[/bold]
  regionclip detect kitchen.jpg --classes "cat,kettle"
  regionclip models ls
  regionclip doctor
"""


def build_app(argv: Sequence[str]) -> typer.Typer:
    """Build the root application; only the command named in `argv` is imported, the others are placeholders."""
    app = typer.Typer(
        name=PROGRAM,
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        callback=_root,
    )
    wanted = next((word for word in argv or _words_to_complete() if not word.startswith("-")), "")
    for command in BUILT_IN:
        if command.name == wanted:
            _add(app, command)
        else:
            app.command(command.name, help=command.summary)(_not_loaded)
    if wanted not in {command.name for command in BUILT_IN}:
        _add_plugin_commands(app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Every exception is handled here.

    Args:
        argv: Arguments after the program name; None takes them from `sys.argv`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # A stream closed by the caller (`>&-`) is None; discard what is written to it.
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    console = Console()
    try:
        with bash_words(os.environ):
            code = _run(words, console)
        console.stdout.flush()
        return code
    except BrokenPipeError:
        return _reader_left()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the boundary
        return report(error, console, PROGRAM, ROOT_OPTIONS)
    finally:
        console.close()


def _run(words: Sequence[str], console: Console) -> int:
    try:
        result = build_app(words)(args=list(words), prog_name=PROGRAM, standalone_mode=False, obj=console)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            raise stop.__context__ from None
        return stop.code if isinstance(stop.code, int) else ExitCode.OK if stop.code is None else ExitCode.BUG
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == ExitCode.INTERRUPTED:  # Typer turns Ctrl-C into this exit code
        raise KeyboardInterrupt
    return int(result) if isinstance(result, int) else ExitCode.OK


def _reader_left() -> int:
    """End quietly after the reader of our output (e.g. `| head`) closed the pipe."""
    # Buffered output would raise again when the interpreter closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _words_to_complete() -> list[str]:
    """Return the command line a shell wants completed; it is passed in the environment, not as arguments."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:] if f"_{PROGRAM.upper()}_COMPLETE" in os.environ else []


def _add(app: typer.Typer, command: BuiltIn) -> None:
    module, _, attribute = command.location.partition(":")
    code: Any = getattr(importlib.import_module(module), attribute)
    if isinstance(code, typer.Typer):
        app.add_typer(code, name=command.name)
    else:
        app.command(command.name)(code)


def _add_plugin_commands(app: typer.Typer) -> None:
    """Add a placeholder for each plugin command; its code is imported when the command is called."""
    from regionclip_cli import plugins

    taken = {command.name for command in BUILT_IN}
    for entry in plugins.entries("commands"):
        if entry.name in taken:  # reported by `regionclip plugins ls`
            continue
        taken.add(entry.name)
        app.command(
            entry.name,
            help=f"Provided by the package {entry.distribution}.",
            rich_help_panel="Plugin commands",
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_plugin_command)


def _plugin_command(context: typer.Context) -> Any:
    """Load the plugin behind this command and run it with the remaining arguments; its failures are plugin errors."""
    from regionclip_cli import plugins

    entry = plugins.lookup("commands", str(context.info_name))
    plugin: typer.Typer = plugins.load(entry)
    with plugins.blame(entry, allowed=PASSES_FROM_PLUGINS):
        return plugin(args=context.args, prog_name=context.command_path, standalone_mode=False, obj=context.obj)


def _not_loaded() -> NoReturn:
    raise RuntimeError("called a command that build_app() did not load")


def _show_version(asked: bool) -> None:
    if asked:
        Console().line(f"{PROGRAM} {__version__}")
        raise typer.Exit()


def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", help="Print the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            metavar="",
            count=True,
            show_default=False,
            help="Print more details, and tracebacks for bugs; -vv for debug output.",
        ),
    ] = 0,
    offline: Annotated[bool, typer.Option("--offline", metavar="", help="Do not access the network.")] = False,
) -> None:
    from regionclip_cli.console.logs import listening

    console = context.ensure_object(Console)
    console.quiet, console.verbosity = quiet, verbose
    context.with_resource(listening(console))
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
