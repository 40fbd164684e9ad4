"""Turn the exception that ended the program into an error message, a hint and an exit code.

Only `app.main` catches all exceptions; this module decides how each kind is reported.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import typer

from regionclip_cli.errors import ExitCode, RegionClipError

if TYPE_CHECKING:
    from regionclip_cli.console.terminal import Console

OS_ERRORS = {
    errno.ENOSPC: ("The disk is full", "Free some space or choose another folder, then repeat the command."),
    errno.EDQUOT: ("Disk quota exceeded", "Free some space or choose another folder."),
    errno.EROFS: ("The file system is read-only", "Choose a writable folder."),
    errno.EACCES: ("Permission denied", "Check the owner and permissions, or choose another path."),
    errno.EPERM: ("Permission denied", "Check the owner and permissions, or choose another path."),
    errno.ENOENT: ("No such file or folder", "Check the spelling and the current folder."),
    errno.ENOTDIR: ("Not a folder", "Move the file, or choose another path."),
    errno.EISDIR: ("Is a folder, not a file", "Choose a file."),
    errno.EEXIST: ("Already exists", "Move it, or choose another path."),
    errno.ENAMETOOLONG: ("File name too long", "Choose a shorter name."),
    errno.EMFILE: ("Too many open files", "Raise the limit with `ulimit -n`."),
    errno.EIO: ("Input/output error", "Check the disk or device, or choose another path."),
}


class Failure(NamedTuple):
    """Error message, hint and exit code for an exception."""

    message: str
    hint: str
    code: ExitCode
    bug: bool = False


def explain(error: BaseException) -> Failure:
    """Return the message, hint and exit code for `error`.

    A `RegionClipError` carries its own message. File, memory and missing-package errors are described in a sentence.
    Anything else is reported as a bug: the exception in one line, and how to see and report the details.
    """
    if isinstance(error, RegionClipError):
        return Failure(error.message, error.hint, error.code)
    if isinstance(error, KeyboardInterrupt):
        return Failure("Interrupted.", "", ExitCode.INTERRUPTED)
    if isinstance(error, OSError) and error.errno in OS_ERRORS:
        sentence, hint = OS_ERRORS[error.errno]
        where = f": {error.filename}" if error.filename else ""
        return Failure(f"{sentence}{where}.", hint, ExitCode.USAGE)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        hint = "Use a smaller batch (--batch 1) or smaller images (--short-side)."
        return Failure("Out of memory.", hint, ExitCode.USAGE)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("regionclip_cli"):
        package = error.name.partition(".")[0]
        hint = f"Run `pip install {package}`, or reinstall regionclip-cli with its dependencies."
        return Failure(f"The Python package {package!r} is not installed.", hint, ExitCode.MISSING)
    text = " ".join(str(error).split())
    name = type(error).__name__
    return Failure(
        f"This is a bug in regionclip: {name}: {text}" if text else f"This is a bug in regionclip: {name}",
        "Run `regionclip -v ...` for the traceback, and report it with the output of `regionclip doctor --markdown`.",
        ExitCode.BUG,
        bug=True,
    )


def report(error: BaseException, console: Console, program: str, root_options: Collection[str] = ()) -> int:
    """Print the error that ended the program, and return the exit code.

    Bugs show their traceback with `-v`, other errors with `-vv`.

    Args:
        error: The exception.
        console: Where to print.
        program: Name of the program.
        root_options: Options that are accepted only directly after `program`.
    """
    console.close()
    if isinstance(error, typer.TyperException):
        return _report_usage(error, console, program, root_options)
    failure = explain(error)
    if console.verbosity > (0 if failure.bug else 1):
        console.detail("".join(traceback.format_exception(error)).rstrip())
    console.error(failure.message, failure.hint)
    return failure.code


def _report_usage(error: typer.TyperException, console: Console, program: str, root_options: Collection[str]) -> int:
    message = error.format_message()
    if message:  # empty if a group was called without a subcommand: its help has been printed
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else program
        option = getattr(error, "option_name", "")
        hint = f"See `{path} --help`."
        if path != program and option in root_options:
            hint = f"Put {option} directly after `{program}`, before the command."
        console.error(message, hint)
    return error.exit_code
