"""Detectors as ONNX graphs: trunk, proposals, regions and text, the four parts that are computed apart.

    NAME.onnx             images (B, 3, H, W) uint8 RGB -> feature maps
    NAME.proposals.onnx   a feature map or the images   -> boxes (B, N, 4) and objectness logits (B, N) before NMS
    NAME.regions.onnx     feature maps and boxes (R, 4) -> embeddings (R, D)
    NAME.text.onnx        tokens (P, L)                 -> text embeddings (P, D)

All sizes are dynamic. Top-k, non-maximum suppression and the classifier are left to the caller
(`inference.engines.onnx_engine`), since users change their settings and classes at run time.

The graphs are traced by torch's TorchScript-based exporter: these networks have no control flow, and tracing takes
seconds where `torch.export` with symbolic sizes took eighteen minutes for the packaged model.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import whole_file
from regionclip_cli.hub.graphs import GRAPH_KEY, GRAPH_VERSION, GraphFacts, ProposalFacts, graph_path
from regionclip_cli.hub.model_card import METADATA_KEY, ModelCard, fingerprint, read_header
from regionclip_cli.language.text_tower import TextTower, load_text_tower
from regionclip_cli.vision.backbones.base import Backbone
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.linear_classifier import LinearClassifier
from regionclip_cli.vision.model_io import load_detector
from regionclip_cli.vision.proposals.fpn_trunk import FpnTrunk
from regionclip_cli.vision.proposals.pixel_rpn import PixelRpn
from regionclip_cli.vision.proposals.static import GivenBoxes
from regionclip_cli.vision.proposals.trunk_rpn import TrunkRpn

OPSET = 18
"""RoIAlign with half-pixel coordinates needs 16, antialiased resizing 18."""

MANY = 1 << 20
"""Number of regions for which a backbone plans: many, so that linear layers run on the map."""

TRACE_SIZE = (160, 224)
"""Height and width in pixels of the traced image; the graph takes any other."""

_BELOW_THIS_INLINE = 64
"""Values that a tensor may have to stay inside the graph file."""


@dataclass(frozen=True)
class Exported:
    """One graph that was written.

    Attributes:
        path: The file.
        part: trunk, proposals, regions or text.
        size: Size of the file in bytes.
    """

    path: Path
    part: str
    size: int


@dataclass(frozen=True)
class _Network:
    """A part of a detector to be traced.

    Attributes:
        part: trunk, proposals, regions or text.
        module: The network.
        inputs: Example inputs.
        input_names: Names of the graph's inputs.
        output_names: Names of its outputs.
        axes: Names of the dynamic axes of inputs and outputs.
    """

    part: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: Sequence[str]
    output_names: Sequence[str]
    axes: Mapping[str, Mapping[int, str]]


class Trunk(nn.Module):
    """Images (B, 3, H, W) uint8 RGB to the distinct maps (B, c, h, w) that later graphs read."""

    def __init__(self, backbone: Backbone, keep_features: bool) -> None:
        super().__init__()
        self.backbone, self.keep_features = backbone, keep_features
        self.grids: list[dict[str, int | str]] = []
        self.names: list[str] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the distinct maps, and note in `grids` how each is cut."""
        features = self.backbone.trunk(self.backbone.normalise(images))
        grids = self.backbone.plan(features, MANY, True).grids
        outputs = [("features", features)] if self.keep_features else []
        self.grids = []
        for grid in grids:
            known = next((name for name, tensor in outputs if tensor is grid.features), None)
            if known is None:
                known = "features" if grid.features is features else f"map_{len(outputs)}"
                outputs.append((known, grid.features))
            self.grids.append({"map": known, "side": grid.side, "average": grid.average})
        self.names = [name for name, _ in outputs]
        return tuple(tensor for _, tensor in outputs)


