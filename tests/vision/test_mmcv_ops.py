"""The stand-in operators against plain numpy, and mmdet on top of them."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regionclip_cli.errors import MissingError
from regionclip_cli.vision import mmcv_ops

if not mmcv_ops.install():
    pytest.skip("mmcv brought its compiled operators", allow_module_level=True)

from mmcv import ops


def iou(a: np.ndarray, b: np.ndarray, offset: int = 0) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    inter = width * height
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return inter / (sum(areas) - inter)


def numpy_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(int(i))
    return kept


def numpy_softnms(
    boxes: np.ndarray, scores: np.ndarray, method: str, threshold: float, sigma: float, min_score: float, offset: int
) -> tuple[list[int], list[float]]:
    left, score = list(range(len(boxes))), scores.astype(np.float64)
    kept, values = [], []
    while left:
        best = max(left, key=lambda i: score[i])
        left.remove(best)
        kept.append(best)
        values.append(score[best])
        for i in left:
            overlap = iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                score[i] *= np.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                score[i] *= 0 if method == "naive" else 1 - overlap
        left = [i for i in left if score[i] >= min_score]
    return kept, values


def bilinear(channel: np.ndarray, y: float, x: float) -> float:
    """Value of a map at (y, x), where whole numbers are cells; zero more than one cell outside."""
    height, width = channel.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = channel[top, left] * (1 - fx) + channel[top, right] * fx
    lower = channel[bottom, left] * (1 - fx) + channel[bottom, right] * fx
    return float(upper * (1 - fy) + lower * fy)


def numpy_roi_align(
    maps: np.ndarray, rois: np.ndarray, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> np.ndarray:
    out = np.zeros((len(rois), maps.shape[1], *size))
    for r, (image, *box) in enumerate(rois):
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0) for value in box)
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        bin_height, bin_width = height / size[0], width / size[1]
        down = ratio or int(np.ceil(bin_height))
        across = ratio or int(np.ceil(bin_width))
        for c, channel in enumerate(maps[int(image)]):
            for i, j in np.ndindex(*size):
                samples = [
                    bilinear(
                        channel, y1 + (i + (a + 0.5) / down) * bin_height, x1 + (j + (b + 0.5) / across) * bin_width
                    )
                    for a in range(down)
                    for b in range(across)
                ]
                out[r, c, i, j] = np.mean(samples) if samples else 0
    return out


def numpy_roi_pool(maps: np.ndarray, rois: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    height, width = maps.shape[2:]
    out = np.zeros((len(rois), maps.shape[1], *size))
    for r, (image, *box) in enumerate(rois):
        x1, y1, x2, y2 = (int(np.floor(value * scale + 0.5)) for value in box)
        bin_height, bin_width = max(y2 - y1 + 1, 1) / size[0], max(x2 - x1 + 1, 1) / size[1]
        for i, j in np.ndindex(*size):
            top, bottom = (
                int(np.clip(f(k * bin_height) + y1, 0, height)) for f, k in ((np.floor, i), (np.ceil, i + 1))
            )
            left, right = (int(np.clip(f(k * bin_width) + x1, 0, width)) for f, k in ((np.floor, j), (np.ceil, j + 1)))
            if bottom > top and right > left:
                out[r, :, i, j] = maps[int(image), :, top:bottom, left:right].max(axis=(1, 2))
    return out


def random_boxes(seed: int, count: int, extent: float = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, extent, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(3, extent / 2, (count, 2))], axis=1)
    return boxes.astype(np.float32), rng.permutation(np.linspace(0.05, 0.95, count)).astype(np.float32)


ROIS = np.array(
    [[0, 3, 2, 20, 13], [1, -15, -9, 12, 50], [1, 20, 10, 80, 90], [0, 5.5, 5.5, 6, 6], [1, 0, 0, 32, 24]], np.float64
)


@given(seed=st.integers(0, 10_000), threshold=st.floats(0.1, 0.9), offset=st.sampled_from([0, 1]))
@settings(max_examples=40, deadline=None)
def test_nms_keeps_what_numpy_keeps(seed: int, threshold: float, offset: int) -> None:
    boxes, scores = random_boxes(seed, 30)
    dets, kept = ops.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    assert kept.tolist() == numpy_nms(boxes, scores, threshold, offset)
    np.testing.assert_array_equal(dets, np.column_stack([boxes, scores])[kept])


def test_nms_counts_pixels_with_an_offset() -> None:
    boxes, scores = np.array([[0, 0, 10, 10], [0, 0, 5, 10]], np.float32), np.array([0.9, 0.8], np.float32)
    # Measured, half of the first box is covered; counted in pixels, 6 of its 11 columns are.
    assert len(ops.nms(boxes, scores, iou_threshold=0.52, offset=0)[1]) == 2
    assert len(ops.nms(boxes, scores, iou_threshold=0.52, offset=1)[1]) == 1


def test_nms_stops_at_max_num_and_score_threshold() -> None:
    boxes, scores = random_boxes(3, 30)
    all_kept = numpy_nms(boxes, scores, 0.6, 0)
    assert ops.nms(boxes, scores, 0.6, max_num=4)[1].tolist() == all_kept[:4]
    confident = [i for i in all_kept if scores[i] > 0.5]
    assert ops.nms(boxes, scores, 0.6, score_threshold=0.5)[1].tolist() == confident


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_nms_takes_any_float(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[0, 0, 8, 8], [1, 0, 9, 8], [20, 20, 30, 30]], dtype=dtype)
    assert ops.nms(boxes, torch.tensor([0.5, 0.75, 0.25], dtype=dtype), 0.5)[1].tolist() == [1, 2]


def test_nms_of_nothing_is_nothing() -> None:
    dets, kept = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("seed", range(5))
def test_softnms_lowers_as_numpy_does(seed: int, method: str, offset: int) -> None:
    boxes, scores = random_boxes(seed, 25)
    dets, kept = ops.soft_nms(boxes, scores, 0.3, sigma=0.5, min_score=0.1, method=method, offset=offset)
    expected, values = numpy_softnms(boxes, scores, method, 0.3, 0.5, 0.1, offset)
    assert kept.tolist() == expected
    np.testing.assert_allclose(dets[:, 4], values, rtol=1e-5)
    np.testing.assert_array_equal(dets[:, :4], boxes[kept])
    assert len(kept) < len(boxes)


def test_softnms_keeps_boxes_without_area() -> None:
    boxes = np.array([[3, 1, 3, 1]] * 3, np.float32)
    assert len(ops.soft_nms(boxes, np.array([0.5, 0.4, 0.3], np.float32), method="gaussian")[1]) == 3


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_samples_as_numpy_does(ratio: int, aligned: bool) -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, 12, 16))
    found = ops.roi_align(torch.from_numpy(maps), torch.from_numpy(ROIS), (3, 2), 0.5, ratio, "avg", aligned)
    expected = numpy_roi_align(maps, ROIS, (3, 2), 0.5, ratio, aligned)
    assert np.abs(expected[2]).max() > 0  # A box beyond the image still sees its edge.
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_roi_align_widens_half_precision() -> None:
    maps = torch.randn(2, 3, 12, 16).bfloat16()
    found = ops.roi_align(maps, torch.from_numpy(ROIS).bfloat16(), (3, 2), 0.5, 0, "avg", True)
    exact = ops.roi_align(maps.double(), torch.from_numpy(ROIS), (3, 2), 0.5, 0, "avg", True)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_gradient(aligned: bool) -> None:
    maps = torch.randn(2, 2, 6, 8, dtype=torch.float64, requires_grad=True)
    rois = torch.from_numpy(ROIS)
    assert torch.autograd.gradcheck(lambda x: ops.roi_align(x, rois, (2, 3), 0.25, 0, "avg", aligned), maps)


def test_roi_align_has_no_maximum() -> None:
    with pytest.raises(MissingError, match="pool_mode 'max'"):
        ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max", True)


def test_roi_pool_takes_maxima_as_numpy_does() -> None:
    maps = np.random.default_rng(1).standard_normal((2, 3, 12, 16))
    found = ops.roi_pool(torch.from_numpy(maps), torch.from_numpy(ROIS), (3, 2), 0.5)
    np.testing.assert_allclose(found.numpy(), numpy_roi_pool(maps, ROIS, (3, 2), 0.5))


def test_roi_pool_gradient() -> None:
    # Values a permutation apart, so that a finite difference never changes which cell is the largest.
    values = torch.randperm(2 * 2 * 6 * 8, generator=torch.Generator().manual_seed(0))
    maps = values.double().view(2, 2, 6, 8).requires_grad_()
    rois = torch.from_numpy(ROIS)
    assert torch.autograd.gradcheck(lambda x: ops.roi_pool(x, rois, (2, 3), 0.25), maps)


def test_batched_nms_keeps_classes_apart() -> None:
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 9], [0, 0, 9, 8]])
    dets, kept = ops.batched_nms(
        boxes, torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 0, 1]), {"type": "nms", "iou_threshold": 0.5}
    )
    assert kept.tolist() == [1, 2]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.8]))


def test_mmdet_imports() -> None:
    assert importlib.import_module("mmdet.models").FasterRCNN


def test_other_operators_name_themselves() -> None:
    with pytest.raises(MissingError, match="'box_iou_rotated' is not in this installation") as failure:
        ops.box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))
    assert "mmcv.readthedocs.io" in failure.value.hint


def test_environment_report_works() -> None:
    from mmengine.utils.dl_utils import mmcv_full_available

    assert "torchvision" in ops.get_compiler_version()
    assert "torchvision" in ops.get_compiling_cuda_version()
    # Reads `__spec__` of the stand-in, and says the truth: this is not the compiled module.
    assert not mmcv_full_available()


def test_install_is_idempotent() -> None:
    module = sys.modules[mmcv_ops.NAME]
    assert mmcv_ops.install()
    assert sys.modules[mmcv_ops.NAME] is module


def test_the_compiled_module_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = ModuleType(mmcv_ops.NAME)
    monkeypatch.setitem(sys.modules, mmcv_ops.NAME, compiled)
    assert not mmcv_ops.install()
    assert sys.modules[mmcv_ops.NAME] is compiled

    monkeypatch.delitem(sys.modules, mmcv_ops.NAME)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleSpec(name, loader=None))
    assert not mmcv_ops.install()
    assert mmcv_ops.NAME not in sys.modules
