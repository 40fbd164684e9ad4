"""Root of the command line: exit codes, error boundary, global options."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
import typer
from syrupy.assertion import SnapshotAssertion

from regionclip_cli import __version__, app, plugins
from regionclip_cli.console import Console
from regionclip_cli.errors import (
    ExitCode,
    InputError,
    MissingError,
    OutputError,
    PluginError,
    RegionClipError,
    UsageError,
)

ENTRY = [sys.executable, "-m", "regionclip_cli"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Return a function that makes its argument the body of the built-in command `try`."""

    def register(body: Callable[..., object]) -> None:
        module = ModuleType("trial_command")
        module.run = body
        monkeypatch.setitem(sys.modules, "trial_command", module)
        monkeypatch.setattr(app, "BUILT_IN", (*app.BUILT_IN, app.BuiltIn("try", "trial_command:run", "Try.")))

    return register


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--version"]) == 0
    assert capsys.readouterr().out == f"regionclip {__version__}\n"


def test_no_arguments_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert "Usage: regionclip" in out
    assert all(command.name in out for command in app.BUILT_IN)
    assert err == ""


def test_unknown_command_suggests_a_similar_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["detct", "a.jpg"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: No such command 'detct'. Did you mean 'detect'?\nhint: See `regionclip --help`.\n"


def test_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--jsno"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "--jsno" in err
    assert "--json" in err
    assert "`regionclip doctor --help`" in err


def test_misplaced_root_option_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "-v"]) == ExitCode.USAGE
    assert "hint: Put -v directly after `regionclip`" in capsys.readouterr().err


