"""What an exception means to a user."""

from __future__ import annotations

import errno

import pytest

from regionclip_cli.console import explain
from regionclip_cli.console.boundary import DISK_SENTENCES
from regionclip_cli.errors import ExitCode, MissingError


def test_errors_for_users_speak_for_themselves() -> None:
    assert explain(MissingError("No model.", "Get one.")) == ("No model.", "Get one.", ExitCode.MISSING, False)


@pytest.mark.parametrize("number", DISK_SENTENCES)
def test_trouble_with_files_names_the_file_and_what_to_do(number: int) -> None:
    failure = explain(OSError(number, "as the system says it", "out/a.jsonl"))
    assert failure.message.endswith(": out/a.jsonl.")
    assert failure.hint.endswith(".")
    assert (failure.code, failure.bug) == (ExitCode.USAGE, False)


def test_a_file_need_not_be_known() -> None:
    assert explain(OSError(errno.ENOSPC, "No space left on device")).message == "The disk is full."


def test_other_system_errors_are_bugs() -> None:
    assert explain(OSError(errno.EINVAL, "Invalid argument")).bug
    assert explain(OSError("no number")).bug


def test_memory_of_a_device_is_memory() -> None:
    kind = type("OutOfMemoryError", (RuntimeError,), {})
    assert explain(kind("CUDA out of memory. Tried to allocate 20 GiB")).code == ExitCode.USAGE


def test_a_bug_is_one_line_whatever_it_says() -> None:
    failure = explain(ValueError("first\nsecond\n\nthird"))
    assert failure.message == "This is a bug in regionclip: ValueError: first second third"
    assert failure.code == ExitCode.BUG
    assert explain(ValueError()).message == "This is a bug in regionclip: ValueError"
