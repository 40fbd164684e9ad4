"""`regionclip splits`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from annotation_toys import content, write
from typer.testing import CliRunner

from regionclip_cli.commands.splits import app
from regionclip_cli.console import Console
from regionclip_cli.errors import UsageError
from regionclip_cli.language import vocabularies


def run(*words: str) -> tuple[str, str]:
    """Return what the command says on stdout and stderr."""
    result = CliRunner().invoke(app, words, obj=Console(), catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


def test_ls() -> None:
    out, _ = run("ls")
    assert "coco-48-17" in out
    assert "866" in out


def test_ls_json() -> None:
    coco, lvis = map(json.loads, run("ls", "--json")[0].splitlines())
    assert coco["name"] == "coco-48-17"
    assert (len(coco["base"]), len(coco["novel"])) == (48, 17)
    assert (len(lvis["base"]), len(lvis["novel"])) == (866, 337)


def test_cut_writes_three_files(tmp_path: Path) -> None:
    split = write(tmp_path / "mine.json", {"base": ["dog", "cat"], "novel": ["tea kettle"]})
    source = write(tmp_path / "boxes.json", content())
    out, err = run("cut", str(split), "--annotations", str(source), "--out", str(tmp_path / "new"))
    assert [Path(line).name for line in out.splitlines()] == ["boxes_all.json", "boxes_b.json", "boxes_t.json"]
    assert all(Path(line).is_file() for line in out.splitlines())
    assert "2 classes, 2 images, 2 boxes" in err
    with pytest.raises(UsageError):
        run("cut", str(split), "--annotations", str(source), "--out", str(tmp_path / "new"))
    told = run("cut", str(split), "--annotations", str(source), "--out", str(tmp_path / "other"), "--json")[0]
    assert [json.loads(line)["images"] for line in told.splitlines()] == [2, 2, 1]


def test_cut_warns_about_missing_classes(tmp_path: Path) -> None:
    names = [label for label, _ in vocabularies.classes("coco-65")]
    names[names.index("umbrella")] = "umbrela"
    changed = content() | {"categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)]}
    source = write(tmp_path / "boxes.json", changed)
    _, err = run("cut", "coco-48-17", "--annotations", str(source), "--out", str(tmp_path / "new"))
    told = " ".join(err.split())
    assert "boxes.json has 64 of the 65 classes of coco-48-17; left out: umbrella." in told
    assert "Perhaps 'umbrella' is 'umbrela' there?" in told
