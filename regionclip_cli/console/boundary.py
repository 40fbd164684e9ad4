"""What a user is told when something ends the program: one sentence, a hint, and the exit code.

Only `app.main` catches everything; this module decides what each kind of exception means.
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

DISK_SENTENCES = {
    errno.ENOSPC: ("The disk is full", "Free some space or choose another folder, then run the same command again."),
    errno.EDQUOT: ("The disk quota is used up", "Free some space or choose another folder."),
    errno.EROFS: ("The file system is read-only", "Choose a folder that can be written."),
    errno.EACCES: ("No permission", "Check who owns it, or choose another place."),
    errno.EPERM: ("No permission", "Check who owns it, or choose another place."),
    errno.ENOENT: ("No such file or folder", "Check the spelling and the folder you are in."),
    errno.ENOTDIR: ("A file is in the way of a folder", "Move it, or choose another place."),
    errno.EISDIR: ("A folder is where a file should be", "Name a file, or choose another place."),
    errno.EEXIST: ("It exists already", "Move it, or choose another place."),
    errno.ENAMETOOLONG: ("The file name is too long", "Choose a shorter one."),
    errno.EMFILE: ("Too many files are open", "Raise the limit with `ulimit -n`."),
    errno.EIO: ("The disk or device does not answer", "Check it, or choose another place."),
}


class Failure(NamedTuple):
    """What to print for an exception, and how to end."""

    message: str
    hint: str
    code: ExitCode
    bug: bool = False


def explain(error: BaseException) -> Failure:
    """Return what a user is told about `error`.

    A `RegionClipError` speaks for itself. Trouble with files, memory and missing packages gets a sentence. Everything
    else is a bug of ours: one line with the exception, and how to see and report the rest.
    """
    if isinstance(error, RegionClipError):
        return Failure(error.message, error.hint, error.code)
    if isinstance(error, KeyboardInterrupt):
        return Failure("Interrupted.", "", ExitCode.INTERRUPTED)
    if isinstance(error, OSError) and error.errno in DISK_SENTENCES:
        sentence, hint = DISK_SENTENCES[error.errno]
        where = f": {error.filename}" if error.filename else ""
        return Failure(f"{sentence}{where}.", hint, ExitCode.USAGE)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        hint = "Take fewer images at once (--batch 1) or smaller ones (--short-side)."
        return Failure("The memory of this machine or device is used up.", hint, ExitCode.USAGE)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("regionclip_cli"):
        package = error.name.partition(".")[0]
        hint = f"Install it with `pip install {package}`, or this tool again with all it needs."
        return Failure(f"The Python package {package!r} is not installed.", hint, ExitCode.MISSING)
    text = " ".join(str(error).split())
    name = type(error).__name__
    return Failure(
        f"This is a bug in regionclip: {name}: {text}" if text else f"This is a bug in regionclip: {name}",
        "`regionclip -v ...` shows where it happened; please report that with the output of `regionclip doctor`.",
        ExitCode.BUG,
        bug=True,
    )


def report(error: BaseException, console: Console, program: str, root_options: Collection[str] = ()) -> int:
    """Tell the user what ended the program, and return the exit code.

    The traceback of a bug is shown with `-v`, that of any other failure with `-vv`.

    Args:
        error: What was raised.
        console: Where to tell it.
        program: What the user typed first.
        root_options: Options that are understood only right after `program`.
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
    if message:  # empty when a group was called without a verb: its help is on the screen already
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else program
        option = getattr(error, "option_name", "")
        hint = f"See `{path} --help`."
        if path != program and option in root_options:
            hint = f"{option} goes right after `{program}`, before the command."
        console.error(message, hint)
    return error.exit_code
