"""Pretraining toys: from labels and with a teacher along; what is written, taken up again and refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_toys import NAMES, labelling, write_bank, write_captions
from listening import Listener
from safetensors.torch import load_file
from several_processes import run_processes
from toys import write_toy_model

from regionclip_cli.data.captions import open_pairs
from regionclip_cli.data.region_labels.store import RegionLabels
from regionclip_cli.errors import InputError, MissingError, UsageError
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.inference.detector import Detector
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.recipe.fields import checked
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.stages import pretrain, pseudolabel
from regionclip_cli.stages.pretrain import PretrainEstimate, PretrainResult
from regionclip_cli.training.image_text_dataset import RegionPairs

QUICK: dict[str, Any] = {
    "steps": 4,
    "batch_size": 4,
    "warmup_steps": 0,
    "lr": 0.01,
    "workers": 0,
    "checkpoint_every": 2,
    "log_every": 2,
    "regions": 6,
    "short_side": 64,
    "max_side": 96,
    "frozen_stages": 1,
    "teacher_mode": "labels",
    "concept_bank": "bank.safetensors",
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, photos, a bank and labels."""
    folder = tmp_path_factory.mktemp("pretraining")
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_captions(folder)
        write_bank(folder / "bank.safetensors")
        write_toy_model(folder / "toy.safetensors", "timm", conf=0.5)
        pseudolabel.run(labelling(Path("toy.safetensors"), out="made", min_score=0.0))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def work(toys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(toys)
    return toys


def recipe(out: Path | str, model: dict[str, str] | None = None, data: Any = None, **settings: Any) -> Recipe:
    return checked(
        Recipe,
        name="toy-2",
        out=str(out),
        device="cpu",
        model=model or {"start": "toy.safetensors"},
        data={"captions": data or {"dataset": "jsonl", "path": "captions.jsonl"}},
        pretrain={**QUICK, "labels": "made/labels", **settings},
    )


def trained(out: Path, resume: bool = False, **settings: Any) -> PretrainResult:
    result = pretrain.run(recipe(out, **settings), resume=resume)
    assert isinstance(result, PretrainResult)
    return result


def test_labels_teach_a_model_that_detects_at_once(work: Path, tmp_path: Path) -> None:
    result = trained(tmp_path)
    assert result.model == tmp_path / "pretrain" / "model.safetensors"
    assert result.steps == 4
    assert set(result.losses) == {"loss", "loss_region_text", "loss_distill", "loss_image_text", "regions"}
    before, after = load_file("toy.safetensors"), load_file(result.model)
    same = {key for key in before if torch.equal(before[key].float(), after[key].float())}
    assert {key for key in before if not key.startswith("clip.visual.")} <= same
    assert any(key.startswith("clip.visual.") for key in set(before) - same)
    assert all(after[key].dtype == torch.float32 for key in set(before) - same)
    card = read_card(result.model)
    assert (card.name, card.temperature, card.conf) == ("toy-2", 0.01, 0.5)
    assert "train-proposals" in card.notes
    found = Detector(result.model, device="cpu").set_classes(["red thing"]).detect("photos/0.png", conf=0.0)
    assert found.to_json()["detections"]
    assert card.text_model == "toy"
    assert Detector(result.model, device="cpu").set_bank("bank.safetensors").labels == tuple(NAMES)
    (book,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert (book["status"], book["counts"]) == ("finished", {"images": 7, "concepts": 6, "steps": 4})
    assert "The model is" in result.summary()
    json.dumps(result.to_json())


def test_a_run_is_taken_up_and_never_overwritten(work: Path, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", steps=2)
    with pytest.raises(UsageError, match="--resume"):
        trained(tmp_path / "parts")
    again = trained(tmp_path / "parts", resume=True)
    one, two = load_file(whole.model), load_file(again.model)
    assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(UsageError, match="lr"):
        trained(tmp_path / "parts", resume=True, lr=0.1)


def test_a_run_is_not_taken_up_with_another_bank_or_labels_in_the_same_place(work: Path, tmp_path: Path) -> None:
    bank, labels = tmp_path / "bank.safetensors", tmp_path / "labels"
    bank.write_bytes(Path("bank.safetensors").read_bytes())
    shutil.copytree("made/labels", labels)
    own: dict[str, Any] = {"concept_bank": str(bank), "labels": str(labels)}
    trained(tmp_path / "run", steps=2, **own)
    first = ConceptBank.load(bank)
    ConceptBank(first.names, first.embeddings.flip(1), first.model, first.templates).save(bank)
    with pytest.raises(UsageError, match=r"was trained with concepts \w+, and now it is \w+"):
        trained(tmp_path / "run", resume=True, **own)
    first.save(bank)
    manifest = json.loads((labels / "labels.json").read_text())
    (labels / "labels.json").write_text(json.dumps(manifest | {"data": "copied"}))
    assert trained(tmp_path / "run", resume=True, **own).steps == 4
    (labels / "labels.json").write_text(json.dumps(manifest | {"teacher": {"name": "another"}}))
    with pytest.raises(UsageError, match=r"was trained with labels \w+, and now it is \w+"):
        trained(tmp_path / "run", resume=True, **own)


def test_it_is_said_when_captions_have_nothing_to_compare_with(work: Path, tmp_path: Path) -> None:
    for accumulate, warned in ((2, False), (4, True)):
        said = Listener()
        pretrain.run(recipe(tmp_path / "none", steps=1, grad_accum_steps=accumulate), said, dry_run=True)
        assert any("The image-text loss" in text for text in said.warnings) is warned


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_a_teacher_runs_along(work: Path, tmp_path: Path, family: Any) -> None:
    teacher = tmp_path / "teacher.safetensors"
    write_toy_model(teacher, family, seed=4)
    said = Listener()
    made = recipe(
        tmp_path / "run",
        {"start": "toy.safetensors", "teacher": str(teacher)},
        teacher_mode="online",
        gather_regions=True,
        grad_accum_steps=2,
        ema_decay=0.9,
        amp="bf16",
        activation_checkpointing=True,
        channels_last=True,
    )
    result = pretrain.run(made, said)
    assert isinstance(result, PretrainResult)
    assert result.losses["loss_distill"] > 0
    assert 0 < result.losses["regions"] <= 6
    assert said.total == 4
    state = torch.load(result.checkpoint, weights_only=True)
    assert all(key.startswith(("student.", "teacher.")) for key in state["model"])
    assert not any(key.startswith("teacher.") and key.endswith("conv1.weight") for key in state["model"])


def test_a_dry_run_measures_and_writes_nothing(work: Path, tmp_path: Path) -> None:
    result = pretrain.run(recipe(tmp_path / "run", batch_size=8, steps=1000), dry_run=True)
    assert isinstance(result, PretrainEstimate)
    assert (result.images, result.concepts, result.timed_images) == (7, 6, 4)
    assert result.seconds == pytest.approx(8000 / result.images_per_second)
    assert result.memory > 2**24
    assert result.regions == pytest.approx(6, abs=1)
    assert "Measured over 2 steps of 4 images on cpu" in result.summary()
    assert json.loads(json.dumps(result.to_json()))["dry_run"] is True
    assert not (tmp_path / "run").exists()


def share(out: Path) -> None:
    said = Listener()
    result = pretrain.run(recipe(out, teacher_mode="online", gather_regions=True), said)
    assert isinstance(result, PretrainResult)
    silent = os.environ["RANK"] == "1"
    assert (result.model is None) == (result.plan == "") == (said.notes == []) == silent


def test_two_processes_write_one_model(work: Path, tmp_path: Path) -> None:
    run_processes(2, share, tmp_path / "run")
    assert read_card(tmp_path / "run/pretrain/model.safetensors").name == "toy-2"
    assert len((tmp_path / "run/pretrain/metrics.jsonl").read_text().splitlines()) == 2


def test_what_is_missing_or_does_not_fit_is_refused(work: Path, tmp_path: Path) -> None:
    def refused(kind: type[Exception], match: str, **settings: Any) -> None:
        with pytest.raises(kind, match=match):
            trained(tmp_path / "run", **settings)

    write_bank(tmp_path / "other.safetensors", model="someone")
    write_bank(tmp_path / "fewer.safetensors", names=NAMES[:3])
    write_toy_model(tmp_path / "blind.safetensors", "timm", proposals=False, name="toy")
    refused(MissingError, "nowhere.safetensors", concept_bank="nowhere.safetensors")
    refused(
        UsageError,
        "made by the model 'someone'.*Use the model 'someone'",
        concept_bank=str(tmp_path / "other.safetensors"),
    )
    refused(
        UsageError, "labels are of 6 concepts, and the bank has 3", concept_bank=str(tmp_path / "fewer.safetensors")
    )
    refused(MissingError, "no region labels", labels=str(tmp_path))
    refused(UsageError, "pretrain.losses", losses={"region_text": 0, "distill": 0, "image_text": 0})
    refused(UsageError, "stages cannot be frozen", frozen_stages=99)
    refused(
        MissingError, "no proposal network", model={"start": str(tmp_path / "blind.safetensors")}, teacher_mode="online"
    )
    refused(UsageError, "cannot be cut into 3", grad_accum_steps=3)
    with pytest.raises(UsageError, match="`pretrain`"):
        pretrain.run(Recipe(name="empty", out=str(tmp_path / "empty")))


def test_labels_of_other_images_are_passed_over_with_a_word(work: Path, tmp_path: Path) -> None:
    lines = Path("captions.jsonl").read_text().splitlines()
    new = json.dumps({"image": "photos/6.png", "key": "new", "captions": ["x"]})
    Path("more.jsonl").write_text("\n".join([*lines[:4], new]) + "\n")
    said = Listener()
    pretrain.run(recipe(tmp_path, data={"dataset": "jsonl", "path": "more.jsonl"}), said)
    assert any("created from other images" in warning for warning in said.warnings)
    assert any("new has no region labels" in warning for warning in said.warnings)


def test_what_is_drawn_of_an_image(work: Path) -> None:
    pairs = open_pairs(recipe("x").data.caption_sources())
    labels = RegionLabels.open("made/labels")
    data = RegionPairs(pairs, labels, regions=4, short_side=64, max_side=96, flip=0.5)
    drawn = [data.draw(2, seed) for seed in range(20)]
    assert all(torch.equal(a["inputs"], b["inputs"]) for a, b in [(data.draw(2, 3), drawn[3])])
    assert {item["data_samples"].caption for item in drawn} == set(pairs[2].captions)
    flips = {item["data_samples"].flip: item for item in drawn}
    assert set(flips) == {True, False}
    assert torch.equal(flips[True]["inputs"].flip(2), flips[False]["inputs"])
    label = labels.get(pairs[2].key)
    for item in drawn:
        sample = item["data_samples"]
        height, width = sample.img_shape
        assert item["inputs"].shape == (3, height, width)
        boxes = sample.regions.bboxes.copy()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        if sample.flip:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        original = boxes / np.array([*sample.scale_factor, *sample.scale_factor])
        distance = np.abs(original[:, None] - label.boxes[None]).max(axis=2)
        assert (distance.min(axis=1) < 0.01).all()
        assert np.array_equal(sample.regions.concepts, label.concepts[distance.argmin(axis=1)])
        assert len(sample.regions) == min(4, len(label.boxes))
    with pytest.raises(InputError, match="has no region labels"):
        RegionPairs(pairs, RegionLabelsOfNothing(), regions=4).draw(0, 0)  # type: ignore[arg-type]


class RegionLabelsOfNothing:
    """Knows no image."""

    def get(self, key: str) -> None:
        """Return nothing."""
