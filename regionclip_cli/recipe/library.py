"""The recipes that come with the tool: beside the package in a checkout, inside it when it is installed."""

from __future__ import annotations

import os
from pathlib import Path

from regionclip_cli.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIX = ".yaml"


def recipes_folder() -> Path:
    """Return the folder of the recipes."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"


def packaged() -> dict[str, Path]:
    """Return the file of every recipe by its name: its path below the folder, without the suffix."""
    root = recipes_folder()
    names = {file.relative_to(root).with_suffix("").as_posix(): file for file in root.rglob(f"*{SUFFIX}")}
    return {name: names[name] for name in sorted(names, key=lambda name: (name.count("/"), name))}


def summary(file: Path) -> str:
    """Return what a recipe says it is: its first comment line, without the name of the file."""
    with file.open(encoding="utf-8") as lines:
        first = next(lines, "").lstrip("# ").rstrip()
    head, dash, rest = first.partition(" - ")
    return rest if dash and head.endswith(SUFFIX) else first


def copy(recipe: str | Path, to: Path | None = None) -> list[Path]:
    """Copy a recipe and, if there is one, the folder beside it that has its name; return what was written.

    Args:
        recipe: A file, or the name of a recipe that comes with the tool.
        to: The new file, or a folder to put it in; left out, a file of the same name in the working folder.

    Raises:
        UsageError: There is no such recipe, or something is there already.
        OutputError: The disk refuses.
    """
    from regionclip_cli.files import whole_file
    from regionclip_cli.recipe.loader import find_recipe

    file = find_recipe(recipe)
    target = Path(file.name) if to is None else to / file.name if to.is_dir() else to
    brought, folder = file.with_suffix(""), target.parent / file.stem
    targets = {file: target}
    if brought.is_dir():
        targets |= {path: folder / path.relative_to(brought) for path in sorted(brought.rglob("*")) if path.is_file()}
    for path in (target, *([folder] if brought.is_dir() else [])):
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already.", "Copy to another place; nothing was written.")
    for source, path in targets.items():
        with whole_file(path) as part:
            part.write_bytes(source.read_bytes())
    return list(targets.values())
