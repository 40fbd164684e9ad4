"""Training a proposal network alone: boxes without names."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from regionclip_cli.vision.batches import Images, UnpaddedImages
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.proposals.base import Proposals, ProposalSource


class ProposalTraining(BaseDetector):
    """A proposal network as an mmengine model that learns from boxes; their labels play no part.

    Args:
        source: The network: a `PixelRpn` on which `learn` was called, or a head on a detector's trunk.
        detector: Whose trunk a head stands on; it is frozen.
    """

    def __init__(self, source: ProposalSource, detector: OpenVocabularyDetector | None = None) -> None:
        super().__init__(UnpaddedImages())
        self.source: Any = source  # of two kinds, which learn from different things
        if detector is not None:
            detector.backbone.requires_grad_(False)
        self._detector = (detector,)  # in a tuple, so that its weights are not taken for ours

    def to(self, *args: Any, **kwargs: Any) -> ProposalTraining:
        """Move the network, and the detector that it stands on."""
        if self._detector[0] is not None:
            self._detector[0].to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def extract_feat(self, batch_inputs: Images, batch_data_samples: list[DetDataSample] | None = None) -> list[Tensor]:
        """Return the detector's features (1, channels, h, w) of each image, in evaluation mode, without a gradient.

        Raises:
            ValueError: The network looks at pixels.
        """
        detector = self._detector[0]
        if detector is None:
            raise ValueError("A network that looks at pixels has no features of a detector.")
        with torch.no_grad():
            return detector.eval().extract_feat(batch_inputs, batch_data_samples)

    def loss(self, batch_inputs: Images, batch_data_samples: list[DetDataSample]) -> dict[str, Tensor]:
        """Return `loss_rpn_cls` and `loss_rpn_bbox`."""
        if hasattr(self.source, "learning_loss"):
            return self.source.learning_loss(batch_inputs, batch_data_samples)
        losses: dict[str, Tensor] = self.source.loss(
            self.extract_feat(batch_inputs, batch_data_samples), batch_data_samples
        )
        return losses

    @torch.no_grad()
    def predict(self, batch_inputs: Images, batch_data_samples: list[DetDataSample]) -> list[DetDataSample]:
        """Write `pred_instances` into every sample: `bboxes` (K, 4) in network-input pixels and `scores` (K,)."""
        for sample, found in zip(batch_data_samples, self._forward(batch_inputs, batch_data_samples), strict=True):
            scores = found.boxes.new_ones(len(found.boxes)) if found.logits is None else found.logits.sigmoid()
            sample.pred_instances = InstanceData(bboxes=found.boxes, scores=scores)
        return batch_data_samples

    def _forward(self, batch_inputs: Images, batch_data_samples: list[DetDataSample]) -> list[Proposals]:
        """Return the proposals of each image."""
        features = self.extract_feat(batch_inputs, batch_data_samples) if self.source.needs_features else None
        found: list[Proposals] = self.source(batch_inputs, batch_data_samples, features)
        return found
