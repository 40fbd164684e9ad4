"""Facts about the machine that need no import of a library."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from regionclip_cli import __version__, environment


def test_versions_are_the_installed_ones() -> None:
    found = environment.versions()
    assert found["torch"] == version("torch")
    assert found["regionclip-cli"] == __version__
    assert set(environment.NEEDED) <= set(found)


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"mmcv-lite": "2.1.0"}, {"mmcv-lite": "2.1.0"}),
        ({"mmcv": "2.1.0"}, {"mmcv": "2.1.0"}),
        ({"mmcv": "2.1.0", "mmcv-lite": "2.1.0"}, {"mmcv": "2.1.0", "mmcv-lite": "2.1.0"}),
        ({}, {"mmcv-lite": None}),
    ],
)
def test_mmcv_or_mmcv_lite(
    installed: dict[str, str], expected: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(distribution: str) -> str:
        if distribution in environment.MMCV and distribution not in installed:
            raise environment.PackageNotFoundError(distribution)
        return installed.get(distribution, "1.0")

    monkeypatch.setattr(environment, "version", fake)
    found = environment.versions()
    assert {name: found[name] for name in environment.MMCV if name in found} == expected
    assert environment.missing() == [name for name, text in expected.items() if text is None]


def test_missing_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.missing() == []
    monkeypatch.setattr(environment, "NEEDED", ("torch", "no-such-distribution"))
    assert environment.missing() == ["no-such-distribution"]


def test_machine() -> None:
    machine = environment.machine()
    assert machine.python == platform.python_version()
    assert machine.cores >= 1
    assert machine.memory_gib is None or machine.memory_gib > 0.1


def test_facts_are_json() -> None:
    facts = json.loads(json.dumps(environment.facts()))
    assert facts["machine"]["cores"] == environment.machine().cores
    assert facts["versions"] == environment.versions()


def test_folder_size_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "deep" / "b").write_bytes(b"x" * 500)
    assert environment.folder_size(tmp_path) == 1500
    (tmp_path / "deep" / "link").symlink_to(tmp_path / "a")
    assert environment.folder_size(tmp_path) < 2000
    assert environment.folder_size(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (27_400_000, "27.4 MB"), (5 * 10**9, "5.0 GB"), (10**13, "10.0 TB")],
)
def test_spell_bytes(size: int, words: str) -> None:
    assert environment.spell_bytes(size) == words