class ProposalHead(nn.Module):
    """A feature map or images (B, 3, H, W) to boxes (B, N, 4), logits (B, N) and the number of boxes of each level."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, logits and the number of boxes of each level (L,)."""
        source = self.source
        if isinstance(source, FpnTrunk):
            logits, distances = source.dense(inputs)
            points = self._priors(source.head, logits)
            decoded = [
                torch.cat([centre - sides[..., :2], centre + sides[..., 2:]], dim=-1)
                for centre, sides in zip(points, (each.flatten(2).transpose(1, 2) for each in distances), strict=True)
            ]
            scores = [each.flatten(1) for each in logits]
        else:
            head = source.rpn_head
            if isinstance(source, PixelRpn):
                maps = source.backbone(source.prepare(inputs.float()))
                logits, deltas = head(source.neck(maps) if source.neck is not None else maps)
            else:
                logits, deltas = head((inputs,))
            decoded, scores = [], []
            for anchors, logit, delta in zip(self._priors(head, logits), logits, deltas, strict=True):
                scores.append(logit.permute(0, 2, 3, 1).flatten(1))
                rows = delta.permute(0, 2, 3, 1).reshape(delta.shape[0], -1, 4)
                decoded.append(head.bbox_coder.decode(anchors.expand_as(rows), rows))
        levels = torch.stack([torch.as_tensor(each.shape[1]) for each in scores])
        return torch.cat(decoded, dim=1), torch.cat(scores, dim=1), levels

    def _priors(self, head: Any, logits: Sequence[Tensor]) -> list[Tensor]:
        sizes = [(level.shape[-2], level.shape[-1]) for level in logits]
        priors: list[Tensor] = head.prior_generator.grid_priors(sizes, dtype=torch.float32, device=logits[0].device)
        return priors


class Regions(nn.Module):
    """Maps (B, c, h, w), boxes (R, 4) in network pixels and the image of each box (R,) to embeddings (R, D)."""

    def __init__(self, detector: OpenVocabularyDetector, grids: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.detector, self.grids = detector, grids
        self.names = ["embeddings"]

    def forward(self, boxes: Tensor, image: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        """Return embeddings, and the output of a box head and of a learned classifier where the model has them."""
        distinct = list(dict.fromkeys(grid["map"] for grid in self.grids))
        by_name = dict(zip(distinct, maps, strict=True))
        cuts = [cut(by_name[g["map"]], boxes, image, self.detector.backbone.stride, g["side"], g["average"])
                for g in self.grids]  # fmt: skip
        backbone = self.detector.backbone
        # Only the plan's second half is used; the trunk's graph computes the maps.
        pool = backbone.plan(torch.zeros(1, backbone.channels, 2, 2), MANY, True).pool
        embeddings = pool(*cuts).float()
        outputs, names = [embeddings], ["embeddings"]
        if self.detector.box_head is not None:
            outputs.append(self.detector.box_head(embeddings))
            names.append("deltas")
        if isinstance(self.detector.classifier, LinearClassifier):
            outputs.append(self.detector.classifier(embeddings))
            names.append("logits")
        self.names = names
        return tuple(outputs)


class Text(nn.Module):
    """Tokens (P, L) int64 to text embeddings (P, D)."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what open_clip's `encode_text` returns, for prompts of any length l <= L."""
        clip, length = self.tower.clip, tokens.shape[1]
        x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=None if clip.attn_mask is None else clip.attn_mask[:length, :length])
        pooled = text_global_pool(
            clip.ln_final(x), tokens, clip.text_pool_type, eos_token_id=getattr(clip, "text_eos_id", None)
        )
        projection = clip.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection


class SelfAttention(nn.Module):
    """What `nn.MultiheadAttention` computes for one sequence; the tracer would freeze the length of that module's.

    Args:
        attention: The module whose weights are used.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj, self.num_heads, self.batch_first = attention.out_proj, attention.num_heads, attention.batch_first

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Return attention of `query` (B, n, c), or (n, B, c), to itself; key and value must be the same tensor."""
        x = query if self.batch_first else query.transpose(0, 1)
        batch, length, channels = x.shape[0], x.shape[1], x.shape[2]
        width = self.in_proj_weight.shape[1] // self.num_heads
        parts = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.reshape(batch, length, self.num_heads, width).transpose(1, 2) for part in parts)
        logits = q @ k.transpose(-1, -2) * width**-0.5
        if attn_mask is not None:
            logits = logits + attn_mask
        mixed = (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, channels)
        out = self.out_proj(mixed)
        return (out if self.batch_first else out.transpose(0, 1)), None


