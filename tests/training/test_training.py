"""The loop: exact order, exact resume, and what ends a run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from listening import Listener
from mmengine.hooks import Hook
from several_processes import killed, run_processes, saved
from training_toys import Noise, Toy, fit, weights

from regionclip_cli.errors import OutputError, RegionClipError, UsageError
from regionclip_cli.training.checkpoint import Checkpoints


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Said(Listener):
    """Remembers every task, too."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[tuple] = []

    def start(self, task: str, total: int | None, unit: str) -> None:
        super().start(task, total, unit)
        self.tasks.append((task, total, unit))


class KillAt(Hook):
    """Ends the process as the kernel would when memory runs out."""

    def __init__(self, step: int, how: int = signal.SIGKILL) -> None:
        self.step, self.how = step, how

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == self.step:
            os.kill(os.getpid(), self.how)


EXACT = {
    "steps": 200,
    "checkpoint_every": 50,
    "ema_decay": 0.9,
    "schedule": "cosine",
    "grad_accum_steps": 2,
    "log_every": 20,
}


def begin_and_die(folder: Path) -> None:
    fit(folder, options={"hooks": [KillAt(137)]}, **EXACT)


@pytest.mark.usefixtures("one_thread")  # as the process that is killed
def test_killed_and_resumed_is_the_same_as_never_stopped(tmp_path: Path) -> None:
    killed(begin_and_die, tmp_path / "two")
    left = sorted(path.name for path in (tmp_path / "two" / "checkpoints").iterdir())
    assert left == ["step-0000050.pth", "step-0000100.pth"]
    one, result = fit(tmp_path / "one", **EXACT)
    two, again = fit(tmp_path / "two", resume=True, **EXACT)
    assert result.steps == again.steps == 200
    assert same(weights(one), weights(two))
    states = [torch.load(each.checkpoint, weights_only=True) for each in (result, again)]
    assert same(*(state["model"] for state in states))
    assert same(*(state["average"] for state in states))
    momenta = [[m["momentum_buffer"] for m in state["optimiser"]["state"].values()] for state in states]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    lines = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert [line["step"] for line in lines[1]] == list(range(20, 201, 20))
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    assert not same(weights(one), weights(fit(tmp_path / "other", **EXACT | {"lr": 0.05})[0]))


def split_work(folder: Path) -> None:
    model, result = fit(folder, Toy(dropout=0.0), steps=4, batch_size=8, grad_accum_steps=2, checkpoint_every=3)
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(weights(model), folder / "weights.pth")
        (folder / "losses.json").write_text(json.dumps(result.losses))


def test_two_processes_see_the_batches_of_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    split_work(tmp_path / "one")
    run_processes(2, split_work, tmp_path / "two")
    one, two = (saved(tmp_path / name / "weights.pth") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)
    losses = [json.loads((tmp_path / name / "losses.json").read_text())["loss"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "one").iterdir())


def test_loader_processes_change_nothing(tmp_path: Path) -> None:
    one, _ = fit(tmp_path / "one")
    two, _ = fit(tmp_path / "two", workers=2)
    assert same(weights(one), weights(two))


def test_parts_add_up_to_the_batch(tmp_path: Path) -> None:
    one, _ = fit(tmp_path / "one", Toy(dropout=0.0))
    two, _ = fit(tmp_path / "two", Toy(dropout=0.0), grad_accum_steps=4)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value)
    with pytest.raises(UsageError, match="batch of 4 images cannot be cut into 3 equal parts"):
        fit(tmp_path / "three", grad_accum_steps=3)


def test_a_nan_stops_before_the_weights_are_hurt(tmp_path: Path) -> None:
    model = Toy(poison=4)
    with pytest.raises(RegionClipError, match=r"not finite at step 4 .*nan.*picture-\d") as raised:
        fit(tmp_path, model)
    assert "step-0000002.pth" in raised.value.hint
    assert "--resume" in raised.value.hint
    assert all(value.isfinite().all() for value in weights(model).values())
    keys = {f"picture-{index}" for index in range(10)}
    named = raised.value.message.partition("images were ")[2].rstrip(".").split(", ")
    assert len(named) == 4
    assert set(named) <= keys


