"""What a detector learns from, and that mmengine's runner trains and tests it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from toys import COLOURS, build_detector, draw_shapes, image_sample

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.roi_training import RoiTraining, box_loss, classification_loss, sample_regions


def annotated(boxes, labels, height=64, width=96) -> DetDataSample:
    made = image_sample(height, width, ori_shape=(height, width), scale_factor=(1.0, 1.0))
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
        build_detector(train_cfg={"loss": "hinge"})
    with pytest.raises(UsageError, match="not valid"):
        build_detector(train_cfg={"losss": "focal"})


def test_losses_reach_every_part_that_is_trained():
    detector = build_detector(box_head=True, freeze=2).train()
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


@pytest.mark.parametrize("family", ["resnet", "timm", "vit"])
def test_every_weight_that_is_trained_has_a_gradient(family):
    """Several processes average gradients, and wait for ever for one that does not come."""
    detector = build_detector(family, box_head=True, freeze=1).train()
    losses = detector(torch.rand(1, 3, 64, 96) * 255, [annotated([[5, 5, 40, 40]], [1])], mode="loss")
    detector.parse_losses(losses)[0].backward()
    assert [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None] == []


def test_mixed_precision_trains_too():
    detector = build_detector(box_head=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector(torch.rand(1, 3, 64, 96) * 255, [annotated([[5, 5, 40, 40]], [1])], mode="loss")
    total, _ = detector.parse_losses(losses)
    total.backward()
    assert losses["loss_cls"].dtype == losses["loss_bbox"].dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


@pytest.mark.parametrize("mask_head", [False, True])
def test_computing_activations_twice_changes_no_gradient(mask_head):
    from mmdet.structures.mask import BitmapMasks

    sample = annotated([[5, 5, 40, 40]], [1])
    sample.gt_instances.masks = BitmapMasks(np.ones((1, 64, 96), np.uint8), 64, 96)
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    gradients = []
    for twice in (False, True):
        detector = build_detector(box_head=True, mask_head=mask_head).train()
        if twice:
            detector.checkpoint_activations()
        torch.manual_seed(2)
        detector.parse_losses(detector(image, [sample], mode="loss"))[0].backward()
        gradients.append({name: p.grad for name, p in detector.named_parameters() if p.grad is not None})
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_boxes_from_outside_train_without_a_proposal_loss():
    detector = build_detector(
        proposals={"type": "grid"}, train_cfg={"loss": "weighted", "background_weight": 0.8}
    ).train()
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

    detector = build_detector(box_head=True)
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
