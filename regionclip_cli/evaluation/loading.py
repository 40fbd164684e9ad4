"""Loading a model for evaluation."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from regionclip_cli.evaluation.evaluator import measure
from regionclip_cli.evaluation.jobs import Job
from regionclip_cli.evaluation.metrics import EvalResult
from regionclip_cli.evaluation.predictions import read_predictions
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.inference.device import choose_device, choose_dtype
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.runs.progress import Progress
from regionclip_cli.runs.sharding import Share
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.library_log import redirect_mmengine_logs
from regionclip_cli.vision.model_io import load_detector

TIMED = 4
"""Images that a dry run processes; the first is a warm-up and does not count."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory.

    Attributes:
        model: The detector.
        card: Card of the model file.
        text: Its text encoder, loaded when an embedding is not cached.
    """

    model: OpenVocabularyDetector
    card: ModelCard
    text: TextEncoder

    def measure(self, job: Job, folder: Path, share: Share, resume: bool, progress: Progress) -> EvalResult:
        """Evaluate the model; see `evaluator.measure`."""
        return measure(
            self.model,
            job.truth,
            job.settings,
            text=self.text,
            card=self.card,
            boxes=job.boxes,
            folder=folder,
            share=share,
            resume=resume,
            progress=progress,
        )

    def time(self, job: Job) -> float | None:
        """Return the seconds per image on this machine, measured on a few; None where none can be read."""
        truth = job.task.truth
        few = truth.at(np.linspace(0, len(truth) - 1, min(TIMED, len(truth))).astype(int))
        settings = job.settings.model_copy(update={"batch": 1})
        with tempfile.TemporaryDirectory(prefix="regionclip-") as folder:
            measure(
                self.model,
                few,
                settings,
                text=self.text,
                card=self.card,
                boxes=job.boxes,
                folder=Path(folder),
            )
            seconds = [one.seconds for one in read_predictions(Path(folder)) if one.seconds is not None]
        return float(np.median(seconds[1:] or seconds)) if seconds else None


def load(job: Job, device: str) -> Loaded:
    """Load the model of an evaluation.

    Args:
        job: Names the model.
        device: Device of the recipe; under `torchrun` each process takes the GPU of its rank.

    Raises:
        MissingError: A file, or a part of it that is needed, is missing.
        UsageError: A file holds something else, or the device is not available.
    """
    redirect_mmengine_logs()
    if job.model is None:
        raise ValueError(f"{job.name} has no model")
    place = choose_device(_own_device(device))
    model, card = load_detector(
        job.model, device=place, dtype=choose_dtype(job.settings.dtype), proposals_from=job.proposals
    )
    return Loaded(model, card, TextEncoder(job.model, place))


def _own_device(device: str) -> str:
    """Return the GPU of this process under `torchrun`."""
    rank = os.environ.get("LOCAL_RANK", "")
    if device in ("auto", "cuda") and rank.isdigit() and int(rank) < torch.cuda.device_count():
        return f"cuda:{rank}"
    return device
