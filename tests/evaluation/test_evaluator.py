"""Evaluation of a detector in memory; the detector is restored afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regionclip_cli.data.boxes import BoxFile, GivenBoxes
from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.evaluation.evaluator import measure
from regionclip_cli.evaluation.inference_config import choose_inference_config
from regionclip_cli.evaluation.metrics import score_detections
from regionclip_cli.evaluation.predictions import ImagePrediction, read_predictions
from regionclip_cli.evaluation.task import build_task
from regionclip_cli.inference.detector import Detector
from regionclip_cli.recipe.schema import EvaluateSection
from regionclip_cli.vision.crop_encoder import CropEncoder
from regionclip_cli.vision.proposals.static import GivenBoxes as GivenSource

KNOWN = EvaluateSection(boxes="ground-truth")
FOUND = EvaluateSection(boxes="proposals")


def pixels_of(image: Any) -> np.ndarray:
    return decode(image.read(), image.name)


def test_ground_truth_boxes_match_region_embeddings(loaded: Any, truth: DetectionSet, toy_path: Path) -> None:
    model, card, text = loaded
    measured = measure(model, truth, KNOWN, text=text, card=card)
    detector = Detector(toy_path, device="cpu")
    names = torch.nn.functional.normalize(text.encode(truth.classes), dim=-1)
    right, count = 0, 0
    found = {}
    for image in truth:
        regions = torch.nn.functional.normalize(detector.embed_regions(pixels_of(image), image.boxes), dim=-1)
        logits = torch.cat([regions @ names.T / 0.01, torch.zeros(len(regions), 1)], dim=1)
        probabilities = logits.softmax(dim=1)[:, :3]
        right += int((probabilities.argmax(dim=1).numpy() == image.labels).sum())
        count += len(image)
        # The boxes of the toy pictures do not overlap, so that suppression drops nothing.
        place, label = (probabilities > 0.001).nonzero(as_tuple=True)
        found[image.id] = (image.boxes[place], probabilities[place, label].numpy(), label.numpy())
    assert 0 < right < count
    assert measured.summary["top1"] == pytest.approx(100 * right / count)
    assert measured.summary["top5"] == 100
    expected = score_detections(truth, (ImagePrediction(key, *value) for key, value in found.items())).summary()
    assert {key: measured.summary[key] for key in expected} == pytest.approx(expected, abs=1e-3)
    assert (measured.summary["images"], measured.summary["objects"]) == (len(truth), count)
    assert measured.summary["seconds_per_image"] > 0


def test_detections_equal_those_of_the_detector(loaded: Any, truth: DetectionSet, toy_path: Path) -> None:
    model, card, text = loaded
    measured = measure(model, truth, FOUND, text=text, card=card)
    detector = Detector(toy_path, device="cpu").set_classes(truth.classes)
    found = [(image.id, detector.detect(pixels_of(image), conf=0.001)) for image in truth]
    expected = score_detections(
        truth, (ImagePrediction(number, each.boxes, each.scores, each.ids) for number, each in found)
    )
    assert measured.scores is not None
    assert np.array_equal(measured.scores.curves.precision, expected.curves.precision)
    assert {key: measured.summary[key] for key in expected.summary()} == expected.summary()
    assert 0 < measured.summary["AR@100"] <= measured.summary["AR@300"] <= measured.summary["AR@1000"] <= 100
    assert "top1" not in measured.summary


def test_crops_are_encoded_as_images(loaded: Any, truth: DetectionSet) -> None:
    model, card, text = loaded
    measured = measure(model, truth, KNOWN.model_copy(update={"crops": True}), text=text, card=card)
    names = torch.nn.functional.normalize(text.encode(truth.classes), dim=-1)
    crops, right = CropEncoder(model.backbone), 0
    with torch.no_grad():
        for image in truth:
            planes = torch.from_numpy(pixels_of(image).transpose(2, 0, 1).copy())
            guesses = (crops(planes, torch.from_numpy(image.boxes)) @ names.T).argmax(dim=1)
            right += int((guesses.numpy() == image.labels).sum())
    assert measured.summary["top1"] == pytest.approx(100 * right / measured.summary["objects"])
    found = measure(model, truth, FOUND.model_copy(update={"crops": True}), text=text, card=card)
    assert found.summary["AR@1000"] == measure(model, truth, FOUND, text=text, card=card).summary["AR@1000"]
    assert found.summary["AP"] is not None


def test_boxes_from_a_file(loaded: Any, truth: DetectionSet) -> None:
    model, card, text = loaded
    boxes = BoxFile(Path("boxes.json"), {image.name: GivenBoxes(image.boxes) for image in truth})
    settings = EvaluateSection(boxes="boxes.json")
    measured = measure(model, truth, settings, text=text, card=card, boxes=boxes)
    known = measure(model, truth, KNOWN, text=text, card=card)
    assert measured.summary["AP"] == pytest.approx(known.summary["AP"])
    assert measured.summary["AR@100"] == 100
    assert isinstance(model.proposals, torch.nn.Module)
    assert not isinstance(model.proposals, GivenSource)


def test_detector_is_restored(loaded: Any, truth: DetectionSet) -> None:
    model, card, text = loaded
    model.set_concepts(torch.randn(4, 16), torch.tensor([0, 1, 1, 2]), 2)
    model.set_scoring({"conf": 0.3, "max_proposals": 7})
    model.train()
    before = (model.scoring, model.proposals, model.classifier.concepts.clone(), model.classifier.num_classes)
    selection = dict(vars(model.proposals.selection))
    modes = [module.training for module in model.modules()]
    for settings in (KNOWN, FOUND, EvaluateSection(scoring="official")):
        measure(model, truth, settings, text=text, card=card)
        assert (model.scoring, model.proposals, model.classifier.num_classes) == (before[0], before[1], before[3])
        assert torch.equal(model.classifier.concepts, before[2])
        assert model.classifier.groups.tolist() == [0, 1, 1, 2]
        assert dict(vars(model.proposals.selection)) == selection
        assert [module.training for module in model.modules()] == modes
    assert not model.proposals._forward_hooks


def test_detector_is_restored_after_an_error(loaded: Any, truth: DetectionSet) -> None:
    class Stop(Exception):
        pass

    class Progress:
        def advance(self, done: int = 1) -> None:
            if self.task == "Evaluating":
                raise Stop

        def start(self, task: str, total: int | None, unit: str) -> None:
            self.task = task

        note = warn = finish = lambda self, *words: None

    model, card, text = loaded
    model.set_concepts(torch.ones(1, 16))
    model.train()
    scoring = model.scoring
    with pytest.raises(Stop):
        measure(model, truth, KNOWN, text=text, card=card, progress=Progress())
    assert model.training
    assert model.scoring == scoring
    assert model.classifier.num_classes == 1


def test_detector_without_text_encoder_keeps_its_classes(loaded: Any, truth: DetectionSet) -> None:
    model, card, text = loaded
    model.set_concepts(text.encode(truth.classes))
    told = measure(model, truth, KNOWN, text=text, card=card).summary
    own = measure(model, truth, KNOWN, card=card).summary
    assert own["AP"] == told["AP"]
    model.set_concepts(text.encode(truth.classes[:2]))
    with pytest.raises(UsageError, match=r"boxes\.json"):
        measure(model, truth, KNOWN, card=card)


def test_missing_proposal_network_is_an_error(loaded: Any, truth: DetectionSet) -> None:
    model, card, text = loaded
    model.proposals = GivenSource()
    with pytest.raises(MissingError, match="no proposal network") as told:
        measure(model, truth, FOUND, text=text, card=card)
    assert "ground-truth" in told.value.hint
    assert measure(model, truth, KNOWN, text=text, card=card).summary["AP"] is not None


def test_extra_names_compete_with_classes(loaded: Any, truth: DetectionSet) -> None:
    model, card, text = loaded
    plain = measure(model, truth, KNOWN, text=text, card=card)
    wide = measure(
        model, truth, KNOWN.model_copy(update={"vocabulary": "red,green,blue,red thing"}), text=text, card=card
    )
    assert wide.named is not None
    assert wide.named.confusion.shape == (3, 4)
    assert wide.summary["top1"] <= plain.summary["top1"]
    only = measure(model, truth, KNOWN.model_copy(update={"vocabulary": "red"}), text=text, card=card)
    assert only.summary["top1"] == 100
    assert only.task.truth.classes == ("red",)


def test_batch_size_changes_only_rounding(loaded: Any, truth: DetectionSet, tmp_path: Path) -> None:
    model, card, text = loaded
    for batch in (1, 3):
        settings = KNOWN.model_copy(update={"batch": batch})
        measure(model, truth, settings, text=text, card=card, folder=tmp_path / str(batch))
    one, three = ({line.image: line for line in read_predictions(tmp_path / each)} for each in ("1", "3"))
    assert one.keys() == three.keys() == truth.places_by_id.keys()
    for image, line in one.items():
        assert np.allclose(line.scores, three[image].scores, atol=1e-4)


@pytest.mark.parametrize(
    ("boxes", "style", "refines", "expected"),
    [
        ("ground-truth", "coco", False, ("none", 0.001, None, None, None, 100)),
        ("ground-truth", "lvis", True, ("none", 0.0001, None, None, None, 300)),
        ("proposals", "coco", False, ("logit", 0.001, None, 0.9, 1000, 100)),
        ("proposals", "lvis", False, ("logit", 0.02, None, 0.9, 1000, 300)),
        ("proposals", "coco", True, ("none", 0.001, "gaussian", 0.7, 1000, 100)),
        ("proposals", "lvis", True, ("logit", 0.02, "gaussian", 0.7, 1000, 300)),
    ],
)
def test_official_settings_equal_the_paper(
    truth: DetectionSet, boxes: str, style: Any, refines: bool, expected: tuple
) -> None:
    settings = EvaluateSection(boxes=boxes, scoring="official")
    task = build_task(truth, settings)
    task = replace(task, truth=replace(truth, style=style), max_dets=300 if style == "lvis" else 100)
    inference = choose_inference_config(settings, task, None, refines)
    s = inference.scoring
    assert (s.fusion, s.conf, s.soft, s.proposal_iou, s.max_proposals, s.max_dets) == expected
    assert (s.iou, s.nms, inference.short_side, inference.long_side) == (0.5, "class", 800, 1333)
    ours = choose_inference_config(EvaluateSection(boxes=boxes, conf=0.2, short_side=64), task, None, refines)
    assert (ours.scoring.fusion, ours.scoring.conf, ours.short_side) == ("sigmoid", 0.2, 64)
