"""Read a recipe: its file, the one it extends, and what the command line says anew."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.recipe import library
from regionclip_cli.recipe.errors import Key, Place, Problems, explain, spell
from regionclip_cli.recipe.known_names import unknown_names
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.recipe.yaml_tree import Node, fill, parse, read_values

PARENT = "extends"
LARGEST = 1_000_000
"""Bytes of a file; recipes have a few thousand."""


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe with everything in it resolved: parent, overrides, variables, name and relative paths.

    A path that begins with ./ or ../ is relative to the file it is written in, and in an override to the working
    folder; every other path is relative to the working folder and stays as it is.

    Args:
        recipe: A file, or the name of a recipe that comes with the tool.
        overrides: Settings said anew, each as `key.sub=value`.

    Raises:
        RecipeError: Something in it is wrong; all of it is told at once, each with file and line.
        UsageError: There is no such recipe, or it cannot be read.
    """
    problems = Problems()
    loaded, _ = _load(recipe, overrides, problems)
    problems.raise_any()
    if loaded is None:  # it has not a line, so there is no line to name
        file = shown(find_recipe(recipe))
        raise UsageError(f"{file} is empty.", "A recipe begins with `regionclip: 1` and `name: ...`.")
    return loaded


def check_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe, and see too that the models and forms of data it names are known. No file of theirs is looked for.

    Raises:
        RecipeError: Something in it is wrong; all of it is told at once, each with file and line.
        UsageError: There is no such recipe, or it cannot be read.
    """
    problems = Problems()
    loaded, root = _load(recipe, overrides, problems)
    if loaded is None or root is None:
        return load_recipe(recipe, overrides)
    for key, what in unknown_names(loaded):
        problems.add(_place(root, key), key, what)
    problems.raise_any()
    return loaded


def _load(recipe: str | Path, overrides: Sequence[str], problems: Problems) -> tuple[Recipe | None, Node | None]:
    """Return the recipe, None if it cannot be used, and its nodes, None if it has none; trouble goes to `problems`."""
    root = _with_parents(find_recipe(recipe), [], problems)
    if root is None:
        return None, None
    root = apply(root, overrides, problems)
    values = read_values(root, problems)
    try:
        # Through JSON, where pydantic's strict mode knows that a list is a tuple, and no text is a number.
        return Recipe.model_validate_json(json.dumps(values), strict=True), root
    except ValidationError as err:
        for key, what in explain(Recipe, err.errors(), values, also=(PARENT,)):
            if not problems.about(key):
                problems.add(_place(root, key), key, what)
        return None, root


def find_recipe(recipe: str | Path) -> Path:
    """Return the file of a recipe, given as a file or as the name of one that comes with the tool.

    Raises:
        UsageError: There is neither.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    known = library.packaged()
    if str(recipe) in known:
        return known[str(recipe)]
    if path.is_dir():
        raise UsageError(f"{recipe} is a folder and not a recipe.", "Name a .yaml file in it.")
    near = did_you_mean(path.stem, known)
    hint = near or (f"There are {', '.join(known)}." if known else "")
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UsageError(f"There is no file {recipe}.", hint)
    raise UsageError(f"There is no recipe called {str(recipe)!r}, and no such file.", hint)


def shown(file: Path) -> str:
    """Return a file as a person would name it here: relative to the working folder if it is in it."""
    absolute = Path(os.path.abspath(file))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def read_text(file: Path) -> str:
    """Return the text of a recipe.

    Raises:
        UsageError: It cannot be read, is too large, or is not text.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as err:
        raise UsageError(f"{shown(file)} cannot be read: {err.strerror or err}.") from err
    if len(data) > LARGEST:
        raise UsageError(f"{shown(file)} is too large for a recipe.", "Is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data[: err.start].count(b"\n") + 1
        raise UsageError(f"{shown(file)}:{line}: This is not text in UTF-8.", "Is it the right file?") from err


def _with_parents(file: Path, below: list[Path], problems: Problems) -> Node | None:
    """Return the nodes of a file over those of the file it extends; `below` are the files that led here."""
    folder = Path(os.path.abspath(file)).parent
    root = parse(read_text(file), shown(file), folder, problems)
    if root is None:
        return None
    if not isinstance(root.value, dict):
        problems.add(root.place, (), "A recipe is a section of `key: value` lines.")
        return None
    parent = root.value.pop(PARENT, None)
    if parent is None:
        return root
    above = _parent_file(parent, folder, problems)
    if above is None:
        return root
    line = [*below, Path(os.path.abspath(file))]
    if Path(os.path.abspath(above)) in line:
        names = " > ".join(path.name for path in [*line, above])
        problems.add(parent.place, (PARENT,), f"These recipes extend each other in a circle: {names}.")
        return root
    base = _with_parents(above, line, problems)
    return root if base is None else _merged(base, root)


def _parent_file(parent: Node, folder: Path, problems: Problems) -> Path | None:
    """Return the file that `extends` names: relative to the file that says so, or a recipe of the tool."""
    if not isinstance(parent.value, str) or not parent.value:
        problems.add(parent.place, (PARENT,), "It should be one file, or the name of a recipe.")
        return None
    text = fill(parent, None, (PARENT,), problems)
    beside = folder / text
    try:
        return beside if beside.is_file() else find_recipe(text if Path(text).parent == Path() else beside)
    except UsageError as err:
        problems.add(parent.place, (PARENT,), str(err))
        return None


def _merged(base: Node, child: Node) -> Node:
    """Return sections joined key by key; any other value of the child takes the place of the parent's."""
    if not isinstance(base.value, dict) or not isinstance(child.value, dict):
        return child
    children: Mapping[str, Node] = child.value
    joined: dict[str, Any] = dict(base.value)
    for name, node in children.items():
        joined[name] = _merged(joined[name], node) if name in joined else node
    return Node(child.place, joined)


def _place(root: Node, key: Key) -> Place:
    """Return where a setting is written, or the section it should be in."""
    here = root
    for part in key:
        below: Node | None = None
        if isinstance(here.value, dict):
            below = here.value.get(str(part))
        elif isinstance(here.value, list) and isinstance(part, int) and part < len(here.value):
            below = here.value[part]
        if below is None:
            return here.place
        here = below
    return here.place


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
