"""The detector end to end on toy networks: what goes in, what comes out, and that runners can train and test it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from toys import COLOURS, DIM, VISION, draw_shapes, toy_clip, toy_proposals

from regionclip_cli.errors import UsageError
from regionclip_cli.registry import MODELS
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.roi_training import RoiTraining, box_loss, classification_loss, sample_regions
from regionclip_cli.vision.scoring import SCORINGS, Scoring, as_scoring


def config(family="resnet", proposals=None, **options) -> dict:
    return {
        "type": "regionclip_cli.OpenVocabularyDetector",
        "backbone": {"name": VISION[family][0], "clip": toy_clip(family)},
        "proposals": proposals or toy_proposals(family),
        **options,
    }


def build(family="resnet", proposals=None, classes=3, **options) -> OpenVocabularyDetector:
    torch.manual_seed(0)
    detector = MODELS.build(config(family, proposals, **options))
    detector.set_concepts(torch.randn(classes, DIM))
    return detector.eval()


def sample(height, width, **metainfo) -> DetDataSample:
    return DetDataSample(metainfo={"img_shape": (height, width), **metainfo})


def given(sample_, boxes) -> DetDataSample:
    sample_.proposals = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32))
    return sample_


def picture(seed=0, height=64, width=96) -> torch.Tensor:
    return torch.from_numpy(draw_shapes(seed, height, width)[0]).permute(2, 0, 1)


def step(detector, images, samples) -> list[DetDataSample]:
    return detector.test_step({"inputs": list(images), "data_samples": list(samples)})


@pytest.mark.parametrize("family", ["resnet", "timm", "vit"])
def test_every_family_detects(family):
    detector = build(family)
    found = step(detector, [picture(0), picture(1, 80, 64)], [sample(64, 96), sample(80, 64)])
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


def test_boxes_return_to_the_pixels_of_the_original_image():
    boxes = [[8.0, 8.0, 40.0, 32.0], [-50.0, 20.0, 500.0, 60.0]]
    detector = build(proposals={"type": "given"}, test_cfg={"nms": "off", "conf": -1.0})
    same = step(detector, [picture()], [given(sample(64, 96), boxes)])[0].pred_instances
    enlarged = given(sample(64, 96, scale_factor=(2.0, 0.5), ori_shape=(128, 48)), boxes)
    mapped = step(detector, [picture()], [enlarged])[0].pred_instances
    assert torch.equal(same.proposals, mapped.proposals)
    torch.testing.assert_close(mapped.bboxes, same.bboxes * torch.tensor([0.5, 2.0, 0.5, 2.0]))
    assert same.bboxes[same.proposals == 1][0].tolist() == [0, 20, 96, 60]


def test_padding_changes_nothing_in_the_valid_area():
    detector = build(proposals={"type": "given"}, test_cfg={"nms": "off", "conf": -1.0})
    boxes = [[8.0, 8.0, 40.0, 32.0]]
    small = picture(0, 64, 64)
    alone = step(detector, [small], [given(sample(64, 64), boxes)])[0].pred_instances
    together = step(detector, [small, picture(1, 96, 96)], [given(sample(64, 64), boxes), given(sample(96, 96), boxes)])
    # Convolutions look over the border: what they see there is zero, as outside an image that is not padded.
    torch.testing.assert_close(together[0].pred_instances.scores, alone.scores, rtol=0.05, atol=1e-3)
    features = detector.extract_feat(torch.zeros(1, 3, 96, 96), [sample(64, 64)])
    assert features.shape == (1, 128, 6, 6)
    filled = torch.zeros(1, 3, 96, 96)
    filled[:, :, 64:] = 255
    torch.testing.assert_close(detector.extract_feat(filled, [sample(64, 96)])[:, :, 5:], features[:, :, 5:, :])


def test_classes_and_scoring_change_between_two_images():
    detector = build()
    first = step(detector, [picture()], [sample(64, 96)])[0].pred_instances
    detector.set_concepts(torch.randn(1300, DIM))
    step(detector, [picture()], [sample(64, 96)])
    torch.manual_seed(0)
    detector.set_scoring(detector.scoring.but(max_dets=1))
    assert len(step(detector, [picture()], [sample(64, 96)])[0].pred_instances) == 1
    detector.set_scoring("official")
    assert detector.scoring == SCORINGS["official"]
    detector.set_scoring(None)
    detector.set_concepts(build().classifier.concepts)
    again = step(detector, [picture()], [sample(64, 96)])[0].pred_instances
    torch.testing.assert_close(again.scores, first.scores)
    torch.testing.assert_close(again.bboxes, first.bboxes)


def test_default_scoring_leaves_the_proposals_as_they_were_built():
    detector = build(proposals=toy_proposals() | {"max_proposals": 7, "nms_iou": 0.6})

    def proposed():
        found = step(detector, [picture()], [sample(64, 96)])[0].pred_instances
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
    detector = build(proposals={"type": "given"})
    empty = given(sample(64, 96), np.zeros((0, 4)).tolist())
    empty.proposals = InstanceData(bboxes=torch.zeros(0, 4))
    found = step(detector, [picture()], [empty])[0].pred_instances
    assert found.bboxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_chunks_change_memory_and_not_results():
    one, all_ = build(chunk=1), build(chunk=1000)
    all_.load_state_dict(one.state_dict())
    a, b = (step(d, [picture()], [sample(64, 96)])[0].pred_instances for d in (one, all_))
    torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.bboxes, b.bboxes)


def test_bfloat16_networks_give_float32_scores_near_the_float32_ones():
    detector = build(proposals={"type": "given"}, box_head=True, temperature=0.5, test_cfg={"nms": "off", "conf": -1.0})
    boxes = [[8.0, 8.0, 40.0, 32.0], [30.0, 10.0, 90.0, 60.0]]
    full = step(detector, [picture()], [given(sample(64, 96), boxes)])[0].pred_instances
    detector.cast(torch.bfloat16)
    half = step(detector, [picture()], [given(sample(64, 96), boxes)])[0].pred_instances
    assert detector.backbone.dtype == torch.bfloat16
    assert half.scores.dtype == half.bboxes.dtype == torch.float32
    order = [torch.argsort(each.proposals * 10 + each.labels) for each in (full, half)]
    torch.testing.assert_close(half.scores[order[1]], full.scores[order[0]], rtol=0.1, atol=0.01)


def test_bfloat16_proposal_heads_run_too():
    found = step(build().cast(torch.bfloat16), [picture()], [sample(64, 96)])[0].pred_instances
    assert found.bboxes.dtype == torch.float32
    assert found.scores.isfinite().all()
    assert len(found)


def test_region_embeddings_of_given_boxes_are_what_predict_scores():
    detector = build(proposals={"type": "given"}, test_cfg={"nms": "off", "conf": -1.0, "fusion": "none"})
    images = [picture(0), picture(1, 80, 64)]
    boxes = [torch.tensor([[8.0, 8.0, 40.0, 32.0], [0.0, 0.0, 96.0, 64.0]]), torch.tensor([[1.0, 2.0, 30.0, 60.0]])]
    embeddings = detector.region_embeddings(images, boxes)
    assert [tuple(each.shape) for each in embeddings] == [(2, DIM), (1, DIM)]
    found = step(detector, images, [given(sample(64, 96), boxes[0].tolist()), given(sample(80, 64), boxes[1].tolist())])
    for each, regions in zip(found, embeddings, strict=True):
        instances = each.pred_instances
        expected = detector.classifier.probabilities(regions)[instances.proposals, instances.labels]
        torch.testing.assert_close(instances.scores, expected)


def test_the_box_head_moves_boxes_by_its_deltas():
    detector = build(proposals={"type": "given"}, box_head=True, test_cfg={"nms": "off", "conf": -1.0})
    with torch.no_grad():
        detector.box_head.weight.zero_()
        detector.box_head.bias.copy_(torch.tensor([1.0, -2.0, 5 * np.log(2), 100.0]))
    # (10, 10, 5, 5) scaled: 0.1 widths right, 0.2 heights up, twice as wide, and growth cut at 1000 / 16.
    found = step(detector, [picture()], [given(sample(64, 96), [[40.0, 20.0, 60.0, 30.0]])])[0].pred_instances
    torch.testing.assert_close(found.bboxes[0], torch.tensor([32.0, 0.0, 72.0, 64.0]))


def test_tensor_mode_returns_proposals_and_embeddings():
    boxes, embeddings = build()(torch.rand(2, 3, 64, 64) * 255)
    assert len(boxes) == len(embeddings) > 0
    assert embeddings.shape[1] == DIM


def test_scoring_presets_and_mistakes():
    assert as_scoring("official").fusion == "logit"
    assert as_scoring({"preset": "official", "conf": 0.02}) == SCORINGS["official"].but(conf=0.02)
    assert as_scoring(None) is SCORINGS["default"]
    with pytest.raises(UsageError, match="default, official"):
        as_scoring("paper")
    with pytest.raises(UsageError, match="'iou'"):
        as_scoring({"iuo": 0.5})
    with pytest.raises(UsageError, match="fusion"):
        Scoring(fusion="product")


# --- training -------------------------------------------------------------------------------------------------------


def annotated(boxes, labels, height=64, width=96) -> DetDataSample:
    made = sample(height, width, ori_shape=(height, width), scale_factor=(1.0, 1.0))
    made.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.tensor(labels, dtype=torch.long)
    )
    return made


def test_sampling_adds_the_objects_and_keeps_foreground_to_a_quarter():
    objects = annotated([[0, 0, 20, 20], [40, 40, 60, 60]], [2, 1])
    near = torch.tensor([[0.0, 0.0, 20.0, 19.0]]).repeat(50, 1)
    far = torch.tensor([[70.0, 0.0, 90.0, 20.0]]).repeat(50, 1)
    drawn = sample_regions(torch.cat([near, far]), objects, RoiTraining(regions=40))
    assert len(drawn.boxes) == 40
    assert len(drawn.labels) == len(drawn.targets) == 10
    assert set(drawn.labels.tolist()) <= {1, 2}
    few = sample_regions(far, objects, RoiTraining(regions=40))
    assert sorted(few.labels.tolist()) == [1, 2]


def test_an_image_without_objects_is_all_background():
    drawn = [sample_regions(torch.rand(30, 4).cumsum(1) * 20, annotated([], []), RoiTraining(regions=16))]
    assert len(drawn[0].boxes) == 16
    logits = torch.zeros(16, 4)
    loss = classification_loss(logits, drawn, 3, RoiTraining(gamma=0.0))
    assert loss.item() == pytest.approx(0.2 * np.log(4), abs=1e-6)
    assert box_loss(torch.ones(16, 4), drawn).item() == 0


def test_a_label_without_a_class_is_refused():
    drawn = [sample_regions(torch.zeros(0, 4), annotated([[0, 0, 20, 20]], [3]), RoiTraining())]
    with pytest.raises(UsageError, match="label 3, but there are 3 classes"):
        classification_loss(torch.zeros(1, 4), drawn, 3, RoiTraining())
    with pytest.raises(UsageError, match="classification loss"):
        build(train_cfg={"loss": "hinge"})
    with pytest.raises(UsageError, match="not valid"):
        build(train_cfg={"losss": "focal"})


def test_losses_reach_every_part_that_is_trained():
    detector = build(box_head=True, freeze=2).train()
    samples = [annotated([[5, 5, 40, 40]], [1]), annotated([], [])]
    losses = detector(torch.rand(2, 3, 64, 96) * 255, samples, mode="loss")
    assert {"loss_cls", "loss_bbox"} < set(losses)
    total, _ = detector.parse_losses(losses)
    total.backward()
    for name, parameter in detector.named_parameters():
        trained = parameter.grad is not None and parameter.grad.abs().sum() > 0
        if name.startswith(
            ("backbone.visual.layer2.0.downsample.0", "backbone.visual.attnpool.c_proj", "box_head.weight")
        ):
            assert trained, name
        if name.startswith(("backbone.visual.conv", "backbone.visual.layer1")):
            assert not trained, name
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.proposals.parameters())


def test_mixed_precision_trains_too():
    detector = build(box_head=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector(torch.rand(1, 3, 64, 96) * 255, [annotated([[5, 5, 40, 40]], [1])], mode="loss")
    total, _ = detector.parse_losses(losses)
    total.backward()
    assert losses["loss_cls"].dtype == losses["loss_bbox"].dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


def test_boxes_from_outside_train_without_a_proposal_loss():
    detector = build(proposals={"type": "grid"}, train_cfg={"loss": "weighted", "background_weight": 0.8}).train()
    losses = detector(torch.rand(1, 3, 64, 96) * 255, [annotated([[5, 5, 40, 40]], [1])], mode="loss")
    assert set(losses) == {"loss_cls"}
    assert losses["loss_cls"].requires_grad


class Shapes(torch.utils.data.Dataset):
    """Drawn rectangles, as a loader of mmdet would hand them out."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        image, boxes, names = draw_shapes(index)
        labels = [list(COLOURS).index(name) for name in names]
        return {
            "inputs": torch.from_numpy(image).permute(2, 0, 1),
            "data_samples": annotated(boxes.tolist(), labels, *image.shape[:2]),
        }