def _make_traceable(module: nn.Module) -> None:
    """Replace the attention modules inside a network by those above, with the same weights."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention) and child.in_proj_weight is not None:
                setattr(parent, name, SelfAttention(child))


def cut(cells: Tensor, boxes: Tensor, image: Tensor, stride: int, side: int, average: int) -> Tensor:
    """Return RoIAlign's bins (R, c, side / average, side / average), neighbours averaged.

    The mean of all bins of a box is one product of matrices; anything finer is ONNX's RoiAlign.
    """
    if average == side > 1:
        return _mean_of_bins(cells, boxes, image, 1 / stride, side)
    rois = torch.cat([image.to(boxes.dtype)[:, None], boxes], dim=1)
    bins = roi_align(cells, rois, side, 1 / stride, sampling_ratio=0, aligned=True)
    return functional.avg_pool2d(bins, average) if average > 1 else bins


def _mean_of_bins(cells: Tensor, boxes: Tensor, image: Tensor, scale: float, side: int) -> Tensor:
    """Return the mean of RoIAlign's bins, (R, c, 1, 1)."""
    x1, y1, x2, y2 = (boxes * scale - 0.5).unbind(dim=1)
    rows = _mean_weights(y1, y2 - y1, side, cells.shape[2])  # (R, h)
    columns = _mean_weights(x1, x2 - x1, side, cells.shape[3])  # (R, w)
    weights = (rows[:, :, None] * columns[:, None, :]).flatten(1)  # (R, h * w)
    batch = torch.arange(cells.shape[0], device=cells.device)
    own = (image[:, None] == batch[None]).to(cells.dtype)  # (R, B)
    table = cells.permute(0, 2, 3, 1).reshape(-1, cells.shape[1])  # (B * h * w, c)
    mean = (own[:, :, None] * weights[:, None, :]).flatten(1) @ table
    return mean[:, :, None, None]


def _mean_weights(start: Tensor, length: Tensor, side: int, size: Any) -> Tensor:
    """Return the weight of each of `size` cells in the mean over all points of each box along one axis, (R, size).

    RoIAlign reads ceil(length / side) points in each of its bins; together they are evenly spaced. A point weighs the
    two cells around it linearly; points more than one cell outside the map count as zero.
    """
    points = (torch.ceil(length / side).clamp(min=0) * side)[:, None]  # (R, 1)
    number = torch.arange(size + 2 * side, device=start.device)  # a box inside the map has no more points
    at = start[:, None] + (number + 0.5) * length[:, None] / points.clamp(min=1)  # (R, n)
    share = ((number < points) & (at >= -1) & (at <= size)).to(start.dtype) / points.clamp(min=1)
    cell = torch.arange(size, device=start.device)
    at = torch.minimum(at.clamp(min=0), cell[-1].to(at.dtype))
    hat = (1 - (at[:, :, None] - cell).abs()).clamp(min=0)  # (R, n, size)
    return torch.bmm(share[:, None, :], hat)[:, 0]


