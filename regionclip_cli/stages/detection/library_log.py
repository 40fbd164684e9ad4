"""Where mmengine's log goes; see `training.library_log`."""

from __future__ import annotations

from regionclip_cli.training.library_log import keep_stdout_clean as keep_stdout_clean
