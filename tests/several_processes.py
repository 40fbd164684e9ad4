"""Several processes in a test: copies of this one, which need no second import of torch."""

from __future__ import annotations

import os
import signal
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing


def run_processes(count: int, work: Callable[..., None], *args: Any) -> None:
    """Call `work(*args)` in so many processes, with the environment that `torchrun` would give them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where threads are; ours wait for nothing
        multiprocessing.start_processes(_enter, (count, port, work, args), nprocs=count, start_method="fork")


def killed(work: Callable[..., None], *args: Any) -> None:
    """Call `work(*args)` in a process that is expected to be killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = multiprocessing.get_context("fork").Process(target=_alone, args=(work, args))
        process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _enter(rank: int, count: int, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    _alone(work, args)


def _alone(work: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)  # a second thread would wait for those that a fork leaves behind
    work(*args)


def saved(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors that a process has left in a file."""
    tensors: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return tensors
