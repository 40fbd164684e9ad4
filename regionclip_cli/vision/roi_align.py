"""RoIAlign as one weighted sum of map cells.

RoIAlign (Mask R-CNN, section 3) divides a box into P x P bins, reads the map at a few points in each by bilinear
interpolation, and averages. So a bin is a weighted sum of cells; and as the points form a grid and bilinear
interpolation is a product of two linear ones, the weights are products as well:

    bin[p, q] = sum_y sum_x  Y[p, y] * X[q, x] * map[y, x]      for every channel

where row p of Y says how much each map row contributes to bin row p; few entries are not zero. The weights follow
torchvision's operator with `aligned=True, sampling_ratio=0`: as many points per bin as it has cells, rounded up; points
more than one cell outside the map count as zero, nearer ones are moved to its border.

Such sums are what `embedding_bag` computes for bags of words. On a CPU, where torchvision's operator has one thread and
reads channel by channel, they are several times faster; and averaging neighbouring bins afterwards costs nothing, since
it averages rows of Y and X.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def separable_roi_align(cells: Tensor, boxes: Tensor, scale: float, side: int, average: int = 1) -> Tensor:
    """Cut boxes out of one map, as torchvision's `roi_align(..., sampling_ratio=0, aligned=True)` does.

    Args:
        cells: One image's features with channels last, (h, w, c), float32 and contiguous.
        boxes: (R, 4) xyxy in input pixels, inside the image or not far outside.
        scale: Map cells per input pixel, 1 / stride.
        side: P, bins along each side of a box.
        average: Neighbouring bins to average along each side.

    Returns:
        (R, c, P / average, P / average), channels-last in memory.
    """
    height, width, channels = cells.shape
    x1, y1, x2, y2 = (boxes.float() * scale - 0.5).unbind(dim=1)  # pixel centres lie at half cells
    rows, row_weights = _taps(axis_weights(y1, y2 - y1, side, height, average))  # (R, p, ty) each
    columns, column_weights = _taps(axis_weights(x1, x2 - x1, side, width, average))  # (R, p, tx) each

    index = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]  # (R, p, p, ty, tx)
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    used = weights != 0
    counts = used.sum(dim=(3, 4)).flatten()  # (R * p * p,) cells in each bin's bag
    starts = counts.cumsum(0) - counts
    table = cells.reshape(height * width, channels)
    bins = functional.embedding_bag(index[used], table, starts, mode="sum", per_sample_weights=weights[used])
    p = side // average
    return bins.view(-1, p, p, channels).permute(0, 3, 1, 2)


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


def _taps(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return which cells each bin needs along one axis, and their weights: (R, p, size) -> (R, p, t) twice.

    They lie side by side, so the first one and the largest number t of them tell all; what a bin does not need has
    weight 0.
    """
    size = weights.shape[2]
    needed = weights != 0
    first = needed.int().argmax(dim=2)
    number = (size - needed.flip(2).int().argmax(dim=2) - first) * needed.any(dim=2)
    most = max(int(number.max()), 1) if len(weights) else 1
    cells = first[..., None] + torch.arange(most, device=weights.device)  # (R, p, t)
    inside = cells.clamp(max=size - 1)
    return inside, weights.gather(2, inside) * (cells < size)
