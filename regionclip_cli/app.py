"""The root of the command line: global options, built-in and plugin commands, and the one error boundary.

Only the command that was asked for is imported; all others are one line of help. That keeps `regionclip --help` well
under half a second, and one broken command from breaking the rest.
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
from regionclip_cli.console import Console, report
from regionclip_cli.errors import ExitCode, RegionClipError

PROGRAM = "regionclip"
ROOT_OPTIONS = frozenset({"-q", "--quiet", "-v", "--verbose", "--offline", "--version"})
PASSES_FROM_PLUGINS = (RegionClipError, typer.TyperException, typer.Abort, typer.Exit, SystemExit)
BROKEN_PIPE = 141
"""What a shell reports for a program that the end of a pipe stopped: 128 + SIGPIPE."""


class BuiltIn(NamedTuple):
    """One line of the command table."""

    name: str
    location: str
    summary: str


BUILT_IN = (
    BuiltIn("detect", "regionclip_cli.commands.detect:detect", "Find objects by name in images."),
    BuiltIn("recipes", "regionclip_cli.commands.recipes:app", "List, show, check, explain, copy and run recipes."),
    BuiltIn("concepts", "regionclip_cli.commands.concepts:concepts", "Mine concepts from captions and embed them."),
    BuiltIn(
        "pseudolabel",
        "regionclip_cli.commands.pseudolabel:pseudolabel",
        "Let a teacher name the regions of every image.",
    ),
    BuiltIn("pretrain", "regionclip_cli.commands.pretrain:pretrain", "Train a model on named regions and captions."),
    BuiltIn(
        "train-proposals",
        "regionclip_cli.commands.train_proposals:train_proposals",
        "Train a network that finds boxes and does not name them.",
    ),
    BuiltIn("finetune", "regionclip_cli.commands.finetune:finetune", "Train a detector on boxes of base classes."),
    BuiltIn(
        "evaluate",
        "regionclip_cli.commands.evaluate:evaluate",
        "Measure a model where it is known what is on the images.",
    ),
    BuiltIn("splits", "regionclip_cli.commands.splits:app", "List base and novel classes, and cut annotation files."),
    BuiltIn("models", "regionclip_cli.commands.models:app", "List, fetch and add models."),
    BuiltIn("plugins", "regionclip_cli.commands.plugins:app", "List and check what other packages add."),
    BuiltIn("doctor", "regionclip_cli.commands.doctor:doctor", "Tell what this installation has, and what is broken."),
)

HELP = """Find objects by name, in any photo.

Name what you look for in plain words. The model in the package works at
once and offline; larger ones can be added.

[bold]Examples:[/bold]
  regionclip detect kitchen.jpg --classes "cat,kettle"
  regionclip models ls
  regionclip doctor
"""


def build_app(argv: Sequence[str]) -> typer.Typer:
    """Return the root application in which the command that `argv` names is real and the others are summaries."""
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
    """Run the command line and return its exit code: the only place where every exception ends.

    Args:
        argv: Words after the program name; None means those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Python leaves None where a stream was closed before it started (`>&-`); what is written there goes nowhere.
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    console = Console()
    try:
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
    if result == ExitCode.INTERRUPTED:  # typer has turned Ctrl-C into this exit code
        raise KeyboardInterrupt
    return int(result) if isinstance(result, int) else ExitCode.OK


def _reader_left() -> int:
    """End quietly after whoever read our output (`| head`) closed the pipe."""
    # What is still buffered would raise once more when the interpreter closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _words_to_complete() -> list[str]:
    """Return what stands on the line that a shell asks to complete: it comes in the environment, not as arguments."""
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
    """Add one line for each command of other packages; its code is imported when it is called."""
    from regionclip_cli import plugins

    taken = {command.name for command in BUILT_IN}
    for entry in plugins.entries("commands"):
        if entry.name in taken:  # `regionclip plugins ls` tells of it
            continue
        taken.add(entry.name)
        app.command(
            entry.name,
            help=f"From the package {entry.distribution}.",
            rich_help_panel="Commands of plugins",
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_plugin_command)


def _plugin_command(context: typer.Context) -> Any:
    """Load the plugin behind this command and hand it the rest of the line; what breaks there is the plugin's."""
    from regionclip_cli import plugins

    entry = plugins.lookup("commands", str(context.info_name))
    plugin: typer.Typer = plugins.load(entry)
    with plugins.blame(entry, allowed=PASSES_FROM_PLUGINS):
        return plugin(args=context.args, prog_name=context.command_path, standalone_mode=False, obj=context.obj)


def _not_loaded() -> NoReturn:
    raise RuntimeError("a command was called that build_app() did not load")


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
        bool, typer.Option("--quiet", "-q", metavar="", help="Print data, warnings and errors only.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            metavar="",
            count=True,
            show_default=False,
            help="Say more, and show the traceback of a bug. Twice: all that is logged.",
        ),
    ] = 0,
    offline: Annotated[bool, typer.Option("--offline", metavar="", help="Use nothing from the network.")] = False,
) -> None:
    from regionclip_cli.console.logs import listening

    console = context.ensure_object(Console)
    console.quiet, console.verbosity = quiet, verbose
    context.with_resource(listening(console))
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