def test_group_without_subcommand_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["plugins"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out.count("Usage: regionclip plugins") == 1
    assert err == ""


@pytest.mark.parametrize("kind", [UsageError, OutputError, InputError, PluginError, MissingError])
def test_user_errors_print_message_and_hint(
    kind: type[RegionClipError], command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(kind("The kettle is empty.", "Fill it.")))
    assert app.main(["try"]) == kind.code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: The kettle is empty.\nhint: Fill it.\n")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/a.jsonl"), 2, "out/a.jsonl"),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), 2, "/srv/x"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.yaml"), 2, "a.yaml"),
        (MemoryError(), 2, "memory"),
        (ModuleNotFoundError("No module named 'spacy'", name="spacy"), 5, "'spacy'"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (typer.Abort(), 130, "Interrupted"),
        (ModuleNotFoundError("No module named 'regionclip_cli.x'", name="regionclip_cli.x"), 1, "This is a bug"),
        (ZeroDivisionError("division by zero"), 1, "This is a bug in regionclip: ZeroDivisionError: division by zero"),
    ],
)
def test_other_errors_have_a_code_and_a_message(
    error: BaseException, code: int, words: str, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(error))
    assert app.main(["try"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_verbose_shows_traceback_of_a_bug(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(ZeroDivisionError("oops")))
    assert app.main(["-v", "try"]) == ExitCode.BUG
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.index("Traceback") < err.index("error: This is a bug")


def test_very_verbose_shows_traceback_of_a_user_error(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(UsageError("No.")))
    assert app.main(["-v", "try"]) == ExitCode.USAGE
    assert "Traceback" not in capsys.readouterr().err
    assert app.main(["-vv", "try"]) == ExitCode.USAGE
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("result", "code"), [(None, 0), (ExitCode.OK, 0), (ExitCode.SOME_FAILED, 3), (ExitCode.MISSING, 5)]
)
def test_command_result_is_the_exit_code(result: ExitCode | None, code: int, command: Callable[..., None]) -> None:
    command(lambda: result)
    assert app.main(["try"]) == code


@pytest.mark.parametrize("stop", [typer.Exit(3), SystemExit(3)])
def test_command_can_raise_exit(stop: BaseException, command: Callable[..., None]) -> None:
    command(raising(stop))
    assert app.main(["try"]) == 3


def test_quiet_and_verbose_configure_the_console(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def body(context: typer.Context) -> None:
        console = context.ensure_object(Console)
        console.note("a note")
        console.detail("a detail")
        console.warn("a warning")

    command(body)
    expected = {
        (): "a note\nwarning: a warning\n",
        ("-q",): "warning: a warning\n",
        ("-v",): "a note\na detail\nwarning: a warning\n",
    }
    for options, err in expected.items():
        assert app.main([*options, "try"]) == 0
        assert capsys.readouterr().err == err


def test_offline_sets_hub_variable(command: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    seen = []
    command(lambda: seen.append(os.environ["HF_HUB_OFFLINE"]))
    assert app.main(["try"]) == 0
    assert app.main(["--offline", "try"]) == 0
    assert seen == ["0", "1"]


def test_library_warnings_need_verbose(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    command(lambda: warnings.warn("old function", UserWarning, stacklevel=1))
    assert app.main(["try"]) == 0
    assert capsys.readouterr().err == ""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert app.main(["-v", "try"]) == 0
    assert "old function" in capsys.readouterr().err


def test_only_the_requested_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = app.BuiltIn("broken", "regionclip_cli.no_such_module:run", "Never there.")
    monkeypatch.setattr(app, "BUILT_IN", (*app.BUILT_IN, broken))
    assert app.main(["--help"]) == 0
    assert "Never there." in capsys.readouterr().out
    assert app.main(["doctor", "--help"]) == 0
    assert app.main(["broken"]) == ExitCode.BUG


@pytest.mark.parametrize("command", app.BUILT_IN, ids=lambda command: command.name)
def test_summary_is_the_first_line_of_the_command_help(command: app.BuiltIn) -> None:
    module, _, attribute = command.location.partition(":")
    code = getattr(importlib.import_module(module), attribute)
    words = code.__doc__
    if isinstance(code, typer.Typer):
        words = code.registered_callback.callback.__doc__ if code.registered_callback else code.info.help
    assert words.strip().partition("\n")[0] == command.summary


def test_command_names_are_reserved() -> None:
    assert plugins.RESERVED["commands"] == {command.name for command in app.BUILT_IN}


def test_process_exit_code() -> None:
    ended = subprocess.run([*ENTRY, "detct"], capture_output=True, text=True, check=False)
    assert ended.returncode == ExitCode.USAGE
    assert ended.stdout == ""
    assert "Did you mean 'detect'?" in ended.stderr


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("regionclip doc", 1, ["doctor"]),
        ("regionclip doctor --ma", 2, ["--markdown"]),
        ("regionclip plugins c", 2, ["check"]),
    ],
)
def test_shell_completion(line: str, word: int, expected: list[str]) -> None:
    asked = {"_REGIONCLIP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(word)}
    code = "import sys; from regionclip_cli.app import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    assert ended.stdout.split() == expected


@pytest.mark.parametrize("words", ["", "plugins", "plugins ls", "plugins check", "doctor"])
def test_help_pages(words: str, snapshot: SnapshotAssertion) -> None:
    plain = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    plain |= {"COLUMNS": "80", "NO_COLOR": "1", plugins.SWITCH: "", "PYTHONIOENCODING": "utf-8"}
    ended = subprocess.run([*ENTRY, *words.split(), "--help"], env=plain, capture_output=True, check=True)
    assert ended.stdout.decode() == snapshot
    assert ended.stderr == b""


def test_closed_pipe_is_not_an_error() -> None:
    process = subprocess.Popen([*ENTRY, "plugins", "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # before anything is written, as `| head -0` does
    _, err = process.communicate()
    assert err == ""
    assert process.returncode == app.BROKEN_PIPE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_full_disk_is_a_user_error() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*ENTRY, "plugins", "ls"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 2


def test_closed_streams_are_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert app.main(["plugins", "ls"]) == ExitCode.OK
    assert app.main(["detct"]) == ExitCode.USAGE
