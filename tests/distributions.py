"""Installed packages for tests: the files an installer leaves behind, written without an installer or a network."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "plugins"


def install(
    site: Path, name: str, offers: Mapping[str, Mapping[str, str]], code: str = "", version: str = "1.0"
) -> Path:
    """Install a package of one module (its name with underscores) that offers entry points by group and name."""
    (site / f"{name.replace('-', '_')}.py").write_text(code)
    return _describe(site, name, version, offers)


def install_example(site: Path, name: str) -> Path:
    """Install one of the example plugins as its pyproject.toml describes it."""
    return install_folder(site, EXAMPLES / name)


def install_folder(site: Path, folder: Path) -> Path:
    """Install the modules of a folder as its pyproject.toml describes them."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    for module in folder.glob("*.py"):
        shutil.copy(module, site / module.name)
    described = project["project"]
    return _describe(site, described["name"], described["version"], described["entry-points"])


def _describe(site: Path, name: str, version: str, offers: Mapping[str, Mapping[str, str]]) -> Path:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in offers.items():
        lines += [f"[{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return info
