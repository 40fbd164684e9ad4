"""The Python API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import draw_shapes, write_toy_model

from regionclip_cli import Detector
from regionclip_cli.errors import InputError, MissingError, UsageError
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.results.detections import ImageDetections

PICTURE, BOXES, _ = draw_shapes(0)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return Detector(write_toy_model(tmp_path_factory.mktemp("model") / "toy.safetensors", conf=0.01), device="cpu")


@pytest.fixture(autouse=True)
def _classes(detector: Detector) -> None:
    detector.set_classes(["cat", "dog"])


def same(one: ImageDetections, other: ImageDetections) -> bool:
    return {**one.to_json(), "image": ""} == {**other.to_json(), "image": ""}


def test_it_finds_boxes_inside_the_image_best_first(detector: Detector) -> None:
    found = detector.detect(PICTURE)
    assert len(found) > 1
    assert (found.width, found.height) == (96, 64)
    assert set(found.labels) <= {"cat", "dog"}
    assert [("cat", "dog")[index] for index in found.ids] == list(found.labels)
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes.min() >= 0
    assert found.boxes[:, [0, 2]].max() <= 96
    assert found.boxes[:, [1, 3]].max() <= 64
    assert ((found.scores > 0.01) & (found.scores <= 1)).all()


def test_every_form_of_an_image_gives_the_same(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(PICTURE).save(path)
    first, *others = detector.detect([PICTURE, path, Image.open(path), torch.from_numpy(PICTURE).permute(2, 0, 1)])
    assert all(same(first, other) for other in others)
    assert first.image == "image-1"
    assert detector.detect([]) == []


def test_classes_can_be_told_in_every_way(detector: Detector) -> None:
    assert detector.set_classes("cat, kettle=pot|can").labels == ("cat", "kettle")
    assert detector.set_classes({"cat": "cat", "kettle": ["pot", "can"]}).labels == ("cat", "kettle")
    assert len(detector.set_classes("@coco").labels) == 80
    assert detector.set_classes(["cat"], distractors=["dog", "bird"]).detect(PICTURE).labels.count("dog") == 0
    with pytest.raises(UsageError, match="No class"):
        detector.set_classes([])


def test_a_distractor_takes_its_share(detector: Detector) -> None:
    alone = detector.set_classes(["cat"]).detect(PICTURE, boxes=BOXES, conf=0, nms="off").scores
    against = detector.set_classes(["cat"], ["dog"]).detect(PICTURE, boxes=BOXES, conf=0, nms="off").scores
    assert len(against) == len(alone) == len(BOXES)
    assert (against < alone).all()


def test_options_do_what_they_say(detector: Detector) -> None:
    everything = detector.detect(PICTURE, conf=0, nms="off", max_dets=1000)
    assert len(detector.detect(PICTURE, conf=0, nms="off", max_dets=3)) == 3
    middle = float(np.median(everything.scores))
    assert (detector.detect(PICTURE, conf=middle, nms="off").scores > middle).all()
    assert len(detector.detect(PICTURE, conf=0, max_dets=1000)) < len(everything)
    assert len(detector.detect(PICTURE, conf=0, nms="agnostic", max_dets=1000)) < len(
        detector.detect(PICTURE, conf=0, nms="class", max_dets=1000)
    )
    assert len(detector.detect(PICTURE, conf=0, iou=0.9, max_dets=1000)) > len(
        detector.detect(PICTURE, conf=0, iou=0.1, max_dets=1000)
    )
    with pytest.raises(UsageError, match=r"no test-time setting 'max_det'\. Did you mean 'max_dets'"):
        detector.detect(PICTURE, max_det=3)
    with pytest.raises(UsageError, match="Unknown scoring"):
        detector.detect(PICTURE, scoring="best")


def test_settings_come_from_the_flag_then_the_card_then_the_preset(detector: Detector) -> None:
    own = detector.decide()
    assert (own.scoring.conf, own.scoring.fusion, own.short_side, own.long_side) == (0.01, "sigmoid", 64, 128)
    official = detector.decide(scoring="official")
    assert (official.scoring.conf, official.scoring.fusion) == (0.001, "logit")
    assert (official.scoring.proposal_iou, official.scoring.max_proposals) == (0.9, 1000)
    given = detector.decide(scoring="official", conf=0.5, short_side=0, iou=None)
    assert (given.scoring.conf, given.short_side, given.scoring.iou) == (0.5, 0, 0.5)


def test_the_scoring_of_one_call_does_not_stay(detector: Detector) -> None:
    before = detector.detect(PICTURE)
    detector.detect(PICTURE, scoring="official")
    detector.detect(PICTURE, boxes=BOXES)
    assert same(detector.detect(PICTURE), before)


def test_short_side_changes_what_the_network_sees_and_not_the_pixels_of_boxes(detector: Detector) -> None:
    small = detector.detect(PICTURE, boxes=BOXES, nms="off", conf=0, short_side=32)
    large = detector.detect(PICTURE, boxes=BOXES, nms="off", conf=0, short_side=128)
    assert not np.allclose(small.scores, large.scores)
    for found in (small, large):
        assert np.allclose(sorted(found.boxes.tolist()), sorted(np.repeat(BOXES, 2, 0).tolist()), atol=1e-3)


def test_given_boxes_are_named(detector: Detector) -> None:
    found = detector.detect([PICTURE, PICTURE], boxes=[BOXES, np.zeros((0, 4))], conf=0, nms="off")
    assert len(found[0]) == 2 * len(BOXES)
    assert len(found[1]) == 0
    with pytest.raises(UsageError, match="boxes for each of them"):
        detector.detect([PICTURE, PICTURE], boxes=[BOXES])
    with pytest.raises(UsageError, match="must be finite numbers of the shape"):
        detector.detect(PICTURE, boxes=[1, 2, 3])
    with pytest.raises(UsageError, match="a box is empty"):
        detector.detect(PICTURE, boxes=[[5, 5, 5, 9]])
    with pytest.raises(InputError, match="outside the image of 96 x 64"):
        detector.detect(PICTURE, boxes=[[200, 0, 300, 9]])


def test_a_bank_does_what_its_words_do(detector: Detector, tmp_path: Path) -> None:
    by_words = detector.detect(PICTURE)
    encoder = detector._engine.encoder
    ConceptBank(("cat", "dog"), encoder.encode(["cat", "dog"]), "toy", "plain").save(tmp_path / "bank.safetensors")
    assert same(detector.set_bank(tmp_path / "bank.safetensors").detect(PICTURE), by_words)
    with pytest.raises(UsageError, match="made by the model 'other'"):
        detector.set_bank(ConceptBank(("cat",), encoder.encode(["cat"]), "other", "plain"))
    assert detector.set_bank(tmp_path / "bank.safetensors", ["bird"]).labels == ("cat", "dog")


def test_regions_can_be_embedded(detector: Detector) -> None:
    embeddings = detector.embed_regions(PICTURE, BOXES)
    assert embeddings.shape == (len(BOXES), 16)
    assert embeddings.dtype == torch.float32
    words = torch.nn.functional.normalize(detector._engine.encoder.encode(["cat"]), dim=-1)
    cosine = torch.nn.functional.normalize(embeddings, dim=-1) @ words.T
    expected = torch.sigmoid(cosine[:, 0] / detector.card.temperature)  # softmax against the zero background
    found = detector.set_classes(["cat"]).detect(PICTURE, boxes=BOXES, conf=0, nms="off")
    assert np.allclose(sorted(found.scores), sorted(expected.tolist()), atol=1e-4)


def test_without_classes_or_proposals_it_says_so(tmp_path: Path) -> None:
    path = write_toy_model(tmp_path / "bare.safetensors", proposals=False)
    bare = Detector(path, device="cpu")
    with pytest.raises(UsageError, match="Call set_classes first"):
        bare.detect(PICTURE)
    bare.set_classes(["cat"])
    assert len(bare.detect(PICTURE, boxes=BOXES, conf=0)) > 0
    with pytest.raises(MissingError, match="no proposal network"):
        bare.detect(PICTURE)
    with pytest.raises(MissingError, match="'nothing'"):
        Detector("nothing")


def test_half_precision_finds_nearly_the_same(detector: Detector) -> None:
    half = Detector(detector.path, device="cpu", dtype="bf16").set_classes(["cat", "dog"])
    one = detector.detect(PICTURE, boxes=BOXES, conf=0, nms="off")
    other = half.detect(PICTURE, boxes=BOXES, conf=0, nms="off")
    assert half._engine.model.backbone.visual.conv1.weight.dtype == torch.bfloat16
    assert np.abs(np.sort(one.scores) - np.sort(other.scores)).max() < 0.25
