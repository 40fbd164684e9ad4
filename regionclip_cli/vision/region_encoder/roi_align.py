"""RoIAlign as two small matrix products.

RoIAlign (Mask R-CNN, section 3) divides a box into P x P bins, reads the map at a few points in each by bilinear
interpolation, and averages. Points form a grid and bilinear interpolation is a product of two linear ones, so the whole
is linear in the map, and the two axes separate:

    bins = Y (P, h) @ map (h, w) @ X^T (w, P)      for every channel

where row p of Y says how much each map row contributes to bin row p. The weights follow torchvision's operator with
`aligned=True, sampling_ratio=0`: as many points per bin as it has cells, rounded up; points more than one cell outside
the map count as zero, nearer ones are moved to its border. On a CPU, where that operator has one thread, the products
are an order of magnitude faster; and averaging neighbouring bins afterwards costs nothing, since it averages rows of Y
and X.
"""

from __future__ import annotations

import torch
from torch import Tensor


def separable_roi_align(cells: Tensor, boxes: Tensor, scale: float, side: int, average: int = 1) -> Tensor:
    """Cut boxes out of one map, as torchvision's `roi_align(..., sampling_ratio=0, aligned=True)` does.

    Args:
        cells: One image's features with channels last, (h, w, c), float32.
        boxes: (R, 4) xyxy in input pixels.
        scale: Map cells per input pixel, 1 / stride.
        side: P, bins along each side of a box.
        average: Neighbouring bins to average along each side.

    Returns:
        (R, c, P / average, P / average), channels-last in memory.
    """
    height, width, channels = cells.shape
    x1, y1, x2, y2 = (boxes.float() * scale - 0.5).unbind(dim=1)  # pixel centres lie at half cells
    rows = axis_weights(y1, y2 - y1, side, height, average)  # (R, p, h)
    columns = axis_weights(x1, x2 - x1, side, width, average)  # (R, p, w)
    extents = torch.stack([*_extent(rows), *_extent(columns)], dim=1).tolist()

    p = side // average
    out = cells.new_empty(len(boxes), p, p, channels)
    for region, (top, bottom, left, right) in enumerate(extents):
        crop = cells[top:bottom, left:right].reshape(bottom - top, -1)  # (h', w' * c)
        bands = rows[region, :, top:bottom] @ crop  # (p, w' * c)
        across = columns[region, :, left:right].expand(p, -1, -1)  # (p, p, w')
        bins = torch.bmm(across, bands.view(p, right - left, channels))  # (p, p, c)
        out[region] = bins
    return out.permute(0, 3, 1, 2)


def axis_weights(start: Tensor, length: Tensor, side: int, size: int, average: int = 1) -> Tensor:
    """Return how much each of `size` cells contributes to each bin along one axis.

    Args:
        start: Where each box begins, in cells, (R,).
        length: How long each box is, in cells, (R,).
        side: P, bins per box.
        size: Cells of the map along this axis.
        average: Neighbouring bins to average.

    Returns:
        (R, P / average, size).
    """
    points = torch.ceil(length / side).clamp(min=0)[:, None, None]  # (R, 1, 1) points per bin
    most = max(int(points.max()), 1) if len(start) else 1
    point = torch.arange(most, device=start.device, dtype=start.dtype)  # (n,)
    first = torch.arange(side, device=start.device, dtype=start.dtype)[:, None]  # (P, 1)
    step = (length / side)[:, None, None]  # (R, 1, 1) cells per bin
    at = start[:, None, None] + first * step + (point + 0.5) * step / points.clamp(min=1)  # (R, P, n)

    share = ((point < points) & (at >= -1) & (at <= size)) / points.clamp(min=1)  # (R, P, n)
    at = at.clamp(0, size - 1)
    low = at.floor()
    high = (low + 1).clamp(max=size - 1)
    fraction = at - low
    weights = start.new_zeros(len(start), side, size)
    weights.scatter_add_(2, low.long(), share * (1 - fraction))
    weights.scatter_add_(2, high.long(), share * fraction)
    return weights.unflatten(1, (side // average, average)).mean(dim=2)


def _extent(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first cell that any bin needs, and the one after the last: (R, p, size) -> (R,), (R,).

    A box beside the map needs none; it gets one cell, whose weight is zero.
    """
    needed = (weights != 0).any(dim=1).int()  # (R, size)
    first = needed.argmax(dim=1)
    last = weights.shape[2] - needed.flip(1).argmax(dim=1)
    return first, torch.where(needed.any(dim=1), last, first + 1)
