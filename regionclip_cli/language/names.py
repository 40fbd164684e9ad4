"""Class names as people write them: words, synonyms, built-in lists, files, and distractors.

A class has a *label*, which is reported, and one or more *phrases*, which the text encoder reads; the class scores as
its best phrase. A *distractor* competes with the classes and is never reported.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.language import vocabularies
from regionclip_cli.language.class_files import Item, as_file, read_items

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»"}
# A quote opens at the start of a name or phrase only, so that 6" stays an inch mark.
_PART = re.compile(r'(?:(?<![^\s,=|])"[^"\r\n]*"|[^,\r\n])+')
_EXAMPLES = 'For example: --classes "cat,kettle", "referee=striped shirt|whistle", "@coco", "@lvis" or names.txt.'


@dataclass(frozen=True)
class Vocabulary:
    """What to look for.

    Attributes:
        labels: C class names, in the order of the label numbers.
        phrases: For each class the phrases that are embedded, at least one; without synonyms the label itself.
        distractors: Phrases that compete with the classes and are not reported.
    """

    labels: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    distractors: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return C, the number of classes."""
        return len(self.labels)


@dataclass(frozen=True)
class _Class:
    label: str
    phrases: tuple[str, ...]
    spelt_out: bool  # the user wrote the phrases, so they may not be dropped in silence
    from_list: bool  # it came with a whole @list


def parse_classes(text: str | Sequence[str], distractors: str | Sequence[str] = ()) -> Vocabulary:
    """Read the classes and distractors that a user asks for.

    A string holds items apart by commas or line ends; quotes protect a comma. Each item is a name,
    `name=phrase|phrase`, a built-in list (`@coco`, `@coco-base`, `@coco-novel`, `@coco-65`, `@lvis`) or a .txt or .json
    file. A sequence holds one item an element, and a comma is part of the name there.

    A name that comes twice, in any mix of capitals, is one class at its first place. Phrases that the user spelt out
    win over those of a list. Distractors from a list give way to the classes, so that `cat` against `@coco` works.

    Raises:
        UsageError: No class is left, a name is empty, one label has two different lists of synonyms, a name is both
            class and distractor, a list is unknown, or a file is absent or not readable.
    """
    found = _merge(_classes(text))
    if not found:
        raise UsageError("No class is given.", _EXAMPLES)
    owner = {word.casefold(): each.label for each in found for word in (*each.phrases, each.label)}
    against: dict[str, str] = {}
    for each in _classes(distractors):
        shared = [word for word in (each.label, *each.phrases) if word.casefold() in owner]
        if shared and not each.from_list:
            of = owner[shared[0].casefold()]
            raise UsageError(
                f"The distractor {each.label!r} is also the class {of!r} or one of its phrases.",
                "Take it out of one of the two.",
            )
        if not shared:
            against |= {phrase.casefold(): phrase for phrase in each.phrases if phrase.casefold() not in against}
    return Vocabulary(tuple(c.label for c in found), tuple(c.phrases for c in found), tuple(against.values()))


def _merge(classes: Iterator[_Class]) -> list[_Class]:
    """Join classes of the same label: the first place counts, and phrases that were spelt out."""
    merged: dict[str, _Class] = {}
    for each in classes:
        key = each.label.casefold()
        first = merged.setdefault(key, each)
        if first is each or not each.spelt_out or _folded(first.phrases) == _folded(each.phrases):
            continue
        if first.spelt_out:
            one, other = "|".join(first.phrases), "|".join(each.phrases)
            raise UsageError(
                f"The class {each.label!r} has two lists of phrases: {one!r} and {other!r}.",
                f"Write one: {each.label}={'|'.join(vocabularies.distinct(first.phrases + each.phrases))}",
            )
        merged[key] = _Class(first.label, each.phrases, spelt_out=True, from_list=False)
    return list(merged.values())


def _classes(text: str | Sequence[str]) -> Iterator[_Class]:
    """Yield the classes that a string or sequence names, lists and files opened up."""
    items = _split(text) if isinstance(text, str) else text
    for item in items:
        if not isinstance(item, str):
            raise UsageError(f"A class name is a text, not {item!r}.", _EXAMPLES)
        path = as_file(item.strip()) if "=" not in item and not item.lstrip().startswith("@") else None
        if path is None:
            yield from _item(item)
            continue
        lines, comma_list = read_items(path)
        for line in lines:
            for word in _split(line) if comma_list and isinstance(line, str) else (line,):
                yield from _item(word, where=f" in {path}")


def _folded(phrases: tuple[str, ...]) -> set[str]:
    return {phrase.casefold() for phrase in phrases}


def _split(text: str) -> list[str]:
    """Return the parts of a string between commas and line ends; what stands in double quotes is not divided."""
    return [part for part in _PART.findall(text) if part.strip()]


def _item(item: Item, where: str = "") -> Iterator[_Class]:
    """Yield the classes of one item that is no file."""
    if not isinstance(item, str):
        label, phrases = _clean(item[0], where), tuple(_clean(phrase, where) for phrase in item[1])
        yield _class(label, phrases, item[0], where, spelt_out=phrases != (label,))
        return
    word = _clean(item.strip().rstrip(","), where)
    if word.startswith("@"):
        yield from _built_in(word[1:], where)
        return
    label, equals, rest = (_clean(piece, where) for piece in word.partition("="))
    if equals:
        phrases = tuple(phrase for phrase in (_clean(piece, where) for piece in rest.split("|")) if phrase)
        yield _class(label, phrases, word, where, spelt_out=True)
    elif "|" in word:
        hint = f"Write name=phrase|phrase, for example {word.split('|')[0]}={word}"
        raise UsageError(f"{word!r}{where} has phrases and no name.", hint)
    else:
        yield _class(label, (label,), word, where, spelt_out=False)


def _class(label: str, phrases: tuple[str, ...], item: str, where: str, spelt_out: bool) -> _Class:
    if not label or not phrases or not all(phrases):
        raise UsageError(f"{item!r}{where} lacks a name or a phrase.", _EXAMPLES)
    return _Class(label, vocabularies.distinct(phrases), spelt_out, from_list=False)


def _built_in(name: str, where: str) -> Iterator[_Class]:
    if name.lower() not in vocabularies.NAMES:
        known = ", ".join(f"@{each}" for each in vocabularies.NAMES)
        near = did_you_mean(f"@{name}", [f"@{each}" for each in vocabularies.NAMES])
        raise UsageError(f"There is no built-in class list @{name}{where}.", f"{near} The lists are {known}.".strip())
    for label, phrases in vocabularies.classes(name.lower()):
        yield _Class(label, phrases, spelt_out=False, from_list=True)


def _clean(word: str, where: str = "") -> str:
    """Return a name with one kind of spaces and accents, without a byte-order mark or quotes around it.

    Raises:
        UsageError: It holds characters that no text should: control codes or broken UTF-8.
    """
    word = " ".join(unicodedata.normalize("NFC", word).replace("\ufeff", "").split())
    while len(word) >= 2 and _QUOTES.get(word[0]) == word[-1]:
        word = word[1:-1].strip()
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in word):
        raise UsageError(f"The class name {word!r}{where} has characters that are no text.", "Save the list as UTF-8.")
    return word
