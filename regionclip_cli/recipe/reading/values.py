"""From written texts to values: `${ENV}` and `{name}` are filled in, paths found, numbers read.

Numbers follow YAML 1.2 rather than the older rules of PyYAML: `1e-4` is a number, `off` and `no` are words; and
`600_000` is a number too, because long counts are hard to read otherwise.
"""

from __future__ import annotations

import os
import re
from typing import Any

from regionclip_cli.recipe.reading.problems import Key, Problems
from regionclip_cli.recipe.reading.tree import Node

MARK = re.compile(r"\$\{([^{}]*)\}|\{name\}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DIGITS = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
WHOLE = re.compile(rf"[-+]?{DIGITS}")
REAL = re.compile(rf"[-+]?(?:{DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NOTHING = ("", "~", "null", "Null", "NULL")
EXACT = 2**53
"""Up to here a real number without a fraction is a whole number without doubt."""


def read_scalar(text: str) -> str | int | float | bool | None:
    """Return the value of a text without quotes.

    >>> [read_scalar(text) for text in ("600_000", "1e-4", "6e5", "off", "true", "~", "007")]
    [600000, 0.0001, 600000, 'off', True, None, '007']
    """
    if text in NOTHING:
        return None
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text):
        return int(text)
    if REAL.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < EXACT and "." not in text else number
    return text


def read_values(root: Node, problems: Problems) -> dict[str, Any]:
    """Return the plain values of a recipe's nodes, with `${ENV}`, `{name}` and relative paths resolved.

    Args:
        root: The mapping at the top.
        problems: Where trouble goes: a variable that is not set, characters that no text has.
    """
    values = root.value
    name = ""
    if isinstance(values, dict) and "name" in values and isinstance(values["name"].value, str):
        name = fill(values["name"], None, ("name",), Problems())
    found = _read(root, (), name, problems)
    return found if isinstance(found, dict) else {}


def fill(node: Node, name: str | None, key: Key, problems: Problems) -> str:
    """Return the text of a scalar with `${ENV}` and, unless it is None, `{name}` filled in."""

    def replace(mark: re.Match[str]) -> str:
        variable = mark[1]
        if variable is None:
            return mark[0] if name is None else name
        if not VARIABLE.fullmatch(variable):
            what = f"{mark[0]} is not understood; only the name of an environment variable may stand in it."
        elif not os.environ.get(variable):
            what = f"The environment variable {variable} is not set; `export {variable}=...` first."
        elif MARK.search(os.environ[variable]):
            what = f"The environment variable {variable} holds {os.environ[variable]!r}, which is not filled in again."
        else:
            return os.environ[variable]
        problems.add(node.place, key, what)
        return mark[0]

    return MARK.sub(replace, str(node.value))


def _read(node: Node, key: Key, name: str, problems: Problems) -> Any:
    if isinstance(node.value, dict):
        return {word: _read(child, (*key, word), name, problems) for word, child in node.value.items()}
    if isinstance(node.value, list):
        return [_read(child, (*key, index), name, problems) for index, child in enumerate(node.value)]
    if key == ("name",) and "{name}" in node.value:
        problems.add(node.place, key, "The name cannot be made of itself.")
    text = fill(node, name, key, problems)
    if not _is_text(text):
        problems.add(node.place, key, "It holds characters that no text has.")
        return ""
    if text.startswith(("./", "../")) or text in (".", ".."):
        return os.path.abspath(node.place.folder / text)
    return read_scalar(text) if node.plain else text


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
