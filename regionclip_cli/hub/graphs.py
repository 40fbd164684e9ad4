"""ONNX graphs of a model: which files they are, and what their metadata is called."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from regionclip_cli.hub.store import SUFFIX

GRAPH_KEY = "regionclip_graph"
GRAPH_VERSION = 1
"""Version of the graphs' inputs, outputs and metadata."""

GraphPart = Literal["trunk", "proposals", "regions", "text"]
ONNX = ".onnx"


class ProposalFacts(BaseModel):
    """How boxes are selected from the output of the proposals graph.

    Attributes:
        reads: The input of the graph: the trunk's features, or the images.
        nms_iou: Overlap above which the lesser of two proposals is dropped.
        pre_nms: Proposals of each level that take part in NMS.
        max_proposals: Proposals of an image at most.
        across_levels: Whether boxes of different levels suppress one another.
    """

    model_config = ConfigDict(frozen=True)

    reads: Literal["features", "images"]
    nms_iou: float
    pre_nms: int
    max_proposals: int
    across_levels: bool


class GraphFacts(BaseModel):
    """The metadata of a graph besides the model's card.

    Attributes:
        version: Of the graphs' inputs, outputs and metadata.
        part: Which graph it is.
        fingerprint: Of the model file that was exported.
        maps: Outputs of the trunk graph.
        grids: Those of them that the regions graph reads, in the order of its inputs.
        embed_dim: Dimension D of the embeddings.
        proposals: How proposals are selected; None for a model that needs boxes from outside.
        context_length: Tokens of a prompt at most.
        cut_prompts: Whether tokens after the end token change nothing, so that they can be left out.
    """

    model_config = ConfigDict(frozen=True)

    version: int
    part: GraphPart = "trunk"
    fingerprint: str
    maps: tuple[str, ...]
    grids: tuple[str, ...]
    embed_dim: int
    proposals: ProposalFacts | None = None
    context_length: int = 77
    cut_prompts: bool = True


def graph_path(trunk: Path, part: str) -> Path:
    """Return the file of a part beside `NAME.onnx`, which is the trunk: `NAME.regions.onnx`."""
    return trunk if part == "trunk" else trunk.with_name(f"{trunk.name.removesuffix(ONNX)}.{part}{ONNX}")


def graph_beside(model: Path) -> Path | None:
    """Return the trunk graph of a model file: itself, or a file of the same name beside it; None without one."""
    if model.suffix == ONNX:
        return model
    graph = model.with_name(model.name.removesuffix(SUFFIX) + ONNX)
    return graph if graph.is_file() else None
