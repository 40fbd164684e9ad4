"""The recipes that come with the tool: beside the package in a checkout, inside it when it is installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIX = ".yaml"


def folder() -> Path:
    """Return the folder of the recipes."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"


def packaged() -> dict[str, Path]:
    """Return the file of every recipe by its name: its path below the folder, without the suffix."""
    root = folder()
    files = sorted(root.rglob(f"*{SUFFIX}"), key=lambda file: (len(file.parts), file))
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in files}


def summary(file: Path) -> str:
    """Return what a recipe says it is: its first comment line, without the name of the file."""
    with file.open(encoding="utf-8") as lines:
        first = next(lines, "").lstrip("# ").rstrip()
    head, dash, rest = first.partition(" - ")
    return rest if dash and head.endswith(SUFFIX) else first
