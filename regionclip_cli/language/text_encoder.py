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

_ON_DISK = TextCache()
_BETWEEN_WRITES = 64  # phrases: what is lost when a long run is stopped


class TextEncoder:
    """The language encoder of one model; its weights are read when a phrase is first not in the cache.

    Args:
        path: A model file.
        device: Where the encoder runs.
        cache: Where embeddings are kept between runs; None keeps none.
        dtype: Precision of the weights; `torch.bfloat16` takes half the memory, and less time where the processor has
            instructions for it. The cache keeps the two apart.
        batch: Prompts encoded at a time.

    Raises:
        MissingError: There is no such file.
        UsageError: It is no model file.
    """

    def __init__(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        cache: TextCache | None = _ON_DISK,
        dtype: torch.dtype = torch.float32,
        batch: int = 128,
    ) -> None:
        self._path = path
        self._device = torch.device(device)
        self._cache = cache
        self._dtype = dtype
        self._batch = batch
        self._side: TextTower | None = None
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

        The features are not normalised before the mean, nor is the mean: this is how the official embeddings were made
        (RegionCLIP's `extract_concept_features`), and whoever compares them normalises them then.

        Args:
            phrases: N names or descriptions, in any script; the same one twice is computed once.
            templates: A template set of `language.templates`; the one of the model's card if left out.
            progress: Called with the number of phrases that have just been finished, found in the cache or computed.

        Returns:
            (N, D) float32 on the CPU, rows in the order of `phrases`.

        Raises:
            MissingError: The model has no text encoder.
            UsageError: There is no phrase, one of them is empty or no text, or the template set is unknown.
        """
        require_text(self.card)
        distinct = _checked(phrases)
        name = templates or self.card.templates
        encoder = f"{fingerprint(self._path)} {name} {content_hash(name)} {str(self._dtype).removeprefix('torch.')}"
        found = self._cache.get(encoder, distinct) if self._cache else {}
        found = {phrase: row for phrase, row in found.items() if row.shape == (self.dim,)}
        if progress and found:
            progress(len(found))
        absent = [phrase for phrase in distinct if phrase not in found]
        for start in range(0, len(absent), _BETWEEN_WRITES):
            some = absent[start : start + _BETWEEN_WRITES]
            fresh = dict(zip(some, self._mean_over_templates(some, name), strict=True))
            if self._cache:
                self._cache.put(encoder, fresh)
            found |= fresh
            if progress:
                progress(len(fresh))
        return torch.stack([found[phrase] for phrase in phrases])

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return tokens (P, L) int64 of P texts; see `TextSide.tokenize` for texts that are too long."""
        return self._loaded().tokenize(texts)

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return the features (P, D) float32, not normalised, of tokens (P, L), on the encoder's device.

        Texts of one length go together, since a batch costs as much as its longest.
        """
        side = self._loaded()
        order = tokens.argmax(dim=1).argsort()  # (P,) by the place of the end token, which has the highest number
        parts = [side(some.to(self._device)).float() for some in tokens[order].split(self._batch)]
        return torch.cat(parts)[order.argsort().to(self._device)]

    def _mean_over_templates(self, phrases: list[str], name: str) -> Tensor:
        """Return (N, D) float32."""
        sentences = [fill(template, phrase) for template in templates(name) for phrase in phrases]
        features = self.encode_tokens(self.tokenize(sentences)).cpu()  # (T * N, D)
        return features.unflatten(0, (-1, len(phrases))).mean(dim=0)

    def _loaded(self) -> TextTower:
        if self._side is None:
            self._side = load_text_tower(self._path, self.card).to(self._device, self._dtype)
        return self._side


def _checked(phrases: Sequence[str]) -> list[str]:
    """Return the distinct phrases in order.

    Raises:
        UsageError: There is none, or one of them is empty or no text.
    """
    if isinstance(phrases, str):
        raise UsageError(f"Phrases come as a list, not as the one text {phrases!r}.")
    if not len(phrases):
        raise UsageError("There is no phrase to embed.")
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise UsageError(f"A phrase is a text, not {phrase!r}.")
        if not fill("{}", phrase).strip():
            raise UsageError(f"The phrase {phrase!r} has no words.")
        if any("\ud800" <= char <= "\udfff" for char in phrase):
            raise UsageError(f"The phrase {phrase!r} has characters that are no text.")
    return list(dict.fromkeys(phrases))
