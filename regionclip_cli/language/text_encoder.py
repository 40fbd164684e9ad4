"""Phrases to embeddings: the frozen language encoder of a model file, behind a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regionclip_cli.hub.model_card import fingerprint, read_card
from regionclip_cli.language.phrase_encoder import DISK_CACHE, PROMPTS_PER_CALL, TOKEN_STEP, PhraseEncoder
from regionclip_cli.language.templates import content_hash
from regionclip_cli.language.text_cache import TextCache
from regionclip_cli.language.text_tower import TextTower, clip_config, load_text_tower

PROMPTS_PER_CALL_GPU = 128


class TextEncoder(PhraseEncoder):
    """The language encoder of one model. Its weights are read when a phrase is not in the cache.

    The embedding of a phrase depends on the phrase, the weights and the machine, and neither on the other phrases of
    the call nor on the contents of the cache: two encoders return the same bits.

    Args:
        path: A model file.
        device: Where the encoder runs.
        cache: Where embeddings are kept between runs, by default the user's cache folder; None keeps none.
        dtype: Precision of the weights; `torch.bfloat16` takes half the memory, and less time where the processor has
            instructions for it. The cache keeps the precisions apart.
        batch: Prompts in a forward pass; by default 32 on a CPU and 128 elsewhere. Embeddings of encoders with
            different values differ in the last digits.

    Raises:
        MissingError: The file does not exist.
        UsageError: It is not a model file.
    """

    def __init__(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        cache: TextCache | None = DISK_CACHE,
        dtype: torch.dtype = torch.float32,
        batch: int | None = None,
    ) -> None:
        super().__init__(read_card(path), cache)
        self._path = path
        self._device = torch.device(device)
        self._dtype = dtype
        self._batch = batch or (PROMPTS_PER_CALL if self._device.type == "cpu" else PROMPTS_PER_CALL_GPU)
        self._tower: TextTower | None = None
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Return D, the dimension of the embeddings."""
        if self._dim is None:
            self._dim = int(clip_config(self.card)["embed_dim"])
        return self._dim

    def encode(
        self, phrases: Sequence[str], templates: str | None = None, progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Embed N phrases, each as the mean over T templates of its text features.

        Neither the features nor their mean are normalised: this is how the official embeddings were made
        (RegionCLIP's `extract_concept_features`). Normalise them before comparing.

        Args:
            phrases: N names or descriptions, in any script; duplicates are computed once.
            templates: A template set of `language.templates`; by default that of the model's card.
            progress: Called with the number of phrases just finished, found in the cache or computed.

        Returns:
            (N, D) float32 on the CPU, rows in the order of `phrases`.

        Raises:
            MissingError: The model has no text encoder.
            UsageError: `phrases` is empty, one of them is empty or not text, or the template set is unknown.
        """
        return torch.from_numpy(self.embed(phrases, templates, progress))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return tokens (P, L) int64 of P texts; see `TextTower.tokenize` for texts that are too long."""
        return self._loaded().tokenize(texts)

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return the features (P, D) float32, not normalised, of tokens (P, L), on the encoder's device.

        Every forward pass takes a full batch, filled up with empty prompts, of prompts of one length in steps of
        `TOKEN_STEP`, so that the features of a prompt do not depend on the others.
        """
        tower = self._loaded()
        features = torch.empty(len(tokens), self.dim, device=self._device)
        lengths = tower.lengths(tokens, TOKEN_STEP)  # (P,)
        for length in lengths.unique().tolist():
            for rows in (lengths == length).nonzero().squeeze(1).split(self._batch):
                full = tokens.new_zeros(self._batch, length)
                full[: len(rows)] = tokens[rows, :length]
                features[rows.to(self._device)] = tower(full.to(self._device))[: len(rows)].float()
        return features

    def _features(self, prompts: list[str]) -> np.ndarray:
        return self.encode_tokens(self.tokenize(prompts)).cpu().numpy()

    def _cache_key(self, name: str) -> str:
        """Return what the embeddings depend on besides the phrase."""
        precision = str(self._dtype).removeprefix("torch.")
        shape = f"{self._device.type}-{self._batch}x{TOKEN_STEP}"
        return f"{fingerprint(self._path)} {name} {content_hash(name)} {precision} {shape}"

    def _loaded(self) -> TextTower:
        if self._tower is None:
            self._tower = load_text_tower(self._path, self.card).to(self._device, self._dtype)
        return self._tower
