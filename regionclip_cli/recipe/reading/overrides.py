"""`key.sub=value` on the command line: one setting of a recipe, said anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regionclip_cli.recipe.reading.problems import Key, Place, Problems, spell
from regionclip_cli.recipe.reading.tree import Node, parse


def apply(root: Node, overrides: Sequence[str], problems: Problems) -> Node:
    """Return the nodes with the overrides in place, later ones over earlier ones.

    An override is split at its first `=`; the key is split at its dots, a number counts the items of a list from 0,
    and the value is read as YAML. Sections that are not there yet are made.
    """
    for override in overrides:
        words, equals, text = override.partition("=")
        place = Place(f"override {override!r}", None, Path.cwd())
        names = words.strip().split(".")
        if not equals:
            problems.add(place, (), "An override is written key=value, such as pretrain.steps=100.")
        elif not all(names):
            problems.add(place, (), f"{words!r} is no key; write one such as pretrain.steps.")
        else:
            value = parse(text, place.source, place.folder, problems, lines=False)
            root = _put(root, tuple(names), (), value or Node(place, "null", plain=True), place, problems)
    return root


def _put(node: Node, names: Sequence[str], above: Key, value: Node, place: Place, problems: Problems) -> Node:
    """Return `node` with `value` at the way `names` below it; `above` is the way to `node`."""
    if not names:
        return value
    name, rest = names[0], names[1:]
    if isinstance(node.value, list):
        count = len(node.value)
        if not name.isdecimal() or int(name) >= count:
            held = f"items 0 to {count - 1}" if count else "no items"
            problems.add(place, above, f"{spell(above)} is a list with {held}; {name!r} is none of them.")
            return node
        items = list(node.value)
        items[int(name)] = _put(items[int(name)], rest, (*above, int(name)), value, place, problems)
        return Node(node.place, items)
    if isinstance(node.value, str) and not (node.plain and node.value in ("", "~", "null", "Null", "NULL")):
        problems.add(place, above, f"{spell(above)} is a value, not a section or list; it has no {name!r}.")
        return node
    children = dict(node.value) if isinstance(node.value, dict) else {}
    below = children.get(name, Node(place, {}))
    children[name] = _put(below, rest, (*above, name), value, place, problems)
    return Node(node.place, children)