def export_graphs(path: Path, target: Path, *, half: bool = False, share_weights: bool = False) -> list[Exported]:
    """Write the graphs of a model file.

    Args:
        path: A model file.
        target: `NAME.onnx`, the graph of the trunk; the other graphs go beside it.
        half: Store weights as float16. They are converted to float32 when the graph is loaded.
        share_weights: Refer to the weights in the model file, as ONNX external data, where it has them. `target` must
            lie in the same folder as `path`.

    Raises:
        MissingError: The package `onnx` is not installed.
        UsageError: A network cannot be exported.
        OutputError: A file cannot be written.
    """
    detector, card = load_detector(path)
    detector.requires_grad_(True)  # without gradients the backbones would fold their batch norms beforehand
    backbone, source = detector.backbone, detector.proposals
    _make_traceable(backbone)
    proposals = _proposal_facts(source, card)
    on_trunk = proposals is not None and proposals.reads == "features"
    images = torch.randint(0, 255, (1, 3, *TRACE_SIZE), dtype=torch.uint8)
    writer = _Writer(path, target, card, half, share_weights)

    trunk = Trunk(backbone, keep_features=on_trunk)
    with torch.no_grad():
        maps = trunk(images)
    grids = trunk.grids
    writer.facts = GraphFacts(
        version=GRAPH_VERSION,
        fingerprint=fingerprint(path),
        maps=tuple(trunk.names),
        grids=tuple(dict.fromkeys(str(grid["map"]) for grid in grids)),
        embed_dim=backbone.embed_dim,
        proposals=proposals,
    )
    spatial = {0: "batch", 2: "height", 3: "width"}
    sizes = {name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in trunk.names}
    writer.write(_Network("trunk", trunk, (images,), ["images"], trunk.names, {"images": spatial, **sizes}))
    by_name = dict(zip(trunk.names, maps, strict=True))
    if proposals is not None:
        inputs = by_name["features"] if on_trunk else images
        axes = {proposals.reads: spatial, "boxes": {0: "batch", 1: "boxes"}, "logits": {0: "batch", 1: "boxes"}}
        names = ["boxes", "logits", "levels"]
        writer.write(_Network("proposals", ProposalHead(source), (inputs,), [proposals.reads], names, axes))

    regions = Regions(detector, grids)
    boxes = torch.tensor([[8.0, 16, 90, 100], [40, 8, 200, 150], [100, 60, 130, 90]])
    index = torch.zeros(len(boxes), dtype=torch.int64)
    read = [by_name[name] for name in writer.facts.grids]
    with torch.no_grad():
        regions(boxes, index, *read)
    axes = {"boxes": {0: "regions"}, "image": {0: "regions"}, **{name: {0: "regions"} for name in regions.names}}
    axes |= {name: sizes[name] for name in writer.facts.grids}
    inputs_of = ["boxes", "image", *writer.facts.grids]
    writer.write(_Network("regions", regions, (boxes, index, *read), inputs_of, regions.names, axes))

    if "text" in card.parts:
        tower = load_text_tower(path, card)
        _make_traceable(tower)
        tokens = torch.arange(2 * min(8, tower.context_length)).view(2, -1) % tower.clip.token_embedding.num_embeddings
        writer.facts = writer.facts.model_copy(
            update={"context_length": tower.context_length, "cut_prompts": bool(tower.clip.attn_mask is not None)}
        )
        axes = {"tokens": {0: "prompts", 1: "length"}, "embeddings": {0: "prompts"}}
        writer.write(_Network("text", Text(tower), (tokens,), ["tokens"], ["embeddings"], axes))
    return writer.written


def _proposal_facts(source: Any, card: ModelCard) -> ProposalFacts | None:
    """Return what selects proposals; None for a model that needs boxes from outside.

    Raises:
        UsageError: The source cannot be exported.
    """
    if isinstance(source, GivenBoxes):
        return None
    if not isinstance(source, FpnTrunk | TrunkRpn | PixelRpn):
        kind = (card.proposals or {}).get("type")
        raise UsageError(f"The proposals {kind!r} of {card.name} cannot be exported to ONNX.")
    how = source.selection
    return ProposalFacts(
        reads="images" if isinstance(source, PixelRpn) else "features",
        nms_iou=how.nms_iou,
        pre_nms=how.pre_nms,
        max_proposals=how.max_proposals,
        across_levels=isinstance(source, FpnTrunk),
    )


