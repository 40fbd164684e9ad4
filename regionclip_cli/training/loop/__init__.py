"""The training loop on mmengine's Runner: exact order, exact resume, checkpoints that are whole or absent."""

from __future__ import annotations

from regionclip_cli.training.loop.sampling import TrainingSet
from regionclip_cli.training.loop.training import TrainResult, build_runner, train

__all__ = ["TrainResult", "TrainingSet", "build_runner", "train"]
