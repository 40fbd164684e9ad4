"""Write the versions of the current environment to constraints.txt and to pyproject.toml's `constraint-dependencies`.

uv run python .ci/pins.py            # after an upgrade: uv sync --upgrade, run the tests, then this
uv run python .ci/pins.py --check    # exit 1 when pyproject.toml and constraints.txt differ
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "regionclip-cli"
BLOCK = re.compile(r"(?<=# pins: written by \.ci/pins\.py\n)constraint-dependencies = \[.*?\n\]\n", re.DOTALL)


def installed() -> list[str]:
    """Return `name==version` of every distribution in this environment but our own, sorted."""
    found = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in metadata.distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if not name.startswith("regionclip")]


def block(pins: list[str]) -> str:
    """Return the lines that pyproject.toml must hold for these pins."""
    return "constraint-dependencies = [\n" + "".join(f'    "{pin}",\n' for pin in pins) + "]\n"


def in_step(root: Path = ROOT) -> bool:
    """Tell whether pyproject.toml carries exactly the pins of constraints.txt."""
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    found = BLOCK.search((root / "pyproject.toml").read_text())
    return found is not None and found.group() == block(pins)


def write(root: Path = ROOT) -> None:
    """Write both files from the current environment."""
    pins = installed()
    head = (
        f"# Exact versions that {PROJECT} is tested with: pip install -c constraints.txt .   Written by .ci/pins.py.\n"
    )
    (root / "constraints.txt").write_text(head + "\n".join(pins) + "\n")
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(BLOCK.sub(lambda _: block(pins), text, count=1))


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(0 if in_step() else "constraints.txt and pyproject.toml differ: run `uv run python .ci/pins.py`")
    write()
