"""Two processes that each see half of a batch learn what one process learns from all of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from pretraining_toys import ALL, batch, pretrainer, teacher
from several_processes import run_processes, saved

from regionclip_cli.vision.pretrainer import Objectives

GATHERED = replace(ALL, gather_regions=True)


def learn(folder: Path, objectives: Objectives, online: bool, mixed: bool = False) -> None:
    """Compute losses and gradients of this process's share of eight images, averaged as DDP does."""
    several = "RANK" in os.environ
    if several:
        dist.init_process_group("gloo")
    world, rank = (dist.get_world_size(), dist.get_rank()) if several else (1, 0)
    count = 8 // world
    model = pretrainer(objectives, teacher=teacher() if online else None)
    found = model(*batch(count, first=rank * count, mixed=mixed), mode="loss")
    total, values = model.parse_losses(found)
    total.backward()
    tensors = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    tensors |= {name: value.detach() for name, value in values.items() if "loss" in name}
    if several:
        for tensor in tensors.values():
            dist.all_reduce(tensor)
            tensor /= world
    if rank == 0:
        torch.save(tensors, folder / f"{world}.pth")
    if several:
        dist.destroy_process_group()


@pytest.mark.parametrize("mixed", [False, True], ids=["one-size", "mixed-sizes"])
@pytest.mark.parametrize("online", [False, True], ids=["labels", "teacher"])
def test_gathered_losses_and_gradients_equal_one_process(tmp_path: Path, online: bool, mixed: bool) -> None:
    learn(tmp_path, GATHERED, online, mixed)
    run_processes(2, learn, tmp_path, GATHERED, online, mixed)
    one, two = saved(tmp_path / "1.pth"), saved(tmp_path / "2.pth")
    assert one.keys() == two.keys()
    assert {"loss", "loss_distill", "loss_region_text", "loss_image_text"} < set(one)
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_without_gathering_all_but_the_region_contrast_equals_one_process(tmp_path: Path) -> None:
    objectives = replace(ALL, region_text=0.0)
    learn(tmp_path, objectives, False, True)
    run_processes(2, learn, tmp_path, objectives, False, True)
    one, two = saved(tmp_path / "1.pth"), saved(tmp_path / "2.pth")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-5)


def test_without_gathering_each_process_contrasts_its_own_regions(tmp_path: Path) -> None:
    run_processes(2, learn, tmp_path, ALL, False)
    two = saved(tmp_path / "2.pth")
    halves = [pretrainer()(*batch(4, first=first), mode="loss") for first in (0, 4)]
    for name in ("loss_distill", "loss_region_text"):
        torch.testing.assert_close(two[name], sum(half[name] for half in halves).detach() / 2, rtol=1e-5, atol=1e-5)
    whole = pretrainer()(*batch(8), mode="loss")
    assert abs(whole["loss_region_text"].item() - two["loss_region_text"].item()) > 1e-3
    torch.testing.assert_close(two["loss_image_text"], whole["loss_image_text"].detach(), rtol=1e-5, atol=1e-5)
