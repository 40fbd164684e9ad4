"""Training proposal networks on drawn rectangles, and using what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from box_toys import write_shapes
from listening import Listener
from toys import write_toy_model

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.inference.detector import Detector
from regionclip_cli.recipe.fields import checked
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.stages import finetune
from regionclip_cli.stages.train_proposals import run

QUICK = {
    "steps": 2,
    "batch_size": 2,
    "warmup_steps": 0,
    "lr": 0.01,
    "milestones": (),
    "workers": 0,
    "short_sides": (64,),
    "max_side": 128,
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("proposals")
    split = folder / "split.json"
    split.write_text(json.dumps({"base": ["red", "green"], "novel": ["blue"]}))
    return {
        "model": str(write_toy_model(folder / "toy.safetensors")),
        "train": write_shapes(folder / "train", images=5),
        "val": write_shapes(folder / "val", images=4, seed=1),
        "split": str(split),
    }


def recipe(toys: dict, out: Path, **settings: object) -> Recipe:
    return checked(
        Recipe,
        name="boxes",
        out=str(out),
        device="cpu",
        model={"start": toys["model"]},
        data={"train": toys["train"], "val": toys["val"]},
        proposals={**QUICK, "split": toys["split"], **settings},
    )


def test_a_network_of_its_own_serves_other_models(toys, tmp_path):
    from torchvision.models import resnet50

    torch.save(resnet50(weights=None).state_dict(), tmp_path / "resnet50.pth")
    made = run(recipe(toys, tmp_path / "out", network="rpn-c4", init=str(tmp_path / "resnet50.pth"), steps=1))
    card = read_card(made.model)
    assert card.kind == "proposals"
    assert card.proposals == {"type": "rpn-c4", "style": "pytorch"}
    assert set(made.recall) == {"base", "novel", "all"}
    assert set(made.recall["all"]) == {"AR@100", "AR@300", "AR@1000"}
    detector = Detector(toys["model"], device="cpu", proposals=made.model).set_classes("red")
    assert len(detector.detect(torch.zeros(3, 64, 96, dtype=torch.uint8), conf=0.0).scores)
    with pytest.raises(UsageError, match="--resume"):
        run(recipe(toys, tmp_path / "out", network="rpn-c4"))


def test_random_weights_are_said_to_be_random(toys, tmp_path):
    class Warnings:
        said: list[str] = []  # noqa: RUF012

        def __getattr__(self, name):
            return lambda *words, **_: self.said.append(words[0]) if name == "warn" else None

    run(recipe(toys, tmp_path / "out", network="rpn-c4", steps=1, jitter=(0.5, 1.5), canvas=64), Warnings())
    assert any("randomly" in line for line in Warnings.said)


def test_a_head_on_a_trunk_learns_to_find_and_is_fine_tuned_from(toys, tmp_path):
    chosen = recipe(toys, tmp_path / "out", network="rpn-trunk", steps=150, batch_size=4, lr=0.1)
    made = run(chosen)
    assert read_card(made.model).kind == "detector"
    assert made.losses["loss_rpn_cls"] < 0.5
    few = run(recipe(toys, tmp_path / "few", network="rpn-trunk", steps=1))
    assert made.recall["all"]["AR@100"] > few.recall["all"]["AR@100"] + 10
    after = finetune.run(
        checked(
            Recipe,
            **chosen.model_dump() | {"finetune": {**QUICK, "split": toys["split"], "train_proposals": True}},
        ),
        dry_run=True,
    )
    assert "from model.safetensors" in after.plan


def test_wrong_entries_are_told_here_too(toys, tmp_path):
    data = write_shapes(tmp_path / "train")
    content = json.loads(Path(data.annotations).read_text())
    content["annotations"][0]["bbox"][3] = 0.0
    Path(data.annotations).write_text(json.dumps(content))

    listener = Listener()
    changed = {**toys, "train": data.model_copy(update={"lenient": True})}
    run(recipe(changed, tmp_path / "out", network="rpn-trunk"), listener, dry_run=True)
    assert "1 wrong entry was left out: annotations[0]" in listener.warnings[0]


def test_what_cannot_be_is_told(toys, tmp_path):
    with pytest.raises(UsageError, match="ResNet"):
        run(recipe(toys, tmp_path / "a", network="rpn-trunk", init="resnet50.pth"))
    with pytest.raises(UsageError, match="jitter needs two factors"):
        run(recipe(toys, tmp_path / "a", network="rpn-c4", jitter=(2.0, 1.0)), dry_run=True)
    with pytest.raises(MissingError, match=r"nowhere\.pth"):
        run(recipe(toys, tmp_path / "a", network="rpn-c4", init="nowhere.pth"), dry_run=True)
    told = run(recipe(toys, tmp_path / "b", network="rpn-trunk"), dry_run=True)
    assert "rpn-trunk on toy.safetensors: 2 steps of 2 images" in told.summary()
    assert "Measured over 2 steps of 2 images on cpu" in told.summary()
    assert not (tmp_path / "b").exists()


def test_a_pyramid_on_a_trunk_learns_to_find(toys, tmp_path):
    chosen = recipe(
        toys, tmp_path / "out", network="fpn-trunk", steps=100, batch_size=4, optimiser="adamw", schedule="cosine"
    )
    made = run(chosen)
    card = read_card(made.model)
    assert card.kind == "detector"
    assert card.proposals["type"] == "fpn-trunk"
    few = run(recipe(toys, tmp_path / "few", network="fpn-trunk", steps=1))
    assert made.losses["loss_proposal_box"] < 0.7 * few.losses["loss_proposal_box"]
    assert set(made.recall["all"]) == {"AR@100", "AR@300", "AR@1000"}


def test_a_trunk_that_learns_along_is_lent_with_its_head(toys, tmp_path):
    made = run(
        recipe(toys, tmp_path / "out", network="fpn-trunk", learn_trunk=True, frozen_stages=1, optimiser="adamw")
    )
    card = read_card(made.model)
    assert card.kind == "proposals"
    assert card.proposals["type"] == "own-trunk"
    detector = Detector(toys["model"], device="cpu", proposals=made.model).set_classes("red")
    assert len(detector.detect(torch.zeros(3, 64, 96, dtype=torch.uint8), conf=0.0).scores)
    with pytest.raises(UsageError):
        run(recipe(toys, tmp_path / "b", network="rpn-c4", learn_trunk=True))
