"""`regionclip concepts` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from caption_files import write_jsonl, write_tar, write_tsv

from regionclip_cli.commands.concepts import concepts
from regionclip_cli.console import Console
from regionclip_cli.data.captions.base import guess_form
from regionclip_cli.errors import UsageError
from regionclip_cli.language.concept_bank import ConceptBank


def typed(*words: object) -> int:
    """Run the command, and return its exit code; errors pass."""
    app = typer.Typer()
    app.command()(concepts)
    return int(app(args=[str(word) for word in words], standalone_mode=False, obj=Console()) or 0)


@pytest.fixture
def captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = ["two dogs", "a dog and a cat", "a cat", "a lot of ferns"]
    return write_jsonl(tmp_path / "a.jsonl", [{"caption": line} for line in lines])


def test_caption_files_of_several_formats(captions: Path, toy_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.txt").write_text("a dog in a car\n")
    words = ["--min-count", 1, "--max-concepts", 3, "--add", "kettle", "--drop", "lot", "--model", toy_model]
    assert typed("--captions", captions, "b.txt", *words, "--out", "x/bank.safetensors", "--json") == 0
    stdout, stderr = capsys.readouterr()
    said = json.loads(stdout)
    assert (said["captions"], said["concepts"], said["bank"]) == (5, 3, "x/bank.safetensors")
    assert said["most"] == [["dog", 3], ["cat", 2], ["kettle", 0]]
    assert ConceptBank.load(Path("x/bank.safetensors")).names == ("dog", "cat", "kettle")
    assert Path("x/nouns.csv").read_text() == "dog,3\ncat,2\nkettle,0\n"
    assert "x/bank.safetensors" in stderr


def test_options_override_the_recipe(captions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text(
        "regionclip: 1\nname: r\nout: runs/r\ndata: {captions: {dataset: jsonl, path: a.jsonl}}\n"
        "concepts: {min_count: 50, drop: [lot]}\n"
    )
    assert typed("r.yaml", "concepts.min_count=9", "--names-only", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["min_count"] == 9
    assert typed("r.yaml", "concepts.min_count=9", "--names-only", "--min-count", 2, "--add", "a,b") == 0
    assert Path("runs/r/nouns.csv").read_text() == "cat,2\ndog,2\na,0\nb,0\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--captions"),
        (["--captions", "a.jsonl"], "--out"),
        (["tiny", "--out", "x.safetensors"], "--captions"),
        (["--captions", "a.jsonl", "--out", "x.csv", "--names-only", "--min-count", "0"], "concepts.min_count"),
    ],
)
def test_invalid_options_are_usage_errors(captions: Path, words: list[str], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        typed(*words)
    assert named in f"{caught.value.message} {caught.value.hint}"


def test_caption_format_is_guessed(tmp_path: Path) -> None:
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    line = json.dumps({"image": "a.jpg", "captions": ["a cat"]})
    coco = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a cat"}]}
    tar = write_tar(tmp_path / "a.tar", [("a.txt", b"a cat")])
    expected = {
        write("x.jsonl", line): "jsonl",
        write("x.txt", "{}"): "text",
        write("x.tsv", "a\tb"): "tsv",
        str(tar): "webdataset",
        write("tar", tar.read_bytes()): "webdataset",
        write("lines.json", f"{line}\n{line}\n"): "jsonl",
        write("long.json", json.dumps({"image": "a.jpg", "captions": ["a cat"] * 2000})): "jsonl",
        write("coco.json", json.dumps(coco)): "coco-captions",
        write("pretty.json", json.dumps(coco, indent=1)): "coco-captions",
        write("long-coco.json", json.dumps({"info": {"x": "y" * 9000}, **coco})): "coco-captions",
        write("words", "a cat\na dog\n"): "text",
        write("table", "a\ta cat\n"): "tsv",
        str(write_tsv(tmp_path / "folder")): "tsv",
    }
    assert {path: guess_form(path) for path in expected} == expected
    with pytest.raises(UsageError):
        guess_form(write("model.bin", b"\0\1\2"))
