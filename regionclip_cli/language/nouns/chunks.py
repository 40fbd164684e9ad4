"""From a caption to words, and from tagged words to the nouns of its noun phrases.

The paper takes noun chunks from a dependency parse: the lemma of each chunk's head, with the lemmas of its compound
children before it (RegionCLIP section 3.2; the official code's `parse_nouns`). In English a compound's parts stand
directly before its head, so that a run of nouns is a head, the last, and its compound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from regionclip_cli.language.nouns.lemmas import singular

NOUN_TAGS = frozenset({"NN", "NN0", "NN1", "NN2", "NP0"})
"""Common and proper nouns in the tags of the British National Corpus, which HanTa's English model uses."""
_WORD = re.compile(r"[^\W_]+(?:'(?!s\b)[^\W_]+)*|'s\b|[^\w\s]")

ACTIVITIES = frozenset(
    "bathing bowling boxing changing climbing cooking cutting dining diving driving fishing frying hiking ironing "
    "landing living mixing parking racing riding rocking rolling rowing sailing serving sewing shopping skating "
    "skiing sleeping snorkeling surfing swimming training waiting washing wrapping".split()
)
PLACES_AND_TOOLS = frozenset(
    "bag bags basket board boat boots bowl cap car center chair chairs costume course court glove gloves goggles "
    "gym hall hat helmet hole jacket lane line lot lots machine machines mask meter meters pan pans paper path "
    "paths pen pin pins pit place plate pole poles pool pools ring rink rod rods room rooms rope school shoes "
    "spot spots station stick store suit suits table tables trail trails trunks utensil utensils wall walls "
    "zone".split()
)
"""What an activity is done in or with: `swimming pool` is a compound, `swimming dog` is a dog."""
MADE_OF_ING = frozenset(
    "awning bedding being blessing building ceiling clearing clothing crossing drawing dressing duckling dumpling "
    "earring evening filling flooring frosting gathering gelding gosling hearing heating herring housing icing "
    "inning king landing lighting lightning lining meeting morning opening outing painting paving pudding railing "
    "rigging ring roofing sapling seasoning seating setting sibling siding sling spring stocking string stuffing "
    "swing thing tubing viking wedding wing wiring writing".split()
)
"""Words in -ing that name a thing; after another noun, all others tell what that noun does."""
WEARING = frozenset("capped coated colored coloured covered dusted filled lined packed shaped sized topped".split())
"""`snow covered slope`: the noun before one of these describes the one after, and heads nothing itself."""
OWNED = frozenset({*NOUN_TAGS, "AJ0", "AJS", "ORD", "ZZ0", "UNC"})
"""What follows 's when it is no short `is`; the owner before it heads no noun chunk."""
_GENERIC = frozenset({"lot", "lots"})
_NEVER = frozenset({"other", "etc"})


def split(caption: str) -> list[str]:
    """Return the words and marks of a caption, in lower case; hyphens and a possessive 's stand alone.

    >>> split("A man's T-shirt, don't you think?")
    ['a', 'man', "'s", 't', '-', 'shirt', ',', "don't", 'you', 'think', '?']
    """
    return _WORD.findall(caption.lower().replace("’", "'"))


def nouns(words: Sequence[str], tags: Sequence[str]) -> Iterator[str]:
    """Yield the noun of each noun phrase: the head's singular, its compound parts before it.

    Args:
        words: What `split` returned.
        tags: One a word, of the British National Corpus.
    """
    run: list[str] = []
    for at, (word, tag) in enumerate(zip(words, tags, strict=True)):
        after = words[at + 1] if at + 1 < len(words) else ""
        if word == "-" and run and at + 1 < len(words) and tags[at + 1] in NOUN_TAGS:
            continue
        if _is_part(word, tag, words[at - 1] if at else "", after, bool(run)):
            run.append(singular(word) if tag != "NN1" else word)
            continue
        if run and not _describes(words, tags, at):
            yield " ".join(run)
        run = []
    if run:
        yield " ".join(run)


def _is_part(word: str, tag: str, before: str, after: str, inside: bool) -> bool:
    """Say whether a word belongs to a run of nouns."""
    if word in ACTIVITIES and after in PLACES_AND_TOOLS:
        return True
    if word in _GENERIC and after == "of":
        return True
    if len(word) == 1 and after == "-" and word.isalpha() and word != "a":
        return True
    if tag not in NOUN_TAGS or not word[0].isalnum() or word in _NEVER:
        return False
    if inside and word.endswith("ing") and word not in MADE_OF_ING and len(word) > 5:
        return False
    return not (word == "upside" and after == "down")


def _describes(words: Sequence[str], tags: Sequence[str], at: int) -> bool:
    """Say whether the run of nouns that ends before `at` only describes: an owner, a covering, a manner."""
    after = tags[at + 1] if at + 1 < len(words) else ""
    if words[at] == "'s" and (tags[at] == "POS" or after in OWNED):
        return True
    hyphen = words[at] == "-"
    at += hyphen
    if at >= len(words):
        return False
    if words[at] in WEARING and (hyphen or (at + 1 < len(words) and tags[at + 1] in (*NOUN_TAGS, "AJ0"))):
        return True
    return words[at] == "by" and at + 1 < len(words) and words[at + 1] == words[at - 1]
