"""YAML as it was written: texts, mappings and lists, each with its line; values get their types later.

Only what a recipe needs is read. Tags, which can make objects, and aliases, which can make a small file huge, are
told as problems. Nothing is guessed from texts here, so `off` stays a word and is no boolean.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regionclip_cli.recipe.errors import Key, Place, Problems

STANDARD = "tag:yaml.org,2002:"
DEEPEST = 50
"""Levels of nesting; recipes have five."""


@dataclass(frozen=True)
class Node:
    """A value as written.

    Attributes:
        place: Where.
        value: The text of a scalar, or the nodes of a mapping or list.
        plain: Whether a text stood without quotes, so that it may be a number, `true`, `false` or `null`.
    """

    place: Place
    value: str | dict[str, Node] | list[Node]
    plain: bool = False


def parse(text: str, source: str, folder: Path, problems: Problems, *, lines: bool = True) -> Node | None:
    """Return the nodes of a YAML text; None when there are none, or it is no YAML, which is told as a problem.

    Args:
        text: The YAML.
        source: What to call it in problems.
        folder: What relative paths in it are relative to.
        problems: Where trouble goes.
        lines: Whether line numbers say anything about the source.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        place = Place(source, mark.line + 1 if mark and lines else None, folder)
        reason = " ".join(f"{err.context or ''} {err.problem or ''}".split())
        written = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
        hint = " Put texts with ${...} or {name} in quotes." if "${" in written or "{name}" in written else ""
        problems.add(place, (), f"This is not YAML: {reason}.{hint}")
        return None
    except yaml.YAMLError as err:
        reason = " ".join(str(err).split("\n")[0].split())
        problems.add(Place(source, 1 if lines else None, folder), (), f"This is not YAML: {reason}.")
        return None
    except RecursionError:
        problems.add(Place(source, 1 if lines else None, folder), (), "It is nested too deeply.")
        return None
    if root is None:
        return None
    return _Walk(source, folder, problems, lines).node(root, (), root)


class _Walk:
    """One pass over what PyYAML has composed."""

    def __init__(self, source: str, folder: Path, problems: Problems, lines: bool) -> None:
        self._source, self._folder, self._problems, self._lines = source, folder, problems, lines
        self._seen: set[int] = set()

    def node(self, node: yaml.Node, key: Key, begins: yaml.Node) -> Node:
        """Return our node for PyYAML's; `begins` is where a person would look for it, its key or itself."""
        place = self._place(begins)
        if id(node) in self._seen:
            self._problems.add(place, key, "Aliases (*name) are not understood; repeat the value, or use `extends`.")
            return Node(place, "")
        self._seen.add(id(node))
        if len(key) > DEEPEST:
            self._problems.add(place, key[:3], "It is nested too deeply.")
            return Node(place, "")
        if node.tag not in (STANDARD + "str", STANDARD + "map", STANDARD + "seq"):
            tag = node.tag.replace(STANDARD, "!!")
            self._problems.add(place, key, f"The tag {tag} is not understood; write the value alone.")
            return Node(place, "")
        if isinstance(node, yaml.MappingNode):
            return Node(place, self._mapping(node, key))
        if isinstance(node, yaml.SequenceNode):
            return Node(place, [self.node(item, (*key, index), item) for index, item in enumerate(node.value)])
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if plain and node.value == "":
            what = "It has no value; write {} for a section with all its defaults, or null to leave it out."
            self._problems.add(place, key, what)
        return Node(place, str(node.value), plain)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                self._problems.add(self._place(name), key, "A key must be a word.")
                continue
            own = (*key, name.value)
            if name.value in found:
                before = found[name.value].place.line
                where = f", first in line {before}" if before else ""
                self._problems.add(self._place(name), own, f"This is here twice{where}; keep one of them.")
                continue
            found[name.value] = self.node(value, own, name)
        return found

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._source, node.start_mark.line + 1 if self._lines else None, self._folder)


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
