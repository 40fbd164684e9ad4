"""The default parser: HanTa's tagger, whose English model comes with its package, and our rule on its tags."""

from __future__ import annotations

from collections.abc import Sequence

from regionclip_cli.language.nouns.chunks import nouns, split

MODEL = "morphmodel_en.pgz"
LONGEST_WORD = 40
"""Letters; the time that HanTa takes for an unknown word grows with its length, and no noun is longer."""


class HantaParser:
    """Tags with a trigram model over parts of words (HanTa), then takes runs of nouns."""

    def __init__(self) -> None:
        from HanTa.HanoverTagger import HanoverTagger  # type: ignore[import-untyped]

        self._tagger = HanoverTagger(MODEL)

    def nouns(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the nouns of each caption."""
        return [self._one(caption) for caption in captions]

    def _one(self, caption: str) -> list[str]:
        words = [word for word in split(caption) if len(word) <= LONGEST_WORD]
        return list(nouns(words, self._tagger.tag_sent(words, taglevel=0, casesensitive=False))) if words else []
