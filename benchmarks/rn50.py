"""The paper's RN50 detector on one image of 750 x 1333 pixels: seconds, and which part they go to.

Weights are random: the work does not depend on them. The proposal network is run and timed like any other, but the
boxes that go on are drawn here, as many as wanted and of many sizes; those of a random network are neither.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

CHECKED = 48
"""Boxes for which the plain path is run too; it is slow."""


def measure(dtype_name: str, proposals: int, height: int, width: int, classes: int, repeats: int, threads: int) -> dict:
    """Return seconds an image, the share of each part, the difference to the plain path and the peak memory.

    Args:
        dtype_name: "float32" or "bfloat16".
        proposals: Boxes of the image.
        height: Of the network's input, pixels.
        width: Of the network's input, pixels.
        classes: Concepts to tell apart.
        repeats: Timed runs; the fastest counts, after one that does not.
        threads: CPU threads; 0 leaves them alone.
    """
    import torch
    from mmdet.structures import DetDataSample

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    boxes = drawn_boxes(proposals, height, width)
    detector = build(boxes).cast(getattr(torch, dtype_name)).eval()
    detector.set_concepts(torch.randn(classes, detector.backbone.embed_dim))
    image = torch.rand(1, 3, height, width) * 255
    meta = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}

    def once() -> dict[str, float]:
        parts: dict[str, float] = defaultdict(float)
        with torch.inference_mode(), timed(detector, parts):
            start = time.perf_counter()
            detector.predict(image, [DetDataSample(metainfo=meta)])
            parts["total"] = time.perf_counter() - start
        return dict(parts)

    once()
    runs = sorted((once() for _ in range(repeats)), key=lambda run: run["total"])
    best = runs[0]
    total = best.pop("total")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # before the plain path, which needs its own
    shares = {part: round(seconds / total, 3) for part, seconds in best.items()}
    shares["scores, suppression, rest"] = round(1 - sum(shares.values()), 3)
    return {
        "seconds an image": round(total, 2),
        "median seconds": round(median([total, *(run["total"] for run in runs[1:])]), 2),
        "shares": shares,
        "threads": torch.get_num_threads(),
        "peak memory, GiB": round(memory, 2),
        **differences(detector, image, boxes),
    }


def build(boxes: Any) -> Any:
    """Return an RN50 detector with an R50-FPN proposal network, whose boxes are replaced by the given ones."""
    import torch

    from regionclip_cli.vision.backbones import build_backbone
    from regionclip_cli.vision.detector import OpenVocabularyDetector
    from regionclip_cli.vision.proposals.base import Proposals, ProposalSource
    from regionclip_cli.vision.proposals.build import build_proposals

    class SampledDataset(ProposalSource):
        """Runs a proposal network for its time, and answers with other boxes."""

        needs_features = False

        def __init__(self, network: ProposalSource) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Any, samples: Sequence[Any], features: Any) -> list[Proposals]:
            """Return the drawn boxes for every image."""
            self.network(images, samples, features)
            return [Proposals(boxes, torch.linspace(4, -4, len(boxes))) for _ in samples]

    backbone = build_backbone("clip-rn50")
    for name, parameter in backbone.named_parameters():
        if name.endswith("bn3.weight"):  # zero at the start of a training, which would leave the shortcuts only
            torch.nn.init.constant_(parameter, 0.3)
    return OpenVocabularyDetector(backbone, SampledDataset(build_proposals({"type": "rpn-fpn"})))


def drawn_boxes(count: int, height: int, width: int) -> Any:
    """Return (count, 4) boxes inside the image; half are below 120 pixels, a tenth above 330."""
    import torch

    generator = torch.Generator().manual_seed(0)
    sizes = torch.exp(0.8 * torch.randn(count, 2, generator=generator) + 4.8)
    limits = torch.tensor([width, height])
    sizes = torch.minimum(sizes, limits)
    corners = torch.rand(count, 2, generator=generator) * (limits - sizes)
    return torch.cat([corners, corners + sizes], dim=1)


@contextmanager
def timed(detector: Any, parts: dict[str, float]) -> Any:
    """Add up the seconds that the parts of a detector take while the block runs."""

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            parts[part] += time.perf_counter() - start
            return result

        return run

    places = [(detector, "extract_feat", "trunk"), (detector, "propose", "proposals")]
    places.append((detector.region_encoder, "forward", "regions"))
    for owner, method, part in places:
        setattr(owner, method, clocked(part, getattr(owner, method)))
    try:
        yield
    finally:
        for owner, method, _ in places:
            delattr(owner, method)


def differences(detector: Any, image: Any, boxes: Any) -> dict[str, float]:
    """Return how far embeddings are from the plain path's: torchvision's RoIAlign and open_clip's own modules."""
    import torch

    from regionclip_cli.vision.region_encoder import RegionEncoder

    with torch.inference_mode():
        features = detector.extract_feat(image)
        fast = detector.region_encoder(features, [boxes])[:CHECKED]
        plain = RegionEncoder(detector.backbone, path="plain")(features, [boxes[:CHECKED]])
    cosine = torch.nn.functional.cosine_similarity(fast, plain)
    return {
        "largest difference to the plain path": float((fast - plain).abs().max()),
        "largest value": float(plain.abs().max()),
        "smallest cosine to the plain path": float(cosine.min()),
    }
