"""YAML as it was written: texts, mappings and lists, each with its line; values get their types later.

Only what a recipe needs is read. Tags, which can make objects, and aliases, which can make a small file huge, are
told as problems. Nothing is guessed from texts here, so `off` stays a word and is no boolean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from regionclip_cli.recipe.reading.problems import Key, Place, Problems

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
