"""The transfer recipes say what the paper's official configurations say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regionclip_cli.data.scenes import SCENE_CLASSES
from regionclip_cli.data.splits import read_split
from regionclip_cli.recipe.loader import load_recipe


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("COCO", "LVIS", "RESNET50"):
        monkeypatch.setenv(variable, f"/data/{variable}")


@pytest.mark.parametrize(
    ("name", "model", "proposals", "split", "steps", "milestones"),
    [
        ("finetune-ov-coco", "regionclip-rn50", "rpn-coco-48", "coco-48-17", 90_000, (60_000, 80_000)),
        ("finetune-ov-coco-rn50x4", "regionclip-rn50x4", "rpn-coco-48", "coco-48-17", 90_000, (60_000, 80_000)),
        ("finetune-ov-lvis", "regionclip-rn50", "rpn-lvis-866-lsj", "lvis-rare", 180_000, (120_000, 160_000)),
        ("finetune-coco80", "regionclip-rn50", "rpn-coco-80", None, 90_000, (60_000, 80_000)),
    ],
)
def test_the_numbers_of_the_transfer(name, model, proposals, split, steps, milestones):
    recipe = load_recipe(name)
    settings = recipe.finetune
    assert (recipe.model.start, recipe.model.proposals, settings.split) == (model, proposals, split)
    assert (settings.steps, settings.milestones, settings.warmup_steps) == (steps, milestones, 5000)
    assert (settings.batch_size, settings.lr, settings.momentum, settings.weight_decay) == (16, 0.002, 0.9, 1e-4)
    assert (settings.optimiser, settings.clip_norm, settings.frozen_stages) == ("sgd", None, 2)
    assert (settings.regions, settings.foreground, settings.iou) == (512, 0.25, 0.5)
    assert (settings.max_proposals, settings.proposal_iou, settings.train_proposals) == (1000, 0.7, False)
    assert (settings.short_sides, settings.max_side, settings.flip) == ((640, 672, 704, 736, 768, 800), 1333, 0.5)
    assert (settings.classifier, settings.box_head, settings.scoring) == ("text", True, "official")


@pytest.mark.parametrize(
    ("name", "loss", "gamma", "background", "sampler", "mask"),
    [
        ("finetune-ov-coco", "focal", 0.5, 0.2, "uniform", False),
        ("finetune-ov-lvis", "weighted", 0.5, 0.8, "repeat-factor", True),
        ("finetune-coco80", "weighted", 0.5, 1.0, "uniform", False),
    ],
)
def test_the_losses_of_the_transfer(name, loss, gamma, background, sampler, mask):
    settings = load_recipe(name).finetune
    assert (settings.loss, settings.gamma, settings.background_weight) == (loss, gamma, background)
    assert (settings.sampler, settings.mask_head, settings.repeat_threshold) == (sampler, mask, 0.001)
    assert not settings.federated


def test_the_numbers_of_the_proposal_network():
    settings = load_recipe("train-rpn").proposals
    assert (settings.network, settings.split, settings.frozen_stages) == ("rpn-c4", "coco-48-17", 2)
    assert (settings.batch_size, settings.lr, settings.steps) == (16, 0.02, 90_000)
    assert (settings.milestones, settings.warmup_steps) == ((60_000, 80_000), 1000)


@pytest.mark.parametrize("name", ["finetune-ov-coco", "finetune-ov-coco-rn50x4", "finetune-coco80", "train-rpn"])
def test_boxes_without_height_in_cocos_training_file_stop_nothing(name):
    data = load_recipe(name).data
    assert (data.train.lenient, data.val.lenient) == (True, False)


def test_the_small_recipe_keeps_pairs_of_known_words_apart():
    recipe = load_recipe("finetune-tiny")
    split = read_split(recipe.finetune.split, SCENE_CLASSES)
    assert {*split.base, *split.novel} == set(SCENE_CLASSES)
    for part in (0, 1):  # colours, shapes
        assert {name.split()[part] for name in split.novel} <= {name.split()[part] for name in split.base}
    assert json.loads(Path(recipe.finetune.split).read_text())["novel"]
