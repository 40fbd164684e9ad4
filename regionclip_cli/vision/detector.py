"""The open-vocabulary detector: trunk, proposals, region embeddings, and a vocabulary that is told at run time.

Letters: B images, K proposals of an image, C classes, D embedding. Boxes are xyxy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regionclip_cli.recipe.scoring import Scoring, as_scoring
from regionclip_cli.registry import MODELS
from regionclip_cli.vision import roi_training
from regionclip_cli.vision.backbones.base import Backbone
from regionclip_cli.vision.backbones.build import build_backbone
from regionclip_cli.vision.batches import Images, UnpaddedImages, run_by_shape, unpadded
from regionclip_cli.vision.classifier import ConceptClassifier, calibrate, fuse
from regionclip_cli.vision.federated import FederatedClasses
from regionclip_cli.vision.linear_classifier import LinearClassifier
from regionclip_cli.vision.mask_head import RegionMaskHead, mask_loss, paste_masks
from regionclip_cli.vision.postprocess import select
from regionclip_cli.vision.proposals.base import Proposals, ProposalSource
from regionclip_cli.vision.proposals.build import build_proposals
from regionclip_cli.vision.region_encoder import RegionEncoder


@MODELS.register_module()
class OpenVocabularyDetector(BaseDetector):
    """RegionCLIP as an mmdet detector: it takes and returns `DetDataSample`, so mmengine runners train and test it.

    Inputs are RGB pixels 0..255: a list of images (3, h, w), or a tensor (B, 3, H, W) whose images may be padded at the
    bottom and the right. What lies outside a sample's `img_shape` is cut off, so no image depends on its neighbours.

    Args:
        backbone: The network, or `{"name", "clip", "pool_size"}` as `build_backbone` takes them.
        proposals: The source of boxes, or the config that `build_proposals` takes.
        temperature: Of the classifier.
        box_head: Whether a linear layer refines every box from its embedding; one for all classes.
        mask_head: Whether masks are predicted too; one head for all classes.
        freeze: How many stages of the backbone stay as they are; 2 is the official setting.
        chunk: Regions embedded at a time; it bounds memory and changes no result.
        train_cfg: A `RoiTraining`, or a mapping of its fields.
        test_cfg: A `Scoring`, a preset's name, or a mapping of its fields with an optional `preset`.
        data_preprocessor: By default `UnpaddedImages`. One that normalises pixels does not fit: the backbone does.
        init_cfg: As in mmengine.
    """

    def __init__(
        self,
        backbone: Backbone | Mapping[str, Any],
        proposals: ProposalSource | Mapping[str, Any],
        *,
        temperature: float = 0.01,
        box_head: bool = False,
        mask_head: bool = False,
        freeze: int = 0,
        chunk: int = 64,
        train_cfg: roi_training.RoiTraining | Mapping[str, Any] | None = None,
        test_cfg: Scoring | Mapping[str, Any] | str | None = None,
        data_preprocessor: nn.Module | dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or UnpaddedImages(), init_cfg)
        self.backbone = backbone if isinstance(backbone, Backbone) else build_backbone(**backbone)
        self.backbone.freeze(freeze)
        self.proposals = proposals if isinstance(proposals, ProposalSource) else build_proposals(dict(proposals))
        self.region_encoder = RegionEncoder(self.backbone, chunk=chunk)
        self.classifier: ConceptClassifier | LinearClassifier = ConceptClassifier(temperature)
        self.federated: FederatedClasses | None = None
        self.box_head: nn.Linear | None = None
        self.mask_head: RegionMaskHead | None = None
        self.add_heads(box=box_head, mask=mask_head)
        self.train_cfg = roi_training.as_roi_training(train_cfg)
        # What the source was built with, so that settings which leave it alone can also undo others.
        selection = getattr(self.proposals, "selection", None)
        self._built_selection: dict[str, Any] = {} if selection is None else dict(vars(selection))
        self.scoring = as_scoring(None)
        self.set_scoring(test_cfg)

    def add_heads(self, box: bool = False, mask: bool = False) -> None:
        """Give the detector heads that it does not have yet, with random weights that change next to nothing."""
        if box and self.box_head is None:
            self.box_head = nn.Linear(self.backbone.embed_dim, 4)
            nn.init.normal_(self.box_head.weight, std=0.001)
            nn.init.zeros_(self.box_head.bias)
        if mask and self.mask_head is None:
            self.mask_head = RegionMaskHead(_map_channels(self.backbone))

    def checkpoint_activations(self) -> None:
        """Compute what lies inside trunk and pool twice while training, and keep only what goes in and out."""
        self.region_encoder.checkpointing = True

    def compile(self, *_: Any, **__: Any) -> None:
        """Compile trunk and pool, where nearly all time is spent; sizes may vary."""
        backbone: Any = self.backbone
        backbone.trunk = torch.compile(backbone.trunk, dynamic=True)
        backbone.pool = torch.compile(backbone.pool, dynamic=True)
        self.region_encoder.path = "plain"

    def set_concepts(self, embeddings: Tensor, groups: Tensor | None = None, num_classes: int | None = None) -> None:
        """Choose what to look for from now on; arguments as `ConceptClassifier.set_concepts`."""
        self.classifier.set_concepts(embeddings, groups, num_classes)

    def set_scoring(self, scoring: Scoring | Mapping[str, Any] | str | None) -> None:
        """Choose how detections are scored and selected from now on; None means the default."""
        self.scoring = as_scoring(scoring)
        built = self._built_selection
        self.proposals.configure(
            nms_iou=built.get("nms_iou") if self.scoring.proposal_iou is None else self.scoring.proposal_iou,
            pre_nms=built.get("pre_nms") if self.scoring.pre_nms is None else self.scoring.pre_nms,
            max_proposals=built.get("max_proposals")
            if self.scoring.max_proposals is None
            else self.scoring.max_proposals,
        )

    def cast(self, dtype: torch.dtype) -> OpenVocabularyDetector:
        """Compute the networks in another floating type; scores, boxes and suppression stay in float32."""
        self.backbone.to(dtype)
        self.proposals.to(dtype)
        return self

    def train(self, mode: bool = True) -> OpenVocabularyDetector:
        """Set the training mode; a proposal network that is not trained here stays in evaluation mode."""
        super().train(mode)
        if self._proposal_loss is None:
            self.proposals.eval()
        return self

    def extract_feat(self, images: Images, samples: Sequence[DetDataSample] | None = None) -> list[Tensor]:
        """Return the feature map (1, channels, h/stride, w/stride) of each image."""
        return run_by_shape(self._trunk, unpadded(images, samples))

    def propose(self, images: Images, samples: Sequence[DetDataSample], features: Sequence[Tensor]) -> list[Proposals]:
        """Return the boxes (K, 4) of each image in network-input pixels, with objectness logits (K,) or None."""
        return self.proposals(unpadded(images, samples), samples, features if self.proposals.needs_features else None)

    @torch.no_grad()
    def region_embeddings(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Return the embeddings of given boxes, not normalised: features for uses of one's own.

        Args:
            images: RGB pixels 0..255, (3, h, w) each, of any size and number type.
            boxes: (R, 4) for each image, in its pixels.

        Returns:
            (R, D) float32 for each image.
        """
        samples = [DetDataSample(metainfo={"img_shape": tuple(image.shape[-2:])}) for image in images]
        data = self.data_preprocessor({"inputs": list(images), "data_samples": samples})
        features = self.extract_feat(data["inputs"], data["data_samples"])
        placed = [each.to(self.backbone.device, torch.float32) for each in boxes]
        return list(self.region_encoder(features, placed).split([len(each) for each in placed]))

    @torch.no_grad()
    def predict(self, batch_inputs: Images, batch_data_samples: list[DetDataSample]) -> list[DetDataSample]:
        """Write `pred_instances` into every sample, best detection first, and return the samples.

        `bboxes` (N, 4) are in pixels of the original image (`scale_factor` and `ori_shape` of the sample), `scores` are
        (N,), `labels` (N,) in 0..C-1, and `proposals` (N,) tells which proposal a detection came from. With a mask
        head, `masks` (N, H, W) bool are in pixels of the original image as well.
        """
        features = self.extract_feat(batch_inputs, batch_data_samples)
        proposals = self.propose(batch_inputs, batch_data_samples, features)
        counts = [len(each.boxes) for each in proposals]
        embeddings = self.region_encoder(features, [each.boxes for each in proposals])
        for sample, found, regions in zip(batch_data_samples, proposals, embeddings.split(counts), strict=True):
            sample.pred_instances = self._detections(sample, found, regions)
        if self.mask_head is not None:
            for image, sample in enumerate(batch_data_samples):
                sample.pred_instances.masks = self._masks(sample, features[image])
        return batch_data_samples

    def loss(self, batch_inputs: Images, batch_data_samples: list[DetDataSample]) -> dict[str, Tensor]:
        """Return `loss_cls`, with the heads `loss_bbox` and `loss_mask`, and those of a proposal head trained along."""
        features = self.extract_feat(batch_inputs, batch_data_samples)
        losses = self._proposal_loss(features, batch_data_samples) if self._proposal_loss else {}
        with torch.no_grad():
            proposals = self.propose(batch_inputs, batch_data_samples, [each.detach() for each in features])
        sampled = [
            roi_training.sample_regions(found.boxes, sample, self.train_cfg)
            for found, sample in zip(proposals, batch_data_samples, strict=True)
        ]
        boxes = [image.boxes for image in sampled]
        if self.mask_head is None or not any(map(len, boxes)):
            regions = self.region_encoder(features, boxes)
        else:
            maps = self.region_encoder.maps(features, boxes)
            regions = self.backbone.embed_maps(maps)
            shown = zip(maps.split([len(image.boxes) for image in sampled]), sampled, strict=True)
            shown_maps = torch.cat([part[: len(image.labels)] for part, image in shown])
            losses["loss_mask"] = mask_loss(self.mask_head(shown_maps), sampled, batch_data_samples)
        logits = self.classifier(regions)
        losses["loss_cls"] = roi_training.classification_loss(
            logits, sampled, self.classifier.num_classes, self.train_cfg, self.federated
        )
        if self.box_head is not None:
            losses["loss_bbox"] = roi_training.box_loss(self._deltas(regions), sampled)
        return losses

    def _forward(
        self, batch_inputs: Images, batch_data_samples: list[DetDataSample] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the proposals (sum of K, 4) and their embeddings (sum of K, D), nothing selected."""
        samples = batch_data_samples or [
            DetDataSample(metainfo={"img_shape": tuple(image.shape[-2:])}) for image in batch_inputs
        ]
        features = self.extract_feat(batch_inputs, samples)
        boxes = [found.boxes for found in self.propose(batch_inputs, samples, features)]
        return torch.cat(boxes), self.region_encoder(features, boxes)

    def _trunk(self, images: Tensor) -> Tensor:
        """Return the feature maps (B, channels, h/stride, w/stride) of images (B, 3, h, w) of one size."""
        normal = self.backbone.normalise(images)
        if self.region_encoder.checkpointing and torch.is_grad_enabled():
            return checkpoint(self.backbone.trunk, normal, use_reentrant=False)
        return self.backbone.trunk(normal)

    @property
    def _proposal_loss(self) -> Callable[..., dict[str, Tensor]] | None:
        """The loss of the proposal source, if it has one and weights to learn."""
        trained = any(parameter.requires_grad for parameter in self.proposals.parameters())
        return getattr(self.proposals, "loss", None) if trained else None

    def _deltas(self, regions: Tensor) -> Tensor:
        """Return the box head's (R, 4) float32 for regions (R, D)."""
        head = self.box_head
        return regions.new_zeros(len(regions), 4) if head is None else head(regions.to(head.weight.dtype)).float()

    def _masks(self, sample: DetDataSample, features: Tensor) -> Tensor:
        """Return the masks (N, H, W) bool of an image's detections, from its features (1, channels, h, w)."""
        boxes = sample.pred_instances.bboxes
        across, down = sample.get("scale_factor", (1.0, 1.0))[:2]
        height, width = sample.get("ori_shape", sample.img_shape)[:2]
        if self.mask_head is None or not len(boxes):
            return torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
        maps = self.region_encoder.maps([features], [boxes * boxes.new_tensor([across, down, across, down])])
        return paste_masks(self.mask_head(maps), boxes, int(height), int(width))

    def _detections(self, sample: DetDataSample, found: Proposals, regions: Tensor) -> InstanceData:
        """Score, refine and select the proposals of one image: regions are their embeddings (K, D)."""
        height, width = sample.img_shape[:2]
        boxes = found.boxes.float()
        if self.box_head is not None:
            boxes = roi_training.BOX_CODER.decode(boxes, self._deltas(regions))
        boxes = clip_boxes(boxes, height, width)
        scores = fuse(self.classifier.probabilities(regions), found.logits, self.scoring.fusion)
        if self.scoring.calibration is not None and found.logits is not None:
            scores = calibrate(scores, *self.scoring.calibration)
        boxes, scores, labels, index = select(self.scoring, boxes, scores)
        across, down = sample.get("scale_factor", (1.0, 1.0))[:2]
        boxes = boxes / boxes.new_tensor([across, down, across, down])
        if "ori_shape" in sample:
            boxes = clip_boxes(boxes, *sample.ori_shape[:2])
        return InstanceData(bboxes=boxes, scores=scores, labels=labels, proposals=index)


def _map_channels(backbone: Backbone) -> int:
    """Return the channels of the maps that a mask head stands on, by asking for one."""
    side = backbone.pool_size
    with torch.no_grad():
        cut = torch.zeros(1, backbone.channels, side, side, dtype=backbone.dtype, device=backbone.device)
        return backbone.region_maps(cut).shape[1]


def clip_boxes(boxes: Tensor, height: float, width: float) -> Tensor:
    """Return boxes (R, 4) xyxy cut off at the borders of an image of that many pixels."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
