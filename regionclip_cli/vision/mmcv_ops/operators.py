"""The operators themselves, with the calling conventions of mmcv's compiled ones: outputs are tensors written in place.

Boxes are (N, 4) xyxy; regions of interest are (R, 5): batch index, then xyxy in input pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import ops as tv_ops

from regionclip_cli.errors import MissingError


def _at_least_float32(tensor: Tensor) -> Tensor:
    """Torchvision's CPU kernels know float32 and float64 only; half formats are widened."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices (M,) of the boxes that no better kept box overlaps by more than `iou_threshold`, best first.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: Overlap above which the lower score goes.
        offset: 1 counts pixels, so that a box is x2 - x1 + 1 wide; 0 measures.
    """
    corners = _at_least_float32(boxes)
    if offset:
        corners = torch.cat([corners[:, :2], corners[:, 2:] + offset], dim=1)
    return tv_ops.nms(corners, scores.to(corners.dtype), iou_threshold)


def _decay(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Return what the scores of boxes with this overlap (N,) are multiplied by: Soft-NMS (ICCV 2017), section 3."""
    if method == 2:
        return torch.exp(-(overlap**2) / sigma)
    lowered = 1 - overlap if method == 1 else torch.zeros_like(overlap)
    return torch.where(overlap >= iou_threshold, lowered, torch.ones_like(overlap))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of overlapping boxes instead of dropping them; return the indices (M,) that remain, best first.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        dets: (N, 5), written: the first M rows become box and lowered score.
        iou_threshold: Overlap from which `naive` drops and `linear` lowers.
        sigma: Width of `gaussian`.
        min_score: A box whose score sinks below goes.
        method: 0 naive (hard), 1 linear, 2 gaussian.
        offset: 1 counts pixels, 0 measures.
    """
    left_top, right_bottom = _at_least_float32(boxes).split(2, dim=1)
    area = (right_bottom - left_top + offset).prod(dim=1)
    remaining = scores.clone().to(left_top.dtype)
    open_ = torch.ones_like(remaining, dtype=torch.bool)
    order: list[int] = []
    while open_.any():
        best = int(remaining.masked_fill(~open_, -torch.inf).argmax())
        dets[len(order), :4] = boxes[best]
        dets[len(order), 4] = remaining[best]
        order.append(best)
        open_[best] = False
        size = torch.minimum(right_bottom, right_bottom[best]) - torch.maximum(left_top, left_top[best]) + offset
        inter = size.clamp(min=0).prod(dim=1)
        overlap = inter / (area[best] + area - inter)
        remaining = torch.where(open_, remaining * _decay(overlap, iou_threshold, sigma, method), remaining)
        # "not below" rather than "at least": two boxes without area have overlap 0 / 0, and stay.
        open_ &= ~(remaining < min_score)
    return torch.tensor(order, dtype=torch.long, device=boxes.device)


def _roi_align(
    features: Tensor,
    rois: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    """Call torchvision's RoIAlign with mmcv's keywords; it takes the mean of a bin's samples, never their maximum."""
    if pool_mode != 1:
        raise MissingError(
            "The operator 'roi_align' with pool_mode 'max' is not in this installation of mmcv.",
            "Use pool_mode 'avg', or install full mmcv with compiled operators.",
        )
    size = (aligned_height, aligned_width)
    return tv_ops.roi_align(features, rois.to(features.dtype), size, spatial_scale, sampling_ratio, aligned)


def roi_align_forward(
    input: Tensor,  # noqa: A002
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    **grid: Any,
) -> None:
    """Write into `output` (R, C, aligned_height, aligned_width) the mean of bilinear samples in every bin of a region.

    Args:
        input: (B, C, H, W) feature map.
        rois: (R, 5).
        output: Written.
        argmax_y: Of pool mode 'max'; unused.
        argmax_x: Of pool mode 'max'; unused.
        **grid: `aligned_height` and `aligned_width` (bins), `spatial_scale` (feature cells per input pixel),
            `sampling_ratio` (samples per bin side; 0 takes one per feature cell, rounded up), `pool_mode` (1, 'avg'),
            `aligned` (whether a cell's value lies at its centre, as in RoIAlign V2, rather than at its corner).

    Raises:
        MissingError: The pool mode is 'max'.
    """
    output.copy_(_roi_align(_at_least_float32(input), rois, **grid))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **grid: Any,
) -> None:
    """Write into `grad_input` (B, C, H, W) the gradient of `roi_align_forward`; arguments as there.

    RoIAlign is linear in the feature map, so its gradient at zero is its gradient everywhere. torchvision's backward
    kernel has no public name of its own; autograd calls it.
    """
    incoming = _at_least_float32(grad_output)
    with torch.enable_grad():
        features = incoming.new_zeros(grad_input.shape, requires_grad=True)
        (gradient,) = torch.autograd.grad(_roi_align(features, rois, **grid), features, incoming)
    grad_input.copy_(gradient)


def roi_pool_forward(
    input: Tensor,  # noqa: A002
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write into `output` (R, C, pooled_height, pooled_width) the largest value of every bin of a region.

    torchvision rounds a region to whole cells, as Fast R-CNN did; mmcv's CUDA kernel rounds its bins outwards.

    Args:
        input: (B, C, H, W) feature map.
        rois: (R, 5).
        output: Written.
        argmax: Written, int32, shaped as `output`: the flat cell (y * W + x) the value came from, -1 in an empty bin.
        pooled_height: Bins down.
        pooled_width: Bins across.
        spatial_scale: Feature cells per input pixel.
    """
    features = _at_least_float32(input)
    values, cells = torch.ops.torchvision.roi_pool(
        features, rois.to(features.dtype), spatial_scale, pooled_height, pooled_width
    )
    output.copy_(values)
    argmax.copy_(cells)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add into `grad_input` (B, C, H, W) each bin's gradient at the cell that won it; arguments as in the forward."""
    channels, height, width = grad_input.shape[1:]
    image = rois[:, 0].long()[:, None, None, None]
    channel = torch.arange(channels, device=argmax.device)[None, :, None, None]
    flat = (image * channels + channel) * (height * width) + argmax.long()
    won = argmax >= 0
    gradient = grad_input.new_zeros(grad_input.numel())
    gradient.index_add_(0, flat[won], grad_output[won].to(gradient.dtype))
    grad_input.add_(gradient.view_as(grad_input))


def get_compiler_version() -> str:
    """Return what `mmcv.utils.collect_env` prints for the compiler of the operators."""
    return "none: torchvision's operators"


def get_compiling_cuda_version() -> str:
    """Return what `mmcv.utils.collect_env` prints for the CUDA version of the operators."""
    return "none: torchvision's operators"


OPERATORS: dict[str, Callable[..., Any]] = {
    operator.__name__: operator
    for operator in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        roi_pool_forward,
        roi_pool_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
"""mmcv's name of every operator that works here."""
