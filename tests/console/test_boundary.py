"""How exceptions are reported to the user."""

from __future__ import annotations

import errno

import pytest

from regionclip_cli.console import explain
from regionclip_cli.console.boundary import OS_ERRORS
from regionclip_cli.errors import ExitCode, MissingError


def test_user_errors_keep_message_hint_and_code() -> None:
    assert explain(MissingError("No model.", "Get one.")) == ("No model.", "Get one.", ExitCode.MISSING, False)


@pytest.mark.parametrize("number", OS_ERRORS)
def test_os_errors_name_the_file_and_give_a_hint(number: int) -> None:
    failure = explain(OSError(number, "system text", "out/a.jsonl"))
    assert failure.message.endswith(": out/a.jsonl.")
    assert failure.hint.endswith(".")
    assert (failure.code, failure.bug) == (ExitCode.USAGE, False)


def test_os_error_without_a_file_name() -> None:
    failure = explain(OSError(errno.ENOSPC, "No space left on device"))
    assert failure.code == ExitCode.USAGE
    assert "None" not in failure.message


def test_unknown_os_errors_are_bugs() -> None:
    assert explain(OSError(errno.EINVAL, "Invalid argument")).bug
    assert explain(OSError("no number")).bug


def test_device_out_of_memory_is_not_a_bug() -> None:
    kind = type("OutOfMemoryError", (RuntimeError,), {})
    assert explain(kind("CUDA out of memory. Tried to allocate 20 GiB")).code == ExitCode.USAGE


def test_bug_message_is_one_line() -> None:
    failure = explain(ValueError("first\nsecond\n\nthird"))
    assert failure.message.endswith("ValueError: first second third")
    assert (failure.code, failure.bug) == (ExitCode.BUG, True)
    assert explain(ValueError()).message.endswith("ValueError")