def test_an_mmengine_runner_trains_and_tests_it(tmp_path):
    from mmengine.evaluator import BaseMetric
    from mmengine.runner import Runner

    class Count(BaseMetric):
        """How many detections there were."""

        def process(self, data_batch, data_samples):
            self.results += [len(each["pred_instances"]["scores"]) for each in data_samples]

        def compute_metrics(self, results):
            return {"images": len(results), "detections": sum(results)}

    detector = build(box_head=True)
    before = detector.backbone.visual.attnpool.c_proj.weight.detach().clone()

    def loader(batch):
        return {
            "dataset": Shapes(),
            "batch_size": batch,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "pseudo_collate"},
        }

    runner = Runner(
        model=detector,
        work_dir=str(tmp_path),
        train_dataloader=loader(2),
        train_cfg={"by_epoch": False, "max_iters": 2},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
        test_dataloader=loader(1),
        test_cfg={},
        test_evaluator=[Count(prefix="toy")],
        default_hooks={"checkpoint": None, "logger": None},
        log_level="ERROR",
        experiment_name="shapes",
    )
    runner.train()
    assert not torch.equal(before, detector.backbone.visual.attnpool.c_proj.weight)
    metrics = runner.test()
    assert metrics["toy/images"] == 4
    assert metrics["toy/detections"] > 0
