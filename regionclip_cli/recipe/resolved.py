"""A recipe with everything in it resolved, as YAML that reads back to the same settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regionclip_cli.recipe.schema import STAGES, Recipe

READS = {
    "concepts": ("data.captions",),
    "pseudolabel": ("data.captions",),
    "pretrain": ("data.captions",),
    "proposals": ("data.train", "data.val"),
    "finetune": ("data.train", "data.val"),
    "evaluate": ("data.val",),
}
"""Which data each stage reads."""


def dump(recipe: Recipe) -> str:
    """Return all settings of a recipe as YAML, those left at their defaults too."""
    import yaml

    values = _absolute(recipe.model_dump(mode="json"))
    return yaml.dump(values, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)


def write_resolved(recipe: Recipe, path: Path) -> None:
    """Write the settings of a recipe to a file, in one step.

    Raises:
        OutputError: The disk refuses.
    """
    from regionclip_cli.files import whole_file

    with whole_file(path) as part:
        part.write_text(f"# Every setting of a run, as it was used.\n{dump(recipe)}", encoding="utf-8")


def settings_of(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Return what decides the results of a stage, flat: {"pretrain.losses.distill": 1.0}.

    That is its own section, the models, the seed and the data it reads; the rest may change without touching it.
    """
    values = _flat(recipe.model_dump(mode="json", include={stage, "seed", "model", "data"}), "")
    return {key: value for key, value in values if not key.startswith("data.") or key.startswith(READS[stage])}


def present(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages that a recipe has, in the order in which they run."""
    return tuple(stage for stage in STAGES if getattr(recipe, stage) not in (None, ()))


def _flat(value: Any, above: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _flat(below, f"{above}.{key}" if above else str(key))
    else:
        yield above, value


def _absolute(value: Any) -> Any:
    """Return values without paths that begin with ./ or ../, which would mean another place in a file elsewhere."""
    if isinstance(value, dict):
        return {key: _absolute(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_absolute(below) for below in value]
    if isinstance(value, str) and (value.startswith(("./", "../")) or value in (".", "..")):
        return os.path.abspath(value)
    return value


def _dumper() -> type[Any]:
    """Return PyYAML's dumper with quotes around every text that our reader could take for something else."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Texts in double quotes unless they are plain words; no aliases."""

        def ignore_aliases(self, data: Any) -> bool:
            """Write equal values again."""
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        plain = value.replace("-", "").replace("_", "").isalpha() and value.isascii()
        safe = plain and value.lower() not in ("null", "true", "false") and not value.startswith("-")
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if safe else '"')

    Dumper.add_representer(str, text)
    return Dumper