def test_an_infinite_gradient_stops_too(tmp_path: Path) -> None:
    model = Toy()
    model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RegionClipError, match="A gradient was not finite at step 1"):
        fit(tmp_path, model, clip_norm=5.0)


def test_one_damaged_image_costs_only_itself(tmp_path: Path) -> None:
    said = Said()
    seen: list[tuple[int, int]] = []
    fit(tmp_path, dataset=Noise(broken=(3,), seen=seen), progress=said)
    assert len(seen) == 24
    assert 3 not in {index for index, _ in seen}
    assert any("picture-3 is damaged" in warning for warning in said.warnings)
    with pytest.raises(UsageError, match="10 images in a row cannot be read"):
        fit(tmp_path / "all", dataset=Noise(broken=tuple(range(10))), workers=1)


class Deadly(Noise):
    """A data set whose reader is killed."""

    def draw(self, index: int, seed: int) -> dict[str, Any]:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(index, seed)


def test_a_reader_that_dies_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RegionClipError, match=r"process that reads images died at step \d+: it \w+ ") as raised:
        fit(tmp_path, dataset=Deadly(), workers=1)
    assert "workers" in raised.value.hint


def test_ctrl_c_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    said = Said()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, progress=said, options={"hooks": [KillAt(3, signal.SIGINT)]})
    assert any("Stopped at step 3" in note and "step-0000002.pth" in note for note in said.notes)
    model, result = fit(tmp_path, resume=True)
    assert result.steps == 6
    assert same(weights(model), weights(fit(tmp_path / "other")[0]))


def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(UsageError, match="holds checkpoints of an earlier run"):
        fit(tmp_path)
    with pytest.raises(UsageError, match="batch_size 4, and now it is 8"):
        fit(tmp_path, resume=True, batch_size=8)
    with pytest.raises(UsageError, match="another optimiser"):
        fit(tmp_path, resume=True, optimiser="adamw", steps=8)
    frozen = Toy()
    frozen.conv.requires_grad_(False)
    with pytest.raises(UsageError, match="other parts frozen"):
        fit(tmp_path, frozen, resume=True)
    last = Checkpoints(tmp_path / "checkpoints", 2, {}).last()
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(UsageError, match=f"{last.name} cannot be read"):
        fit(tmp_path, resume=True)
    last.unlink()
    assert fit(tmp_path, resume=True)[1].steps == 6


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: Any, path: Path) -> None:
        if state["step"] == 4:
            raise OSError(28, "No space left on device")
        write(state, path)

    write = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        fit(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002.pth"]


def test_a_disk_that_fills_up_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: Any, path: Path) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 20776640 vs 20776528")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"cannot be written: the disk took a part of it only\. Is the disk full"):
        fit(tmp_path)


def test_progress_tells_steps_losses_and_validation(tmp_path: Path) -> None:
    said = Said()
    asked: list[int] = []

    def validation(step: int) -> dict[str, float]:
        asked.append(step)
        return {"AP": 12.5}

    fit(tmp_path, progress=said, log_every=3, options={"validation": validation, "validate_every": 4})
    assert said.tasks == [("training", 6, "steps")]
    assert said.done == 6
    assert asked == [4, 6]
    assert any(note.startswith("step 3/6: loss ") and "images/s" in note for note in said.notes)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/AP" in line] == [4, 6]
    assert {"loss", "loss_toy", "lr", "images_per_second"} < set(lines[0])
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_run_that_went_further_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    fit(tmp_path, steps=6)
    with pytest.raises(UsageError, match="has 6 steps behind it, more than the 4"):
        fit(tmp_path, resume=True, steps=4)
