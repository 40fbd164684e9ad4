"""Boxes that no network proposed: given by the caller, drawn at random, or laid out on a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.proposals.base import Proposals, ProposalSource, valid_size


class GivenBoxes(ProposalSource):
    """`given`: the boxes that come with each sample, all of them and in their order.

    `sample.proposals.bboxes` (K, 4) are in pixels of the network's input. `sample.proposals.scores` (K,), where there
    are any, are probabilities of an object, as mmdet keeps them.
    """

    def propose(self, image: Tensor, sample: DetDataSample, features: Tensor | None) -> Proposals:
        """Return the sample's boxes.

        Raises:
            UsageError: The sample comes without boxes.
        """
        if "proposals" not in sample or "bboxes" not in sample.proposals:
            raise UsageError("This model proposes no boxes of its own, and none were given.", "Use --boxes FILE.")
        boxes = getattr(sample.proposals.bboxes, "tensor", sample.proposals.bboxes)
        boxes = boxes.to(image.device, torch.float32)
        if "scores" not in sample.proposals:
            return Proposals(boxes, None)
        scores = sample.proposals.scores.to(image.device, torch.float64)
        # A score of 1 has an infinite logit, which no arithmetic survives.
        return Proposals(boxes, torch.logit(scores, eps=1e-12).float())


class RandomBoxes(ProposalSource):
    """`random`: boxes between random corners of a grid over the image.

    RegionCLIP's authors found that pre-training on such boxes comes close to pre-training on a network's proposals.
    In evaluation mode every image gets the same boxes; in training mode each draw is new.

    Args:
        count: Boxes of an image.
        cells: Cells along each side of the grid; a box spans at least one.
        seed: Of the draw.
    """

    def __init__(self, count: int = 100, cells: int = 8, seed: int = 0) -> None:
        super().__init__()
        if count < 1 or cells < 1:
            raise UsageError("Random boxes need at least one box and one cell.")
        self.count, self.cells, self.seed = count, cells, seed
        self._generator = torch.Generator().manual_seed(seed)

    def configure(
        self, nms_iou: float | None = None, pre_nms: int | None = None, max_proposals: int | None = None
    ) -> None:
        """Set how many boxes there are at most; arguments as in `ProposalSource.configure`."""
        self.count = self.count if max_proposals is None else min(self.count, max_proposals)

    def propose(self, image: Tensor, sample: DetDataSample, features: Tensor | None) -> Proposals:
        """Return one draw, stretched to the size of the image."""
        if not self.training:
            self._generator.manual_seed(self.seed)
        corners = torch.stack([self._interval(), self._interval()], dim=1) / self.cells
        return _stretched(corners.transpose(1, 2).flatten(1), image, sample)

    def _interval(self) -> Tensor:
        """Draw (count, 2) pairs of different grid lines, each pair as likely as any other, the lower one first."""
        first = torch.randint(self.cells + 1, (self.count,), generator=self._generator)
        step = torch.randint(1, self.cells + 1, (self.count,), generator=self._generator)
        return torch.stack([first, (first + step) % (self.cells + 1)], dim=1).sort(dim=1).values


class GridBoxes(ProposalSource):
    """`grid`: the cells of several grids over the image, coarse ones first.

    Args:
        cells: Cells along each side, for each grid.
    """

    def __init__(self, cells: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        if not cells or min(cells) < 1:
            raise UsageError("A grid of boxes needs at least one cell.")
        self.cells = tuple(cells)

    def propose(self, image: Tensor, sample: DetDataSample, features: Tensor | None) -> Proposals:
        """Return all cells of the image, row by row."""
        grids = []
        for cells in self.cells:
            line = torch.arange(cells)
            y, x = torch.meshgrid(line, line, indexing="ij")
            grids.append(torch.stack([x, y, x + 1, y + 1], dim=-1).view(-1, 4) / cells)
        return _stretched(torch.cat(grids), image, sample)


def _stretched(unit: Tensor, image: Tensor, sample: DetDataSample) -> Proposals:
    """Scale boxes (K, 4) within the unit square to the size of the image."""
    height, width = valid_size(sample)
    boxes = unit * torch.tensor([width, height, width, height], dtype=torch.float32)
    return Proposals(boxes.to(image.device), None)
