"""A vocabulary or a bank as the classifier takes it: one row a phrase, and which class each row speaks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.language.class_names import Vocabulary
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.language.text_encoder import TextEncoder


class EmbeddedVocabulary(NamedTuple):
    """C classes and their distractors in the space of one model.

    Attributes:
        labels: C class names.
        embeddings: (N, D) float32, not normalised: the phrases of all classes, then the distractors.
        groups: (N,) int64: the class of each row; the distractors are numbered from C on.
        num_classes: C.
    """

    labels: tuple[str, ...]
    embeddings: Tensor
    groups: Tensor
    num_classes: int


def embed_vocabulary(
    vocabulary: Vocabulary,
    encoder: TextEncoder,
    templates: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> EmbeddedVocabulary:
    """Embed every phrase of a vocabulary.

    Args:
        vocabulary: The classes with their phrases, and the distractors.
        encoder: The text encoder of the model that will compare them with regions.
        templates: A template set; the one of the model's card if left out.
        progress: Called with the number of phrases that have just been finished.

    Raises:
        MissingError: The model has no text encoder.
    """
    phrases = [phrase for each in vocabulary.phrases for phrase in each]
    embeddings = encoder.encode([*phrases, *vocabulary.distractors], templates, progress)
    counts = [len(each) for each in vocabulary.phrases] + [1] * len(vocabulary.distractors)
    return EmbeddedVocabulary(vocabulary.labels, embeddings, _groups(counts), len(vocabulary))


def embed_bank(
    bank: ConceptBank, distractors: Sequence[str] = (), encoder: TextEncoder | None = None
) -> EmbeddedVocabulary:
    """Take the rows of a bank as classes, each its own.

    Args:
        bank: A bank that has passed `ConceptBank.check`.
        distractors: Phrases to embed besides, with the bank's templates.
        encoder: The text encoder, needed for distractors alone.

    Raises:
        UsageError: There are distractors and no encoder, or one of them is a name of the bank.
        MissingError: There are distractors and the model has no text encoder.
    """
    embeddings = bank.embeddings
    if distractors:
        if encoder is None:
            raise UsageError("Distractors need the model's text encoder, and none is given.")
        bank.check_distractors(distractors)
        embeddings = torch.cat([embeddings, encoder.encode(distractors, bank.templates or None)])
    return EmbeddedVocabulary(bank.names, embeddings, _groups([1] * len(embeddings)), len(bank.names))


def _groups(counts: Sequence[int]) -> Tensor:
    """Return (sum of counts,) int64: the number i repeated counts[i] times."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
