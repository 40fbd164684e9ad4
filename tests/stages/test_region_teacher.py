"""The teacher: which regions it sees, with which network, and how it names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_toys import NAMES, labelling, rows, write_bank
from PIL import Image
from toys import toy_clip, write_toy_model

from regionclip_cli.data.region_labels.format import RegionLabel
from regionclip_cli.data.resize import resize
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.recipe.schema import ModelSection, Recipe
from regionclip_cli.runs.progress import Silent
from regionclip_cli.runs.sharding import Share
from regionclip_cli.stages import label_teacher as teaching
from regionclip_cli.stages.label_plan import make_plan
from regionclip_cli.stages.label_shards import Reader
from regionclip_cli.stages.label_teacher import RegionTeacher, own_device
from regionclip_cli.stages.pseudolabel import run
from regionclip_cli.vision.backbones import build_backbone, build_clip
from regionclip_cli.vision.classifier import match_concepts
from regionclip_cli.vision.crop_encoder import CropEncoder
from regionclip_cli.vision.model_io import load_detector


def label(recipe: Recipe, *numbers: int) -> list[RegionLabel]:
    """Label images as one batch."""
    plan = make_plan(recipe, Share(), Silent())
    reader = Reader(plan)
    return RegionTeacher(plan).label([reader(number) for number in numbers], numbers)


def photo(number: int) -> np.ndarray:
    return np.array(Image.open(f"photos/{number}.png").convert("RGB"))


def expected(boxes: torch.Tensor, regions: torch.Tensor, min_score: float = 0.2) -> tuple[np.ndarray, ...]:
    """Return boxes, concepts and probabilities as the paper has it: softmax of the cosine over all concepts at 0.01."""
    probs, concepts = match_concepts(regions, ConceptBank.load(Path("bank.safetensors")).embeddings).topk(3, dim=1)
    passed = probs[:, 0] > min_score
    return boxes[passed].numpy(), concepts[passed].numpy(), probs[passed].numpy()


def assert_equal(found: RegionLabel, wanted: tuple[np.ndarray, ...]) -> None:
    assert len(found.boxes) == len(wanted[0]) > 0
    np.testing.assert_allclose(found.boxes, wanted[0], atol=1e-3)
    np.testing.assert_array_equal(found.concepts, wanted[1])
    np.testing.assert_allclose(found.probs, wanted[2], atol=1e-3)


@torch.no_grad()
def test_regions_are_named_by_softmax_over_all_concepts(work: Path, toy_teacher: Path) -> None:
    (found,) = label(labelling(toy_teacher, proposal_iou=0.3), 1)
    detector, _ = load_detector(toy_teacher)
    planes, (across, down) = resize(photo(1), 64, 96)
    detector.proposals.configure(nms_iou=0.3, max_proposals=12)
    features = detector.extract_feat(planes[None])
    from toys import image_sample

    proposals = detector.propose(planes[None], [image_sample(*planes.shape[1:])], features)[0]
    regions = detector.region_encoder(features, [proposals.boxes])
    assert_equal(found, expected(proposals.boxes / torch.tensor([across, down, across, down]), regions))
    np.testing.assert_allclose(found.objectness, proposals.logits.sigmoid().numpy()[: len(found.boxes)], atol=1e-4)


@torch.no_grad()
def test_crops_are_cut_from_the_original(work: Path, toy_teacher: Path) -> None:
    boxes = {"photos/1.png": [[3, 4, 40, 44], [20, 1, 63, 30], [0, 0, 64, 56]]}
    Path("boxes.json").write_text(json.dumps(boxes))
    recipe = labelling(toy_teacher, source="given", boxes="boxes.json", teacher_view="crop", min_score=0)
    (found,) = label(recipe, 1)
    given = torch.tensor(boxes["photos/1.png"], dtype=torch.float32)
    image = torch.from_numpy(photo(1)).permute(2, 0, 1)
    regions = CropEncoder(load_detector(toy_teacher)[0].backbone)(image, given)
    assert_equal(found, expected(given, regions, min_score=0))
    assert found.objectness is None


def test_given_boxes_with_scores_keep_them_and_the_best_come_first(work: Path, toy_teacher: Path) -> None:
    boxes = {"boxes": [[3, 4, 40, 44], [20, 1, 63, 30], [-5, 0, 64, 70]], "scores": [0.25, 0.125, 1.0]}
    Path("boxes.json").write_text(json.dumps({"1.png": boxes, "2.png": [[900, 900, 910, 910]]}))
    recipe = labelling(toy_teacher, source="given", boxes="boxes.json", min_score=0, regions=2)
    result = run(recipe)
    assert result.failed == 1
    found = rows()
    assert found[1]["objectness"] == [1.0, 0.25]
    assert found[1]["boxes"] == [[0.0, 0.0, 64.0, 56.0], [3.0, 4.0, 40.0, 44.0]]
    assert "lies outside the image" in found[2]["error"]
    assert found[0]["boxes"] == []
    Path("boxes.json").write_text(json.dumps({"1.png": boxes}))
    with pytest.raises(UsageError, match=r"settings\.boxes"):
        run(recipe, resume=True)


def test_random_boxes_are_each_images_own_and_the_seeds(work: Path, toy_teacher: Path) -> None:
    recipe = labelling(toy_teacher, source="random", min_score=0)
    together = label(recipe, 0, 3)  # two images of one size
    assert len(together[0].boxes) == 12
    assert together[0].size == together[1].size
    assert not np.array_equal(together[0].boxes, together[1].boxes)
    np.testing.assert_array_equal(label(recipe, 3)[0].boxes, together[1].boxes)
    other = label(recipe.model_copy(update={"seed": 1}), 3)[0]
    assert not np.array_equal(other.boxes, together[1].boxes)


def test_grid_boxes_are_the_first_so_many(work: Path, toy_teacher: Path) -> None:
    (found,) = label(labelling(toy_teacher, source="grid", min_score=0, regions=5), 0)
    assert found.boxes.tolist() == [
        *([0, 0, 64, 48], [0, 0, 32, 24], [32, 0, 64, 24], [0, 24, 32, 48], [32, 24, 64, 48]),
    ]


def test_what_does_not_pass_is_not_kept_and_nothing_depends_on_the_neighbours(work: Path, toy_teacher: Path) -> None:
    everything = label(labelling(toy_teacher, min_score=0), 0, 3)
    cut = float(np.median(np.concatenate([each.probs[:, 0] for each in everything])))
    some = label(labelling(toy_teacher, min_score=cut), 0, 3)
    assert 0 < sum(len(each.boxes) for each in some) < 24
    for full, kept in zip(everything, some, strict=True):
        np.testing.assert_array_equal(kept.boxes, full.boxes[full.probs[:, 0] > cut])
    none = label(labelling(toy_teacher, min_score=1), 0)[0]
    assert none.boxes.shape == (0, 4)
    assert none.concepts.shape == none.probs.shape == (0, 3)


def test_a_proposal_head_works_on_the_trunk_it_was_trained_with(work: Path, toy_teacher: Path) -> None:
    """Another model may find the regions; its own features find them, the teacher's name them."""
    finder = write_toy_model(work / "finder.safetensors", "resnet", seed=5)
    recipe = labelling(toy_teacher, min_score=0)
    both = recipe.model_copy(update={"model": ModelSection(start=str(toy_teacher), proposals=str(finder))})
    found = label(both, 0)[0]
    write_bank(work / "bank.safetensors", model="finder")
    alone = label(labelling(finder, min_score=0), 0)[0]
    np.testing.assert_array_equal(found.boxes, alone.boxes)
    assert not np.allclose(found.probs, alone.probs)
    given = {"photos/0.png": found.boxes.tolist()}
    Path("boxes.json").write_text(json.dumps(given))
    write_bank(work / "bank.safetensors")
    again = label(labelling(toy_teacher, source="given", boxes="boxes.json", min_score=0), 0)[0]
    np.testing.assert_allclose(again.probs, found.probs, atol=1e-3)


