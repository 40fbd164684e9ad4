"""A toy to train: two numbers from a picture, with draws that must be the same in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import nn

from regionclip_cli.errors import InputError
from regionclip_cli.recipe.schema import Optimisation
from regionclip_cli.runs.progress import Silent
from regionclip_cli.training.runner import TrainResult, build_runner, train


class Noise:
    """Pictures of noise that depend on the index and the seed of the draw."""

    def __init__(self, count: int = 10, broken: tuple[int, ...] = (), seen: list | None = None) -> None:
        self.count, self.broken, self.seen = count, broken, seen

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int, seed: int) -> dict[str, Any]:
        if index in self.broken:
            raise InputError(f"picture-{index} is damaged.")
        if self.seen is not None:
            self.seen.append((index, seed))
        generator = torch.Generator().manual_seed(seed % 2**63)
        pixels = torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8)
        sample = BaseDataElement(metainfo={"img_shape": (8, 8), "key": f"picture-{index}"})
        return {"inputs": pixels, "data_samples": sample}


class Toy(BaseModel):
    """A convolution, a norm, a frozen layer, and dropout, which draws from the global generator."""

    def __init__(self, poison: int | None = None, dropout: float = 0.2) -> None:
        super().__init__(ImgDataPreprocessor())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 2)
        self.drop = nn.Dropout(dropout)
        self.poison, self.calls = poison, 0
        self.dtypes: set[torch.dtype] = set()

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = "tensor") -> Any:
        self.calls += 1
        features = self.conv(inputs.float() / 255)
        self.dtypes.add(features.dtype)
        out = self.head(self.drop(self.norm(self.frozen(features.mean(dim=(2, 3))))))
        loss = (out.float() - 1).square().mean()
        if self.poison is not None and self.calls == self.poison:
            loss = loss * float("nan")
        return {"loss_toy": loss}


def fit(
    folder: Path,
    model: Toy | None = None,
    dataset: Any = None,
    resume: bool = False,
    progress: Any = None,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[Toy, TrainResult]:
    """Train a toy for a few steps and return it with the result."""
    model = model or Toy()
    plain = {"steps": 6, "batch_size": 4, "workers": 0, "lr": 0.1, "warmup_steps": 2, "checkpoint_every": 2}
    runner = build_runner(
        model,
        dataset or Noise(),
        Optimisation(**plain | settings),
        work_dir=folder,
        seed=3,
        device="cpu",
        resume=resume,
        progress=progress or Silent(),
        **(options or {}),
    )
    return model, train(runner)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all weights."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
