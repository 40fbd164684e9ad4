"""The detector end to end on toy networks: what goes in, what comes out, and what can change between two images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.structures import InstanceData
from toys import DIM, build_detector, detector_config, draw_shapes, image_sample, toy_proposals

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.scoring import SCORINGS, Scoring, as_scoring
from regionclip_cli.registry import MODELS
from regionclip_cli.vision.detector import OpenVocabularyDetector


def given(sample_, boxes) -> DetDataSample:
    sample_.proposals = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32))
    return sample_


def picture(seed=0, height=64, width=96) -> torch.Tensor:
    return torch.from_numpy(draw_shapes(seed, height, width)[0]).permute(2, 0, 1)


def step(detector, images, samples) -> list[DetDataSample]:
    return detector.test_step({"inputs": list(images), "data_samples": list(samples)})


@pytest.mark.parametrize("family", ["resnet", "timm", "vit"])
def test_every_family_detects(family):
    detector = build_detector(family)
    found = step(detector, [picture(0), picture(1, 80, 64)], [image_sample(64, 96), image_sample(80, 64)])
    assert len(found) == 2
    for each, (height, width) in zip(found, [(64, 96), (80, 64)], strict=True):
        instances = each.pred_instances
        assert 0 < len(instances) <= 100
        assert instances.bboxes.dtype == instances.scores.dtype == torch.float32
        assert instances.labels.dtype == torch.int64
        assert (instances.scores[:-1] >= instances.scores[1:]).all()
        assert set(instances.labels.tolist()) <= {0, 1, 2}
        assert (instances.bboxes >= 0).all()
        assert (instances.bboxes <= torch.tensor([width, height, width, height])).all()
        assert 0 <= instances.scores.min() <= instances.scores.max() <= 1


def test_a_config_builds_it_from_our_registry_and_from_mmengines():
    for registry in (MODELS, MMENGINE_MODELS):
        cfg = detector_config(test_cfg="official", freeze=2)
        detector = registry.build(cfg)
        assert isinstance(detector, OpenVocabularyDetector)
        assert detector.scoring is SCORINGS["official"]
        assert not any(p.requires_grad for p in detector.backbone.visual.layer1.parameters())
        assert cfg == detector_config(test_cfg="official", freeze=2)


def test_boxes_return_to_the_pixels_of_the_original_image():
    boxes = [[8.0, 8.0, 40.0, 32.0], [-50.0, 20.0, 500.0, 60.0]]
    detector = build_detector(proposals={"type": "given"}, test_cfg={"nms": "off", "conf": -1.0})
    same = step(detector, [picture()], [given(image_sample(64, 96), boxes)])[0].pred_instances
    enlarged = given(image_sample(64, 96, scale_factor=(2.0, 0.5), ori_shape=(128, 48)), boxes)
    mapped = step(detector, [picture()], [enlarged])[0].pred_instances
    assert torch.equal(same.proposals, mapped.proposals)
    torch.testing.assert_close(mapped.bboxes, same.bboxes * torch.tensor([0.5, 2.0, 0.5, 2.0]))
    assert same.bboxes[same.proposals == 1][0].tolist() == [0, 20, 96, 60]


def test_what_lies_outside_img_shape_is_cut_off():
    detector = build_detector()
    filled = torch.full((1, 3, 96, 96), 255.0)
    filled[:, :, :64, :80] = picture(0, 64, 80)
    (padded,) = detector.extract_feat(filled, [image_sample(64, 80)])
    (alone,) = detector.extract_feat([picture(0, 64, 80).float()], [image_sample(64, 80)])
    assert torch.equal(padded, alone)


def test_classes_and_scoring_change_between_two_images():
    detector = build_detector()
    first = step(detector, [picture()], [image_sample(64, 96)])[0].pred_instances
    detector.set_concepts(torch.randn(1300, DIM))
    step(detector, [picture()], [image_sample(64, 96)])
    torch.manual_seed(0)
    detector.set_scoring(detector.scoring.replace(max_dets=1))
    assert len(step(detector, [picture()], [image_sample(64, 96)])[0].pred_instances) == 1
    detector.set_scoring("official")
    assert detector.scoring == SCORINGS["official"]
    detector.set_scoring(None)
    detector.set_concepts(build_detector().classifier.concepts)
    again = step(detector, [picture()], [image_sample(64, 96)])[0].pred_instances
    torch.testing.assert_close(again.scores, first.scores)
    torch.testing.assert_close(again.bboxes, first.bboxes)


def test_default_scoring_leaves_the_proposals_as_they_were_built():
    detector = build_detector(proposals=toy_proposals() | {"max_proposals": 7, "nms_iou": 0.6})

    def proposed():
        found = step(detector, [picture()], [image_sample(64, 96)])[0].pred_instances
        return len(found.proposals.unique())

    assert (detector.proposals.selection.max_proposals, detector.proposals.selection.nms_iou) == (7, 0.6)
    few = proposed()
    assert few <= 7
    detector.set_scoring("official")
    assert (detector.proposals.selection.max_proposals, detector.proposals.selection.nms_iou) == (1000, 0.9)
    detector.set_scoring("default")
    assert (detector.proposals.selection.max_proposals, detector.proposals.selection.nms_iou) == (7, 0.6)
    assert proposed() == few


def test_no_proposal_is_no_detection():
    detector = build_detector(proposals={"type": "given"})
    empty = given(image_sample(64, 96), np.zeros((0, 4)).tolist())
    empty.proposals = InstanceData(bboxes=torch.zeros(0, 4))
    found = step(detector, [picture()], [empty])[0].pred_instances
    assert found.bboxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_chunks_change_memory_and_not_results():
    one, all_ = build_detector(chunk=1), build_detector(chunk=1000)
    all_.load_state_dict(one.state_dict())
    a, b = (step(d, [picture()], [image_sample(64, 96)])[0].pred_instances for d in (one, all_))
    torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.bboxes, b.bboxes)


def test_bfloat16_networks_give_float32_scores_near_the_float32_ones():
    detector = build_detector(
        proposals={"type": "given"}, box_head=True, temperature=0.5, test_cfg={"nms": "off", "conf": -1.0}
    )
    boxes = [[8.0, 8.0, 40.0, 32.0], [30.0, 10.0, 90.0, 60.0]]
    full = step(detector, [picture()], [given(image_sample(64, 96), boxes)])[0].pred_instances
    detector.cast(torch.bfloat16)
    half = step(detector, [picture()], [given(image_sample(64, 96), boxes)])[0].pred_instances
    assert detector.backbone.dtype == torch.bfloat16
    assert half.scores.dtype == half.bboxes.dtype == torch.float32
    order = [torch.argsort(each.proposals * 10 + each.labels) for each in (full, half)]
    torch.testing.assert_close(half.scores[order[1]], full.scores[order[0]], rtol=0.1, atol=0.01)


def test_bfloat16_proposal_heads_run_too():
    found = step(build_detector().cast(torch.bfloat16), [picture()], [image_sample(64, 96)])[0].pred_instances
    assert found.bboxes.dtype == torch.float32
    assert found.scores.isfinite().all()
    assert len(found)


def test_region_embeddings_of_given_boxes_are_what_predict_scores():
    detector = build_detector(proposals={"type": "given"}, test_cfg={"nms": "off", "conf": -1.0, "fusion": "none"})
    images = [picture(0), picture(1, 80, 64)]
    boxes = [torch.tensor([[8.0, 8.0, 40.0, 32.0], [0.0, 0.0, 96.0, 64.0]]), torch.tensor([[1.0, 2.0, 30.0, 60.0]])]
    embeddings = detector.region_embeddings(images, boxes)
    assert [tuple(each.shape) for each in embeddings] == [(2, DIM), (1, DIM)]
    found = step(
        detector,
        images,
        [given(image_sample(64, 96), boxes[0].tolist()), given(image_sample(80, 64), boxes[1].tolist())],
    )
    for each, regions in zip(found, embeddings, strict=True):
        instances = each.pred_instances
        expected = detector.classifier.probabilities(regions)[instances.proposals, instances.labels]
        torch.testing.assert_close(instances.scores, expected)


def test_the_box_head_moves_boxes_by_its_deltas():
    detector = build_detector(proposals={"type": "given"}, box_head=True, test_cfg={"nms": "off", "conf": -1.0})
    with torch.no_grad():
        detector.box_head.weight.zero_()
        detector.box_head.bias.copy_(torch.tensor([1.0, -2.0, 5 * np.log(2), 100.0]))
    # (10, 10, 5, 5) scaled: 0.1 widths right, 0.2 heights up, twice as wide, and growth cut at 1000 / 16.
    found = step(detector, [picture()], [given(image_sample(64, 96), [[40.0, 20.0, 60.0, 30.0]])])[0].pred_instances
    torch.testing.assert_close(found.bboxes[0], torch.tensor([32.0, 0.0, 72.0, 64.0]))


def test_tensor_mode_returns_proposals_and_embeddings():
    boxes, embeddings = build_detector()(torch.rand(2, 3, 64, 64) * 255)
    assert len(boxes) == len(embeddings) > 0
    assert embeddings.shape[1] == DIM


def test_scoring_presets_and_mistakes():
    assert as_scoring("official").fusion == "logit"
    assert as_scoring({"preset": "official", "conf": 0.02}) == SCORINGS["official"].replace(conf=0.02)
    assert as_scoring(None) is SCORINGS["default"]
    with pytest.raises(UsageError, match="default, official"):
        as_scoring("paper")
    with pytest.raises(UsageError, match="'iou'"):
        as_scoring({"iuo": 0.5})
    with pytest.raises(UsageError, match="fusion"):
        Scoring(fusion="product")