def test_the_recipes_own_bank_is_translated_for_another_teacher(work: Path, toy_teacher: Path) -> None:
    other = write_toy_model(work / "other.safetensors", "timm", seed=9)
    model = ModelSection(start=str(toy_teacher), teacher=str(other))
    Path("run").mkdir()
    write_bank(Path("run/concepts.safetensors"))
    own = labelling(toy_teacher, concept_bank=None).model_copy(update={"model": model})
    plan = make_plan(own, Share(), Silent())
    assert (plan.bank.model, plan.bank.names) == ("other", NAMES)
    assert not torch.equal(plan.bank.embeddings, ConceptBank.load(Path("run/concepts.safetensors")).embeddings)
    named = labelling(toy_teacher, concept_bank="run/concepts.safetensors").model_copy(update={"model": model})
    with pytest.raises(UsageError, match="made by the model 'toy' with 16 dimensions, not by 'other'"):
        make_plan(named, Share(), Silent())


def test_the_teacher_of_a_pretraining_checkpoint_is_asked(
    work: Path, toy_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = write_toy_model(
        work / "toy.safetensors", "timm", extra={"teacher.visual.x": torch.zeros(1)}, teacher="clip-rn50"
    )
    torch.manual_seed(3)
    tower = build_backbone("regionclip-tiny", toy_clip("timm")).eval()
    asked = []

    def load(path: Path, **options: Any) -> Any:
        asked.append(path)
        return tower

    monkeypatch.setattr(teaching, "load_teacher", load)
    found = label(labelling(student, min_score=0), 0)[0]
    assert asked == [student]
    plain = label(labelling(toy_teacher, min_score=0), 0)[0]
    np.testing.assert_array_equal(found.boxes, plain.boxes)
    assert not np.allclose(found.probs, plain.probs)


def test_a_model_without_text_can_still_teach_with_a_bank(work: Path) -> None:
    state = build_clip(toy_clip("timm")).state_dict()
    assert any(key.startswith("transformer") for key in state)
    model = write_toy_model(work / "toy.safetensors", "timm", parts=("visual", "proposals"))
    assert len(label(labelling(model, min_score=0), 0)[0].boxes) == 12
    Path("run").mkdir()
    write_bank(Path("run/concepts.safetensors"), model="start")
    start = write_toy_model(work / "start.safetensors", "timm")
    section = ModelSection(start=str(start), teacher=str(model))
    with pytest.raises(MissingError, match="text"):
        label(labelling(start, concept_bank=None).model_copy(update={"model": section}), 0)


def test_bfloat16(work: Path, toy_teacher: Path) -> None:
    exact = label(labelling(toy_teacher, source="grid", min_score=0), 0)[0]
    half = label(labelling(toy_teacher, source="grid", min_score=0, dtype="bf16"), 0)[0]
    assert half.probs.dtype == np.float32
    assert np.abs(half.probs - exact.probs).mean() < 0.2
    assert not np.array_equal(half.probs, exact.probs)


def test_processes_of_torchrun_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device("auto") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device("auto") == torch.device("cuda:1")
    assert own_device("cuda:0") == torch.device("cuda:0")
    assert own_device("cpu") == torch.device("cpu")
