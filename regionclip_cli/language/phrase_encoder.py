"""Phrases to embeddings behind a cache on disk, whatever computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.language.templates import fill, templates
from regionclip_cli.language.text_cache import TextCache

PROMPTS_PER_CALL = 32
"""Prompts in every forward pass on a CPU. Matrix libraries choose their kernels by size, so passes of one fixed shape
are what makes the embedding of a phrase the same bits whatever is embedded beside it."""

TOKEN_STEP = 8
"""Prompts are padded to a multiple of this many tokens, which their own length alone determines."""

DISK_CACHE = TextCache()
"""The cache of the user, shared by all encoders of a process."""

_BETWEEN_WRITES = 64  # phrases that are lost when a long run is stopped


class PhraseEncoder(ABC):
    """The language encoder of one model.

    Args:
        card: Of the model.
        cache: Where embeddings are kept between runs; None keeps none.
    """

    def __init__(self, card: ModelCard, cache: TextCache | None) -> None:
        self.card = card
        self._cache = cache

    @property
    @abstractmethod
    def dim(self) -> int:
        """Return D, the dimension of the embeddings."""

    @property
    def model(self) -> str:
        """Return the name of the model that the text encoder comes from, which concept banks carry."""
        return self.card.text_model

    def embed(
        self, phrases: Sequence[str], template_set: str | None = None, progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Embed N phrases, each as the mean over T templates of its text features: (N, D) float32, not normalised.

        Args:
            phrases: N names or descriptions, in any script; duplicates are computed once.
            template_set: A template set of `language.templates`; by default that of the model's card.
            progress: Called with the number of phrases just finished, found in the cache or computed.

        Raises:
            MissingError: The model has no text encoder.
            UsageError: `phrases` is empty, one of them is empty or not text, or the template set is unknown.
        """
        require_text(self.card)
        distinct = _checked(phrases)
        name = template_set or self.card.templates
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
        return np.stack([found[phrase] for phrase in phrases])

    @abstractmethod
    def _features(self, prompts: list[str]) -> np.ndarray:
        """Return the text features (P, D) float32, not normalised, of P prompts."""

    @abstractmethod
    def _cache_key(self, name: str) -> str:
        """Return what the embeddings depend on besides the phrase, for a template set."""

    def _mean_over_templates(self, phrases: list[str], name: str) -> np.ndarray:
        """Return (N, D) float32. Summed template by template: a reduction chooses its order by the number of rows."""
        features = self._features([fill(template, phrase) for template in templates(name) for phrase in phrases])
        total = np.zeros((len(phrases), self.dim), np.float32)
        for part in features.reshape(-1, len(phrases), self.dim):
            total += part
        return total / np.float32(len(templates(name)))


def require_text(card: ModelCard) -> None:
    """Refuse a model that has no text encoder.

    Raises:
        MissingError: The model has no text encoder.
    """
    if "text" not in card.parts:
        raise MissingError(
            f"The model {card.name!r} has no text encoder, so it cannot take class names.",
            "Give it a saved bank with --concepts, or add one with `regionclip models add --text-from MODEL`.",
        )


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
