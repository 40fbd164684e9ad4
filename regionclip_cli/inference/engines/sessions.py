"""ONNX Runtime sessions of a model's graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import parsing
from regionclip_cli.hub.graphs import GRAPH_KEY, GRAPH_VERSION, GraphFacts, GraphPart, graph_path
from regionclip_cli.hub.model_card import METADATA_KEY, ModelCard

_AGAIN = "Export the model again with `regionclip models export NAME FILE.onnx`."


class Graph:
    """One graph, opened.

    Args:
        trunk: `NAME.onnx`, the graph of the trunk.
        part: Which graph of the model to open.
        fingerprint: Of the model that it must belong to; None accepts any.

    Raises:
        MissingError: The file or the package onnxruntime is missing.
        UsageError: The file is damaged, no graph of ours, of another version, or of another model.
    """

    def __init__(self, trunk: Path, part: GraphPart, fingerprint: str | None = None) -> None:
        self.path = graph_path(trunk, part)
        if not self.path.is_file():
            raise MissingError(f"The graph {self.path} does not exist.", _AGAIN)
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        # Idle threads of one graph would spin and take the cores from the next one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with parsing(f"{self.path} cannot be loaded by ONNX Runtime", _AGAIN):
            self._session = runtime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            self.facts = GraphFacts.model_validate_json(metadata.get(GRAPH_KEY, ""))
            self.card = ModelCard.model_validate_json(metadata.get(METADATA_KEY, ""))
        except ValidationError as err:
            raise UsageError(f"{self.path} is not a graph of a regionclip model.", _AGAIN) from err
        if self.facts.version != GRAPH_VERSION or self.facts.part != part:
            raise UsageError(
                f"{self.path} is a {self.facts.part} graph of version {self.facts.version}; "
                f"a {part} graph of version {GRAPH_VERSION} is needed.",
                _AGAIN,
            )
        if fingerprint is not None and self.facts.fingerprint != fingerprint:
            raise UsageError(f"{self.path} was exported from other weights than the model has.", _AGAIN)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name.

        Raises:
            UsageError: The graph cannot process the inputs, for example an image that is too small.
        """
        shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
        with parsing(f"{self.path} cannot process {shapes}"):
            return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))


def _runtime() -> Any:
    """Import onnxruntime.

    Raises:
        MissingError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as err:
        raise MissingError(
            "The package onnxruntime is not installed.", "Run `pip install onnxruntime`, or use --engine torch."
        ) from err
    return onnxruntime
