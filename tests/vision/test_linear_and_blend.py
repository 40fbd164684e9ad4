"""A learned layer over a closed set of classes, and weights between two models."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData
from toys import DIM, build_detector, image_sample, write_toy_model

from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.inference.detector import Detector
from regionclip_cli.training.weight_ensembling import blended
from regionclip_cli.vision.linear_classifier import LinearClassifier
from regionclip_cli.vision.model_io import detector_tensors, load_detector

CLASSES = ("cat", "Kettle", "ball")


def test_probabilities_are_of_the_chosen_classes_among_all():
    classifier = LinearClassifier(CLASSES, 4, initial_deviation=1.0)
    regions = torch.randn(5, 4)
    logits = classifier(regions)
    assert logits.shape == (5, 4)
    everything = logits.softmax(dim=1)
    classifier.choose(["ball", "CAT"])
    assert classifier.num_classes == 2
    torch.testing.assert_close(classifier.probabilities(regions), everything[:, [2, 0]])


def test_no_other_word_can_be_asked_for():
    classifier = LinearClassifier(CLASSES, 4)
    with pytest.raises(UsageError, match=r"'ketle' is not one of the 3 classes.*Did you mean 'Kettle'.*cannot read"):
        classifier.choose(["ketle"])
    with pytest.raises(UsageError, match="takes no embeddings"):
        classifier.set_concepts(torch.zeros(2, 4))


def test_a_detector_trains_it():
    detector = build_detector().train()
    detector.classifier = LinearClassifier(CLASSES, DIM)
    sample = image_sample(64, 96)
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[5.0, 5.0, 40.0, 40.0]]), labels=torch.tensor([2]))
    detector.parse_losses(detector(torch.rand(1, 3, 64, 96) * 255, [sample], mode="loss"))[0].backward()
    assert detector.classifier.weight.grad.abs().sum() > 0


def test_it_travels_in_the_model_file_and_detects_its_own_classes(tmp_path):
    start = write_toy_model(tmp_path / "start.safetensors")
    detector, card = load_detector(start)
    detector.classifier = LinearClassifier(CLASSES, DIM, initial_deviation=1.0)
    path = write_model(
        tmp_path / "closed.safetensors",
        card.model_copy(update={"name": "closed", "classifier": "linear", "classes": CLASSES}),
        detector_tensors(detector),
    )
    assert read_card(path).classes == CLASSES
    loaded, _ = load_detector(path)
    assert torch.equal(loaded.classifier.weight, detector.classifier.weight)

    ready = Detector(path, device="cpu").set_classes("kettle,cat")
    found = ready.detect(torch.zeros(3, 64, 96, dtype=torch.uint8), conf=0.0)
    assert set(found.labels) <= {"kettle", "cat"}
    with pytest.raises(UsageError, match="'dog' is not one of the 3"):
        ready.set_classes("dog")
    with pytest.raises(UsageError, match="takes no distractors"):
        ready.set_classes("cat", "dog")


def test_a_blend_lies_between_the_models_and_is_undone():
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(5.0)
    start = {"weight": torch.zeros(1, 1), "other": torch.zeros(3)}
    with blended(model, start, 0.25):
        assert model.weight.item() == pytest.approx(1.5)
        assert model.bias.item() == 5
    assert model.weight.item() == 2
    with blended(model, start, 0.0):
        assert model.weight.item() == 2
    with blended(model, start, 1.0):
        assert model.weight.item() == 0
    assert model.weight.item() == 2
