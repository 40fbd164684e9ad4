"""Class lists in files: which words name a file, and what the file says."""

from __future__ import annotations

import codecs
import json
import os
import re
from pathlib import Path
from typing import Any

from regionclip_cli.errors import UsageError, did_you_mean

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
        return Path(word).expanduser()
    if looks_like_list or looks_like_path:
        raise UsageError(f"There is no class file {word}.", _near_files(Path(word).expanduser()) or _FORMS)
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
