"""One step of the optimiser, against the official settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_toys import Toy, fit, weights

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.schema import Optimisation
from regionclip_cli.training.checkpoint import trained_state
from regionclip_cli.training.ema import Average
from regionclip_cli.training.optim import StepWrapper, build_optimiser, rate


def test_the_learning_rate_of_the_paper() -> None:
    paper = Optimisation(milestones=(300_000, 525_000))
    assert rate(paper, 0) == pytest.approx(2e-6)
    assert rate(paper, 500) == pytest.approx(0.002 * (0.001 * 0.5 + 0.5))
    assert rate(paper, 1000) == rate(paper, 299_999) == pytest.approx(0.002)
    assert rate(paper, 300_000) == pytest.approx(0.0002)
    assert rate(paper, 599_999) == pytest.approx(0.00002)


def test_a_cosine_falls_from_all_to_nothing() -> None:
    cosine = Optimisation(schedule="cosine", steps=110, warmup_steps=10)
    assert rate(cosine, 10) == pytest.approx(0.002)
    assert rate(cosine, 60) == pytest.approx(0.001)
    assert rate(cosine, 109) < 1e-6
    constant = Optimisation(schedule="constant", warmup_steps=0, milestones=(5,))
    assert rate(constant, 0) == rate(constant, 10**6) == 0.002


def test_norms_have_no_weight_decay_and_frozen_weights_no_place() -> None:
    model = Toy()
    groups = build_optimiser(model, Optimisation()).param_groups
    decayed, free = ({id(p) for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]
    assert decayed == {id(p) for layer in (model.conv, model.head) for p in layer.parameters()}
    assert free == {id(p) for p in model.norm.parameters()}
    with pytest.raises(UsageError, match="all parameters are frozen"):
        build_optimiser(Toy().requires_grad_(False), Optimisation())


def test_each_parameter_is_clipped_by_itself() -> None:
    long, short = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))
    wrapper = StepWrapper(torch.optim.SGD([long, short], lr=1.0), clip_norm=5.0)
    wrapper.update_params((long * 100).sum() + (short * 0.5).sum())
    assert long.norm().item() == pytest.approx(5.0, rel=1e-4)
    assert short.tolist() == [-0.5] * 4


def test_bf16_computes_in_bf16_and_keeps_float_weights(tmp_path: Path) -> None:
    model, _ = fit(tmp_path, amp="bf16")
    assert model.dtypes == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_average_is_what_is_kept(tmp_path: Path) -> None:
    model, _ = fit(tmp_path / "average", ema_decay=0.5, steps=2, checkpoint_every=1)
    trail = [torch.load(path, weights_only=True) for path in sorted((tmp_path / "average/checkpoints").iterdir())]
    first = Toy().head.weight
    expected = (first + trail[0]["model"]["head.weight"]) / 4 + trail[1]["model"]["head.weight"] / 2
    torch.testing.assert_close(model.head.weight, expected)
    torch.testing.assert_close(trail[1]["average"]["head.weight"], expected)


def test_a_validation_sees_the_average_and_training_does_not(tmp_path: Path) -> None:
    model, seen = Toy(), []
    options = {"validation": lambda step: {"x": float(seen.append(model.head.weight.clone()) or step)}}
    fit(tmp_path / "looked", model, options=options | {"validate_every": 2}, ema_decay=0.9)
    assert not torch.equal(
        seen[0], torch.load(tmp_path / "looked/checkpoints/step-0000004.pth")["model"]["head.weight"]
    )
    plain, _ = fit(tmp_path / "plain", ema_decay=0.9)
    assert all(torch.equal(a, b) for a, b in zip(weights(model).values(), weights(plain).values(), strict=True))
    average = Average(model, 0.9)
    with average.in_place():
        model.head.weight.data.zero_()
    assert model.head.weight.abs().sum() > 0


def test_a_checkpoint_needs_no_trust(tmp_path: Path) -> None:
    _, result = fit(tmp_path)
    assert torch.serialization.get_unsafe_globals_in_checkpoint(result.checkpoint) == []
    state = torch.load(result.checkpoint, weights_only=True)
    assert set(state["model"]) == {name for name in Toy().state_dict() if not name.startswith("frozen")}
    assert set(trained_state(Toy())) == set(state["model"])


def test_settings_that_change_no_number(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "plain", Toy(dropout=0))
    laid, _ = fit(tmp_path / "laid", Toy(dropout=0), channels_last=True)
    assert laid.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(laid)[name], value)
    with pytest.raises(UsageError, match="cannot checkpoint activations"):
        fit(tmp_path / "not", activation_checkpointing=True)
