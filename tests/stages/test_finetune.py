"""Fine-tuning toys on drawn rectangles: what is checked first, what is learned, watched, written and taken up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from box_toys import write_shapes
from listening import Listener
from safetensors.torch import load_file
from toys import write_toy_model

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.inference.detector import Detector
from regionclip_cli.language.vocabularies import classes
from regionclip_cli.recipe.fields import checked
from regionclip_cli.recipe.schema import PretrainSection, Recipe
from regionclip_cli.stages.finetune import FinetuneResult, _say, run
from regionclip_cli.vision.model_io import load_detector

QUICK = {
    "steps": 4,
    "batch_size": 2,
    "warmup_steps": 0,
    "lr": 0.01,
    "milestones": (),
    "workers": 0,
    "checkpoint_every": 2,
    "log_every": 2,
    "regions": 16,
    "max_proposals": 20,
    "short_sides": (48, 64),
    "max_side": 128,
    "train_proposals": True,
    "evaluate_every": 2,
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> dict:
    """A model, and training and validation sets with masks."""
    folder = tmp_path_factory.mktemp("finetune")
    split = folder / "split.json"
    split.write_text(json.dumps({"base": ["red", "green"], "novel": ["blue"]}))
    return {
        "model": str(write_toy_model(folder / "toy.safetensors")),
        "train": write_shapes(folder / "train", images=6, masks=True),
        "val": write_shapes(folder / "val", images=4, seed=1),
        "split": str(split),
    }


def recipe(toys: dict, out: Path, val: bool = True, **settings: object) -> Recipe:
    return checked(
        Recipe,
        name="toy",
        out=str(out),
        device="cpu",
        model={"start": toys["model"]},
        data={"train": toys["train"], "val": toys["val"] if val else None},
        finetune={**QUICK, "split": toys["split"], **settings},
    )


@pytest.fixture(scope="module")
def finished(toys, tmp_path_factory):
    """One whole run."""
    out, notes = tmp_path_factory.mktemp("run") / "out", Listener()
    return run(recipe(toys, out), notes), out, notes


def test_base_novel_and_all_stand_side_by_side(finished):
    result, _, notes = finished
    assert [each["step"] for each in result.evaluations] == [0, 2, 4]
    assert all({"base", "novel", "all"} <= set(each) for each in result.evaluations)
    assert result.best_by == "AP50 of novel classes"
    assert result.best_step in (2, 4)
    best = max(result.evaluations[1:], key=lambda each: (each["novel"]["AP50"], each["all"]["AP50"]))
    assert result.best_step == best["step"]
    assert sum("AP50: base" in line for line in notes.notes) == 3
    header, rows = result.table()
    assert header[:3] == ("step", "base AP50", "base AP")
    assert [row[-1] for row in rows].count("best") == 1


def test_forgetting_is_told(finished):
    result, _, notes = finished
    assert set(result.recognition) == {"before", "after"}
    assert all(0 <= result.recognition["after"][group]["top1"] <= 100 for group in ("base", "novel", "all"))
    assert any("Top-1 accuracy on ground-truth boxes" in line for line in notes.notes)


def test_a_best_model_that_finds_novel_classes_worse_than_the_start_is_told():
    def measured(step: int, value: float | None) -> dict:
        return {"step": step, "base": {"AP50": 50.0}, "novel": {"AP50": value}, "all": {"AP50": 40.0}}

    for after, told in ((20.0, ["30.0 -> 20.0"]), (29.5, []), (None, [])):
        notes = Listener()
        evaluations = (measured(0, 30.0), measured(2, after), measured(4, 0.0))
        _say(FinetuneResult(Path("m"), "plan", best_step=2, evaluations=evaluations), notes)
        assert [line.partition("(")[2].rstrip(").") for line in notes.warnings] == told


def test_the_model_goes_straight_into_detect(finished, toys):
    result, out, _ = finished
    assert result.model == out / "finetune" / "model.safetensors"
    card = read_card(result.model)
    assert (card.name, card.text_model) == ("toy", read_card(Path(toys["model"])).name)
    assert card.classes == ("red", "green")
    assert set(card.parts) == {"visual", "text", "proposals", "box_head"}
    assert (card.short_side, card.max_side) == (64, 128)
    before, after = load_file(toys["model"]), load_file(result.model)
    changed = {key for key in after if key in before and not torch.equal(before[key].float(), after[key].float())}
    assert any(key.startswith("clip.visual.layer4") for key in changed)
    assert any(key.startswith("proposals.") for key in changed)
    assert not [
        key for key in changed if key.startswith(("clip.visual.conv", "clip.visual.layer1", "clip.transformer"))
    ]
    found = (
        Detector(result.model, device="cpu")
        .set_classes("blue,red")
        .detect(torch.zeros(3, 64, 96, dtype=torch.uint8), conf=0.0)
    )
    assert len(found.scores)
    assert not (out / "finetune" / "best.safetensors").exists()


def test_results_are_not_overwritten_and_a_finished_run_stays_as_it_is(finished, toys):
    result, out, _ = finished
    with pytest.raises(UsageError, match="--resume"):
        run(recipe(toys, out))
    content = result.model.read_bytes()
    again = run(recipe(toys, out), resume=True)
    assert again.steps == 4
    assert again.best_step == result.best_step
    assert result.model.read_bytes() == content


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(finished, toys, tmp_path):
    result, _, _ = finished
    run(recipe(toys, tmp_path / "out", steps=2))
    resumed = run(recipe(toys, tmp_path / "out"), resume=True)
    assert resumed.best_step == result.best_step
    assert resumed.evaluations == result.evaluations
    whole, cut = load_file(result.model), load_file(resumed.model)
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_a_blend_keeps_a_share_of_the_start(toys, tmp_path):
    common = {"val": False, "steps": 2, "evaluate_every": None, "train_proposals": True}
    files = [
        run(recipe(toys, tmp_path / str(share), ensemble_alpha=share, **common)).model for share in (0.0, 0.5, 1.0)
    ]
    tuned, half, none = (load_detector(file)[0].state_dict() for file in files)
    start = load_detector(Path(toys["model"]))[0].state_dict()
    key = "backbone.visual.layer4.0.conv2.weight"
    torch.testing.assert_close(none[key], start[key])
    torch.testing.assert_close(half[key], (tuned[key] + start[key]) / 2)
    assert not torch.equal(tuned[key], start[key])
    assert torch.equal(tuned["box_head.weight"], half["box_head.weight"])


def test_masks_a_learned_layer_rare_classes_and_the_federated_loss(toys, tmp_path):
    settings = {
        "split": None,
        "classifier": "linear",
        "mask_head": True,
        "sampler": "repeat-factor",
        "repeat_threshold": 1.0,
        "federated": True,
        "loss": "weighted",
        "background_weight": 0.8,
        "steps": 2,
    }
    result = run(recipe(toys, tmp_path / "out", **settings))
    assert {"loss_cls", "loss_bbox", "loss_mask", "loss_rpn_cls"} <= set(result.losses)
    assert result.best_by == "AP of all classes"
    assert set(result.recognition) == {"after"}
    card = read_card(result.model)
    assert (card.classifier, card.classes) == ("linear", ("red", "green", "blue"))
    assert {"mask_head", "classifier"} <= set(card.parts)
    detector, _ = load_detector(result.model, masks=True)
    assert detector.mask_head is not None
    assert detector.classifier.classes == ("red", "green", "blue")
    with pytest.raises(UsageError, match="'cat' is not one of the 3"):
        Detector(result.model, device="cpu").set_classes("cat")


def test_without_a_validation_set_the_last_weights_are_kept(toys, tmp_path):
    notes = Listener()
    result = run(recipe(toys, tmp_path / "out", val=False, steps=1, train_proposals=False), notes)
    assert result.best_step is None
    assert result.model.is_file()
    assert any("data.val" in line for line in notes.warnings)
    assert any("train_proposals: true" in line for line in notes.warnings)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"base": ["red", "gren"], "novel": ["blue"]}, r"no class 'gren'.*'green'"),
        ({"base": [], "novel": ["blue"]}, "no base class"),
    ],
)
def test_class_names_are_checked_before_anything_starts(toys, tmp_path, names, message):
    split = tmp_path / "mine.json"
    split.write_text(json.dumps(names))
    with pytest.raises(UsageError, match=message):
        run(recipe(toys, tmp_path / "out", split=str(split)), dry_run=True)
    assert not (tmp_path / "out").exists()


def test_a_base_class_of_a_split_that_the_file_lacks_is_an_error(toys, tmp_path):
    with pytest.raises(UsageError, match="has no class 'person'"):
        run(recipe(toys, tmp_path / "out", split="coco-48-17"), dry_run=True)


def test_batches_that_cannot_be_cut_are_told_before_anything_is_measured(toys, tmp_path):
    notes = Listener()
    with pytest.raises(UsageError, match="cannot be cut into 2 equal parts"):
        run(recipe(toys, tmp_path / "out", batch_size=3, grad_accum_steps=2), notes)
    assert not [line for line in notes.notes if "Before training" in line]


def test_wrong_entries_that_are_left_out_are_told(toys, tmp_path):
    data = write_shapes(tmp_path / "train")
    content = json.loads(Path(data.annotations).read_text())
    content["annotations"][0]["bbox"][3] = 0.0  # as a few in instances_train2017.json
    Path(data.annotations).write_text(json.dumps(content))
    with pytest.raises(UsageError, match="area is not above zero"):
        run(recipe({**toys, "train": data}, tmp_path / "out"), dry_run=True)
    notes, lenient = Listener(), data.model_copy(update={"lenient": True})
    run(recipe({**toys, "train": lenient}, tmp_path / "out"), notes, dry_run=True)
    [told] = notes.warnings
    assert told.startswith("boxes.json: 1 wrong entry was left out: annotations[0] (id 1) has the bbox")


def test_a_class_that_the_validation_set_spells_otherwise_is_told(toys, tmp_path):
    base, novel = (tuple(label for label, _ in classes(f"coco-{part}")) for part in ("base", "novel"))
    train = write_shapes(tmp_path / "train", classes=("red", *base[1:]))
    val = write_shapes(tmp_path / "val", classes=("red", *base[1:], *novel[:-1], novel[-1] + "s"))
    for path in (Path(train.annotations), Path(val.annotations)):
        path.write_text(path.read_text().replace('"red"', json.dumps(base[0])))
    notes = Listener()
    run(recipe({**toys, "train": train, "val": val}, tmp_path / "out", split="coco-48-17"), notes, dry_run=True)
    assert any(f"Perhaps {novel[-1]!r} is {novel[-1] + 's'!r} there?" in line for line in notes.warnings)


def test_a_start_that_is_not_pretrained_yet_is_told(toys, tmp_path):
    chosen = recipe(toys, tmp_path / "out").model_copy(update={"pretrain": PretrainSection()})
    notes = Listener()
    run(chosen, notes, dry_run=True)
    assert [line for line in notes.warnings if "pretrain/model.safetensors yet" in line]


def test_what_does_not_fit_together_is_told(toys, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="novel"):
        run(recipe(toys, out, classifier="linear"), dry_run=True)
    without = write_shapes(tmp_path / "boxes")
    with pytest.raises(UsageError, match="masks"):
        run(recipe({**toys, "train": without}, out, mask_head=True), dry_run=True)
    bare = str(write_toy_model(tmp_path / "bare.safetensors", proposals=False))
    with pytest.raises(MissingError, match="no proposal network"):
        run(recipe({**toys, "model": bare}, out), dry_run=True)
    with pytest.raises(UsageError, match="data: train"):
        run(_without_data(toys, out))
    with pytest.raises(UsageError, match="short_sides needs one length"):
        run(recipe(toys, out, short_sides=()), dry_run=True)
    told = run(recipe(toys, out), dry_run=True)
    assert told.model is None
    assert "4 steps of 2 images from toy.safetensors" in told.summary()
    assert str(out / "finetune" / "model.safetensors") in told.summary()
    assert "Measured over 2 steps of 2 images on cpu" in told.summary()
    assert not out.exists()


def _without_data(toys: dict, out: Path) -> Recipe:
    return checked(Recipe, name="toy", out=str(out), model={"start": toys["model"]}, finetune=QUICK)
