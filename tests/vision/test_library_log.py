from __future__ import annotations

import logging
from collections import OrderedDict

import pytest
from mmengine.logging import MMLogger

from regionclip_cli.vision.library_log import redirect_mmengine_logs


def test_what_mmengine_says_takes_the_way_of_all_logs(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MMLogger, "_instance_dict", OrderedDict())  # loggers of other tests' runners
    redirect_mmengine_logs()
    redirect_mmengine_logs()
    with caplog.at_level(logging.WARNING, "mmengine"):
        MMLogger.get_current_instance().info("initialised")
        MMLogger.get_current_instance().warning("careful")
    assert caplog.messages == ["careful"]
    assert capsys.readouterr().out == ""


def test_a_programs_own_logger_is_left_alone() -> None:
    own = MMLogger.get_instance("own")
    handlers = list(own.handlers)
    redirect_mmengine_logs()
    assert own.handlers == handlers
    MMLogger._instance_dict.pop("own")
