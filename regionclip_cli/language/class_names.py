"""Class lists in files: which words name a file, and what the file says."""

from __future__ import annotations

import codecs
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.files import user_path
from regionclip_cli.language import vocabularies

SUFFIXES = (".txt", ".json")
_PATH_START = ("./", "../", "~", "/", ".\\", "..\\")
_OTHER_LISTS = (".csv", ".tsv", ".yaml", ".yml", ".names", ".safetensors")
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$|^#.*$")
_COUNTED = re.compile(r".+,\s*\d+")
_FORMS = "A .txt file has one class a line (name or name=phrase|phrase); a .json file a list or {name: [phrases]}."

# One class as a file states it: `name=phrase|phrase` in one string, or the label and its phrases apart.
Item = str | tuple[str, tuple[str, ...]]


def as_file(word: str) -> Path | None:
    """Return the path if `word` names a class file, None if it is a class name.

    A word is a file when it ends in .txt or .json, or when it contains a slash and such a file exists. `TV/monitor`
    stays a name, and so does `cat` beside a file called `cat`.

    Raises:
        UsageError: It looks like a path and no file is there, or it is a file of another kind.
    """
    lower = word.lower()
    looks_like_list = lower.endswith(SUFFIXES)
    looks_like_path = word.startswith(_PATH_START) or bool(re.match(r"[A-Za-z]:\\", word))
    has_folder = "/" in word or "\\" in word
    exists = (looks_like_list or looks_like_path or has_folder) and os.path.exists(os.path.expanduser(word))
    if lower.endswith(_OTHER_LISTS) and (exists or looks_like_path or has_folder or os.path.isfile(word)):
        hint = "A concept bank goes to --concepts." if lower.endswith(".safetensors") else _FORMS
        raise UsageError(f"{word} is not a class file: only .txt and .json are read.", hint)
    if exists:
        return user_path(word)
    if looks_like_list or looks_like_path:
        raise UsageError(f"There is no class file {word}.", _near_files(user_path(word)) or _FORMS)
    return None


def read_items(path: Path) -> tuple[list[Item], bool]:
    """Read a class file; return its items, and whether they are one comma-separated line instead of one a line.

    Raises:
        UsageError: It cannot be read, is not text, or its JSON is no class list.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".json":
        return _json_items(path, text), False
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    items: list[Item] = [line for line in lines if line]
    if len(items) > 1 and all(_COUNTED.fullmatch(str(item)) for item in items):
        # `noun,count`, the form of the official RegionCLIP noun lists: the count is no part of the name.
        items = [str(item).rpartition(",")[0] for item in items]
    comma_list = len(items) == 1 and "," in str(items[0]).rstrip(", ")
    return items, comma_list


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise UsageError(f"The class file {path} cannot be read: {err.strerror or err}.") from err
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as err:
        raise UsageError(f"The class file {path} is not UTF-8 text.", "Save it as UTF-8.") from err


def _json_items(path: Path, text: str) -> list[Item]:
    """Return the items of a JSON class file; an object is kept as pairs, so that a name given twice is seen."""
    try:
        content: Any = json.loads(text, object_pairs_hook=lambda pairs: tuple(pairs))
    except (json.JSONDecodeError, RecursionError) as err:
        where = f":{err.lineno}" if isinstance(err, json.JSONDecodeError) else ""
        what = err.msg if isinstance(err, json.JSONDecodeError) else "nested too deeply"
        raise UsageError(f"{path}{where}: not valid JSON: {what}.", _FORMS) from err
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        return list(content)
    if isinstance(content, tuple):
        return [(name, _phrase_list(path, name, phrases)) for name, phrases in content]
    raise UsageError(f"{path} is not a class list.", _FORMS)


def _phrase_list(path: Path, name: str, phrases: Any) -> tuple[str, ...]:
    phrases = [phrases] if isinstance(phrases, str) else phrases
    if isinstance(phrases, list) and all(isinstance(phrase, str) for phrase in phrases):
        return tuple(phrases) or (name,)
    raise UsageError(f"{path}: the phrases of {name!r} are not a list of texts.", _FORMS)


def _near_files(path: Path) -> str:
    """Return a hint that names class files of nearly the same name in the same folder."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError:
        return f"There is no folder {path.parent} either." if not path.parent.exists() else ""
    return did_you_mean(path.name, names)


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


def learned_places(labels: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return the place of each label among the classes of a learned layer; upper and lower case are the same.

    Raises:
        UsageError: One is not among them.
    """
    places = {name.casefold(): place for place, name in enumerate(classes)}
    for label in labels:
        if label.casefold() not in places:
            raise UsageError(
                f"{label!r} is not one of the {len(classes)} classes that this model has learned.",
                f"{did_you_mean(label, classes)} Its classifier is a learned layer and cannot read words; "
                "a model with a text classifier can.".strip(),
            )
    return [places[label.casefold()] for label in labels]


def refuse_distractors(vocabulary: Vocabulary, model: str) -> None:
    """Refuse distractors for a model whose classifier is a learned layer.

    Raises:
        UsageError: There are some.
    """
    if vocabulary.distractors:
        raise UsageError(
            f"The model {model!r} takes no distractors: all its classes compete already, and it knows no other words."
        )


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
