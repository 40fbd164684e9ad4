"""Nouns in captions: the concepts that regions are named with (RegionCLIP section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from regionclip_cli.errors import UsageError, did_you_mean

PARSERS = ("hanta", "spacy")
STOP = frozenset(
    "i me we us you he him she her it they them my mine myself our ours ourselves your yours yourself yourselves his "
    "himself hers herself its itself their theirs themself themselves # @ $ % ^ & * ( ) 's m 1930".split()
)
"""What the official code leaves out of its pools besides pronouns."""


class NounParser(Protocol):
    """Who finds nouns; made once and used for millions of captions."""

    def nouns(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the nouns of each caption: lower case, singular, compound parts before the head, with repetitions."""


def make_parser(name: str) -> NounParser:
    """Return a parser by name.

    Raises:
        UsageError: There is no such parser.
        MissingError: What it needs is not installed.
    """
    if name == "hanta":
        from regionclip_cli.language.nouns.hanta import HantaParser

        return HantaParser()
    if name == "spacy":
        from regionclip_cli.language.nouns.spacy import SpacyParser

        return SpacyParser()
    raise UsageError(f"There is no parser {name!r}.", did_you_mean(name, PARSERS) or f"There are {', '.join(PARSERS)}.")


def is_concept(noun: str) -> bool:
    """Say whether a noun may be a concept: it is on no stop list, and has a letter."""
    return noun not in STOP and any(char.isalpha() for char in noun)
