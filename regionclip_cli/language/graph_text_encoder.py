"""The text encoder of an exported model, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from regionclip_cli.hub.graphs import GraphFacts
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.language.phrase_encoder import DISK_CACHE, PROMPTS_PER_CALL, TOKEN_STEP, PhraseEncoder
from regionclip_cli.language.templates import content_hash
from regionclip_cli.language.text_cache import TextCache


class GraphTextEncoder(PhraseEncoder):
    """A text encoder whose graph is opened when a phrase is not in the cache.

    Args:
        card: Of the model.
        facts: Of its graphs.
        open_graph: Returns the opened text graph: `facts`, and `run(tokens=...)` to `embeddings`.
        cache: Where embeddings are kept between runs; None keeps none.
    """

    def __init__(
        self,
        card: ModelCard,
        facts: GraphFacts,
        open_graph: Callable[[], Any],
        cache: TextCache | None = DISK_CACHE,
    ) -> None:
        super().__init__(card, cache)
        self._facts, self._open = facts, open_graph
        self._graph: Any = None

    @property
    def dim(self) -> int:
        """Return D, the dimension of the embeddings."""
        return self._facts.embed_dim

    def _features(self, prompts: list[str]) -> np.ndarray:
        from regionclip_cli.language.tokenizer import tokenize

        if self._graph is None:
            self._graph = self._open()
        facts = self._graph.facts
        tokens = tokenize(prompts, facts.context_length)
        lengths = np.full(len(tokens), facts.context_length)
        if facts.cut_prompts:
            ends = tokens.argmax(1) + 1  # the end token has the highest number
            lengths = np.minimum(-(-ends // TOKEN_STEP) * TOKEN_STEP, facts.context_length)
        features = np.empty((len(tokens), self.dim), np.float32)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            for start in range(0, len(rows), PROMPTS_PER_CALL):
                some = rows[start : start + PROMPTS_PER_CALL]
                full = np.zeros((PROMPTS_PER_CALL, length), np.int64)
                full[: len(some)] = tokens[some, :length]
                features[some] = self._graph.run(tokens=full)["embeddings"][: len(some)]
        return features

    def _cache_key(self, name: str) -> str:
        shape = f"cpu-{PROMPTS_PER_CALL}x{TOKEN_STEP}"
        return f"{self._facts.fingerprint} {name} {content_hash(name)} onnx {shape}"
