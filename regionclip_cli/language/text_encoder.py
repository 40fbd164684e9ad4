"""Phrases to embeddings: the frozen language encoder of a model file, behind a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_card import ModelCard, fingerprint, read_card
from regionclip_cli.language.templates import content_hash, fill, templates
from regionclip_cli.language.text_cache import TextCache
from regionclip_cli.language.text_tower import TextTower, clip_config, load_text_tower, require_text

PROMPTS_PER_CALL = 32
"""Prompts in every forward pass on a CPU. Matrix libraries choose their kernels by size, so passes of one fixed shape
are what makes the embedding of a phrase the same bits whatever is embedded beside it."""

PROMPTS_PER_CALL_GPU = 128
TOKEN_STEP = 8
"""Prompts are padded to a multiple of this many tokens, which their own length alone determines."""

_DISK_CACHE = TextCache()
_BETWEEN_WRITES = 64  # phrases that are lost when a long run is stopped


class TextEncoder:
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
        cache: TextCache | None = _DISK_CACHE,
        dtype: torch.dtype = torch.float32,
        batch: int | None = None,
    ) -> None:
        self._path = path
        self._device = torch.device(device)
        self._cache = cache
        self._dtype = dtype
        self._batch = batch or (PROMPTS_PER_CALL if self._device.type == "cpu" else PROMPTS_PER_CALL_GPU)
        self._tower: TextTower | None = None
        self._dim: int | None = None
        self.card: ModelCard = read_card(path)

    @property
    def model(self) -> str:
        """Return the name of the model that the text encoder comes from, which concept banks carry."""
        return self.card.text_model

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
        require_text(self.card)
        distinct = _checked(phrases)
        name = templates or self.card.templates
        found = self._cache.get(self._cache_key(name), distinct) if self._cache else {}
        found = {phrase: row for phrase, row in found.items() if row.shape == (self.dim,)}
        if progress and found:
            progress(len(found))
        missing = [phrase for phrase in distinct if phrase not in found]
        for start in range(0, len(missing), _BETWEEN_WRITES):
            chunk = missing[start : start + _BETWEEN_WRITES]
            computed = dict(zip(chunk, self._mean_over_templates(chunk, name), strict=True))
            if self._cache:
                self._cache.put(self._cache_key(name), computed)
            found |= computed
            if progress:
                progress(len(computed))
        return torch.stack([found[phrase] for phrase in phrases])

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

    def _mean_over_templates(self, phrases: list[str], name: str) -> Tensor:
        """Return (N, D) float32. Summed template by template: a reduction chooses its order by the number of rows."""
        total = torch.zeros(len(phrases), self.dim)
        for features in (
            self.encode_tokens(
                self.tokenize([fill(template, phrase) for template in templates(name) for phrase in phrases])
            )
            .cpu()
            .split(len(phrases))
        ):
            total += features
        return total / len(templates(name))

    def _cache_key(self, name: str) -> str:
        """Return what the embeddings depend on besides the phrase."""
        precision = str(self._dtype).removeprefix("torch.")
        shape = f"{self._device.type}-{self._batch}x{TOKEN_STEP}"
        return f"{fingerprint(self._path)} {name} {content_hash(name)} {precision} {shape}"

    def _loaded(self) -> TextTower:
        if self._tower is None:
            self._tower = load_text_tower(self._path, self.card).to(self._device, self._dtype)
        return self._tower


def _checked(phrases: Sequence[str]) -> list[str]:
    """Return the distinct phrases in order.

    Raises:
        UsageError: There are none, or one of them is empty or not text.
    """
    if isinstance(phrases, str):
        raise UsageError(f"Phrases must be a list, not the single text {phrases!r}.")
    if not len(phrases):
        raise UsageError("There are no phrases to embed.")
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise UsageError(f"A phrase must be text, not {phrase!r}.")
        if not fill("{}", phrase).strip():
            raise UsageError(f"The phrase {phrase!r} has no words.")
        if any("\ud800" <= char <= "\udfff" for char in phrase):
            raise UsageError(f"The phrase {phrase!r} has characters that are not valid text.")
    return list(dict.fromkeys(phrases))
