"""The paper's parser: noun chunks of spaCy's dependency parse, by the rule of the official code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from regionclip_cli.errors import MissingError

MODEL = "en_core_web_sm"


class SpacyParser:
    """For every noun chunk whose root is no pronoun: the lemmas of the root's compound children, then the root's.

    The paper used spaCy 2, which marks pronouns by their lemma; spaCy 3 marks them by their part of speech. Both are
    looked at.

    Raises:
        MissingError: spaCy or its English model is not installed.
    """

    def __init__(self) -> None:
        try:
            import spacy  # type: ignore[import-not-found, unused-ignore]
        except ImportError as err:
            raise MissingError(
                "The parser spacy needs the package spaCy, which is not installed.",
                f'pip install "regionclip-cli[spacy]", then: python -m spacy download {MODEL}',
            ) from err
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a model of another minor version still works
                self._parse: Any = spacy.load(MODEL, exclude=["ner"])
        except OSError as err:
            raise MissingError(
                f"The parser spacy needs its English model {MODEL}, which is not installed.",
                f"python -m spacy download {MODEL}",
            ) from err

    def nouns(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the nouns of each caption."""
        parsed = self._parse.pipe((caption.lower() for caption in captions), batch_size=256)
        return [[_name(chunk.root) for chunk in doc.noun_chunks if not _is_pronoun(chunk.root)] for doc in parsed]


def _is_pronoun(root: Any) -> bool:
    return root.pos_ == "PRON" or root.lemma_ == "-PRON-"


def _name(root: Any) -> str:
    return " ".join([*(child.lemma_ for child in root.children if child.dep_ == "compound"), root.lemma_])