class _Writer:
    """Traces modules and writes them as graphs with the model's card."""

    facts: GraphFacts

    def __init__(self, path: Path, target: Path, card: ModelCard, half: bool, share: bool) -> None:
        self.card, self.target, self.half, self.path = card, target, half, path
        self.written: list[Exported] = []
        self._stored: dict[tuple[tuple[int, ...], str], tuple[str, int, int]] = _stored_weights(path) if share else {}

    def write(self, network: _Network) -> None:
        """Trace a network and write its graph."""
        onnx = _onnx()
        graph = onnx.load_from_string(_traced(network))
        self._place_weights(graph)
        graph.producer_name = "regionclip"
        facts = self.facts.model_copy(update={"part": network.part})
        metadata = {METADATA_KEY: self.card.model_dump_json(), GRAPH_KEY: facts.model_dump_json()}
        onnx.helper.set_model_props(graph, metadata)
        path = graph_path(self.target, network.part)
        with whole_file(path) as unfinished:
            unfinished.write_bytes(graph.SerializeToString())
        self.written.append(Exported(path, network.part, path.stat().st_size))

    def _place_weights(self, model: Any) -> None:
        """Move weights to where they are stored: the model file, or float16 in the graph."""
        onnx = _onnx()
        casts: list[Any] = []
        for tensor in model.graph.initializer:
            if tensor.data_type != onnx.TensorProto.FLOAT:
                continue
            array = onnx.numpy_helper.to_array(tensor)
            if array.size < _BELOW_THIS_INLINE:
                continue
            stored = self._stored.get((array.shape, _digest(array.tobytes())))
            if stored is None and not self.half:
                continue
            name, dtype, offset, length = tensor.name, "F16", 0, 0
            if stored is not None:
                dtype, offset, length = stored
            if dtype == "F16":
                tensor.name = f"{name}_half"
                casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
                half = onnx.numpy_helper.from_array(array.astype("float16"), tensor.name)
                tensor.CopyFrom(half)
            if stored is not None:
                onnx.external_data_helper.set_external_data(tensor, self.path.name, offset, length)
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
        nodes = [*casts, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _stored_weights(path: Path) -> dict[tuple[tuple[int, ...], str], tuple[str, int, int]]:
    """Return {(shape, digest of the float32 values): (dtype, offset, length)} of the tensors in a model file."""
    from safetensors import safe_open

    header = read_header(path)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    found = {}
    with safe_open(path, framework="np") as tensors:
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] in ("F16", "F32"):
                values = tensors.get_tensor(name).astype("float32")
                begin, end = entry["data_offsets"]
                found[values.shape, _digest(values.tobytes())] = (entry["dtype"], start + begin, end - begin)
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _traced(network: _Network) -> bytes:
    """Return the ONNX model of a network.

    Raises:
        UsageError: It has an operator that ONNX lacks; the message names it.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # of the tracer, about sizes that do not depend on the image
        try:
            torch.onnx.export(
                network.module.eval(),
                network.inputs,
                buffer,  # type: ignore[arg-type]
                input_names=list(network.input_names),
                output_names=list(network.output_names),
                dynamic_axes=network.axes,
                opset_version=OPSET,
                do_constant_folding=False,
                dynamo=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as err:
            operator = re.search(r"'?(\w+::\w+)'?", str(err))
            what = f"the operator {operator[1]}" if operator else (str(err).strip().splitlines() or ["unknown"])[0]
            raise UsageError(
                f"The {network.part} network cannot be exported to ONNX: {what} is not supported."
            ) from err
    return buffer.getvalue()


def _onnx() -> Any:
    """Import onnx.

    Raises:
        MissingError: It is not installed.
    """
    try:
        import onnx
        import onnx.external_data_helper
        import onnx.numpy_helper
    except ImportError as err:
        raise MissingError(
            "Exporting to ONNX needs the package onnx.", "pip install 'regionclip-cli[onnx]' installs it."
        ) from err
    return onnx
