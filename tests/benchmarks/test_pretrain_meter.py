"""The benchmark of pretraining counts a convolution's backward by itself, as long as torch gets it wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

METER = Path(__file__).resolve().parents[2] / "benchmarks" / "pretrain_meter.py"


@pytest.fixture(scope="module")
def meter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_meter", METER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def operations(convolution: torch.nn.Module, learns_input: bool, formulas: dict[Any, Any]) -> tuple[int, int]:
    """Return the operations of a forward and of a backward pass."""
    image = torch.ones(2, 8, 9, 7, requires_grad=learns_input)
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        out = convolution(image)
        forward = counter.get_total_flops()
        out.sum().backward()
    return forward, counter.get_total_flops() - forward


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
@pytest.mark.parametrize("learns_input", [False, True])
def test_each_gradient_costs_what_forward_does(meter: ModuleType, kind: Any, groups: int, learns_input: bool) -> None:
    convolution = kind(8, 16, 3, stride=2, groups=groups, bias=True)
    forward, backward = operations(convolution, learns_input, meter.FORMULAS)
    places = 4 * 3 if kind is torch.nn.Conv2d else 9 * 7
    assert forward == 2 * 2 * places * 8 * 16 * 9 // groups
    assert backward == forward * (1 + learns_input)


def test_torch_still_leaves_groups_out() -> None:
    """When this fails, `FORMULAS` of the benchmark can go."""
    forward, backward = operations(torch.nn.Conv2d(8, 8, 3, groups=8), True, {})
    assert backward > 2 * forward
