"""MkDocs hook: one page per packaged recipe, generated from the recipe itself when the site is built."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from regionclip_cli.recipe.library import packaged, summary

FOLDER = "reference/recipes"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the recipe pages to the navigation, after the page about recipes."""
    pages = [{name: f"{FOLDER}/{name}.md"} for name in packaged()]
    reference: list[Any] = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    reference.append({"Packaged recipes": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages themselves."""
    for name, path in packaged().items():
        source = path.read_text(encoding="utf-8")
        page = f"# {name}\n\n{summary(path)}\n\n    regionclip recipes show {name}\n\n```yaml\n{source}```\n"
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=page))
    return files
