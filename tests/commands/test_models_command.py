import hashlib
import io
import json
import os
import re
import shlex
import sys

import checkpoint_toys
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from regionclip_cli.app import main
from regionclip_cli.commands import models as command
from regionclip_cli.hub import store
from regionclip_cli.hub.catalog import catalog
from regionclip_cli.hub.model_card import ModelCard, read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.hub.paths import models_dir
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.stages import models


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Work in an empty folder, with a packaged model of a few kilobytes."""
    monkeypatch.chdir(tmp_path)
    state = checkpoint_toys.add_tiny_backbone(monkeypatch)
    monkeypatch.setattr(store, "PACKAGED", tmp_path / "packaged")
    card = ModelCard(
        name="regionclip-tiny", backbone="toy-resnet", parts=("visual", "text"), clip=checkpoint_toys.TINY, licence="X"
    )
    write_model(tmp_path / "packaged" / "regionclip-tiny.safetensors", card, {f"clip.{k}": v for k, v in state.items()})
    return tmp_path


@pytest.fixture
def clip_file(monkeypatch):
    """An open_clip checkpoint of the toy backbone."""
    state = checkpoint_toys.add_tiny_backbone(monkeypatch)
    torch.save({"state_dict": state}, "toy.pt")
    return state


def run(capsys, *words):
    code = main(["models", *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_ls_shows_installed_and_available_models(capsys, clip_file):
    assert run(capsys, "add", "mine", "toy.pt")[0] == 0
    code, out, err = run(capsys, "ls")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    expected = {"mine": "here", "regionclip-tiny": "package", "clip-rn50": "get", "rpn-lvis-866": "hand"}
    assert {name: lines[name].split()[1] for name in expected} == {
        name: command.STATES[state] for name, state in expected.items()
    }


def test_ls_is_readable_at_80_columns(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["models", "ls"]) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", sys.stdout.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    assert words >= {"regionclip-tiny", "concepts-lvis-1203-rn50x4", *map(str, command.STATES.values())} - {
        command.STATES["here"],
        command.STATES["damaged"],
    }


def test_rm_deletes_models(capsys, clip_file):
    assert run(capsys, "add", "mine", "toy.pt")[0] == 0
    assert run(capsys, "add", "other", "toy.pt")[0] == 0
    assert run(capsys, "rm", "mine", "missing")[0] == 5
    assert run(capsys, "rm", "mine", "regionclip-tiny")[0] == 2
    assert len(list(models_dir().iterdir())) == 2
    code, out, err = run(capsys, "rm", "mine")
    assert (code, out) == (0, "")
    assert "mine.safetensors" in err
    assert [path.name for path in models_dir().iterdir()] == ["other.safetensors"]


def test_prune_keeps_models_and_recent_downloads(capsys, clip_file):
    assert run(capsys, "add", "mine", "toy.pt")[0] == 0
    cache = models_dir().parent
    stale = [cache / "downloads" / "old.pth", cache / "text" / "a.sqlite3", cache / "indexes" / "b.npz"]
    fresh = cache / "downloads" / "new.pth"
    for path in (*stale, fresh):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0" * 1000)
    os.utime(stale[0], (0, 0))
    code, out, _ = run(capsys, "prune", "--dry-run")
    assert code == 0
    assert sorted(out.splitlines()) == sorted(map(str, stale))
    assert all(path.exists() for path in stale)
    assert run(capsys, "prune")[0] == 0
    assert [path.exists() for path in (*stale, fresh)] == [False, False, False, True]
    assert (models_dir() / "mine.safetensors").exists()


def test_ls_json(capsys):
    (models_dir()).mkdir(parents=True)
    (models_dir() / "broken.safetensors").write_bytes(b"abc")
    code, out, _ = run(capsys, "ls", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert set(catalog()) < set(rows)
    assert rows["regionclip-tiny"]["state"] == "package"
    assert rows["regionclip-tiny"]["size"] > 0
    assert rows["clip-rn50"]["path"] is None
    assert rows["broken"]["state"] == "damaged"
    assert "safetensors" in rows["broken"]["summary"]


def test_add_reports_kind_and_path(capsys, clip_file):
    code, out, err = run(capsys, "add", "mine", "toy.pt")
    path = models_dir() / "mine.safetensors"
    assert (code, out) == (0, f"{path}\n")
    assert "CLIP weights, toy-resnet; visual, text; " in err
    assert "M parameters" in err
    assert "Licence: not stated" in err
    assert read_card(path).name == "mine"
    assert run(capsys, "where", "mine")[1] == out


def test_add_replaces_only_with_force(capsys, clip_file):
    run(capsys, "add", "mine", "toy.pt")
    before = (models_dir() / "mine.safetensors").stat().st_mtime_ns
    code, out, err = run(capsys, "add", "mine", "toy.pt")
    assert (code, out) == (2, "")
    assert "--force" in err
    assert (models_dir() / "mine.safetensors").stat().st_mtime_ns == before
    assert run(capsys, "add", "mine", "toy.pt", "--force", "--half")[0] == 0
    assert load_file(models_dir() / "mine.safetensors")["clip.text_projection"].dtype == torch.float16


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["add", "../x", "toy.pt"], 2, "../x"),
        (["add", "regionclip-tiny", "toy.pt"], 2, "regionclip-tiny"),
        (["add", "x", "nothing.pth"], 5, "nothing.pth"),
        (["add", "x", "empty.pth"], 2, "empty.pth"),
        (["add", "x", "toy.pt", "--text-from", "nobody"], 5, "'nobody'"),
        (["add", "x", "toy.pt", "--sha256", "0" * 64], 2, "checksum"),
        (["add", "x", "toy.pt", "--names", "@coco"], 2, "--model"),
        (["add", "x", "toy.pt", "--names", "@coco", "--model", "clip-rn50"], 2, "toy.pt"),
        (["add", "clip-rn50", "toy.pt"], 2, "toy-resnet"),
        (["add", "x", "http://127.0.0.1:9/x.pth"], 5, "http://127.0.0.1:9/x.pth"),
        (["get", "regionclip-rn50"], 5, "regionclip-rn50"),
        (["get", "clip-rn5"], 5, "Did you mean 'clip-rn50'"),
        (["get", "clip-rn50"], 5, "huggingface.co"),
        (["where", "clip-rn50"], 5, "models get clip-rn50"),
        (["where", "nobody"], 5, "nobody"),
        (["export", "nobody", "x.pt"], 5, "nobody"),
        (["export", "regionclip-tiny", "toy.pt"], 2, "toy.pt"),
        (["export", "regionclip-tiny", "x.tflite"], 2, "x.tflite"),
    ],
)
def test_errors_have_a_message_and_an_exit_code(capsys, clip_file, words, code, named):
    open("empty.pth", "w").close()
    ended, out, err = run(capsys, *words)
    assert (ended, out) == (code, "")
    assert named in err
    assert not models_dir().exists() or not list(models_dir().iterdir())


def test_matching_checksum(capsys, clip_file):
    from pathlib import Path

    found = hashlib.sha256(Path("toy.pt").read_bytes()).hexdigest()
    assert run(capsys, "add", "x", "toy.pt", "--sha256", found.upper())[0] == 0


def test_concept_embeddings(capsys):
    torch.save(torch.rand(3, 16), "emb.pth")
    code, _, err = run(capsys, "add", "bank", "emb.pth", "--names", "cat,kettle,spoon", "--model", "regionclip-tiny")
    assert code == 0
    assert "concept embeddings; 3 concepts" in err
    bank = ConceptBank.load(models_dir() / "bank.safetensors")
    assert bank.names == ("cat", "kettle", "spoon")
    bank.check("regionclip-tiny", 16)
    assert "concepts" in next(line for line in run(capsys, "ls")[1].splitlines() if line.startswith("bank"))
    words = ["add", "other", "emb.pth", "--names", "cat", "--model", "regionclip-tiny"]
    assert "--names has 1 names" in run(capsys, *words)[2]


def test_known_concept_embeddings_need_no_options(capsys):
    torch.save(torch.rand(65, 640), "coco_65_cls_emb_rn50x4.pth")
    assert run(capsys, "add", "concepts-coco-65-rn50x4", "coco_65_cls_emb_rn50x4.pth")[0] == 0
    bank = ConceptBank.load(models_dir() / "concepts-coco-65-rn50x4.safetensors")
    assert (len(bank.names), bank.model) == (65, "regionclip-rn50x4")


def test_get_downloads_and_converts(capsys, monkeypatch, clip_file, tmp_path):
    entry = catalog()["clip-rn50"].model_copy(update={"name": "toy", "backbone": "toy-resnet"})
    known = {**catalog(), "toy": entry}
    for module in (models, store):
        monkeypatch.setattr(module, "catalog", lambda: known)
    asked = []
    monkeypatch.setattr(models, "fetch_from_hub", lambda *words: asked.append(words[:2]) or tmp_path / "toy.pt")
    code, out, err = run(capsys, "get", "toy")
    assert (code, out) == (0, f"{models_dir() / 'toy.safetensors'}\n")
    assert "licence: MIT" in err
    assert asked == [("timm/resnet50_clip.openai", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))]
    assert read_card(models_dir() / "toy.safetensors").licence == "MIT"
    code, _, err = run(capsys, "get", "toy")
    assert code == 0
    assert str(models_dir() / "toy.safetensors") in err
    assert len(asked) == 1
    assert run(capsys, "get", "toy", "--force")[0] == 0
    assert len(asked) == 2


def test_get_of_the_packaged_model(capsys):
    code, _, err = run(capsys, "get", "regionclip-tiny")
    assert code == 0
    assert "regionclip-tiny.safetensors" in err


def test_add_from_a_url(capsys, monkeypatch, clip_file, tmp_path):
    from pathlib import Path

    def fetch(url, target, progress, sha256=None):
        target.parent.mkdir(parents=True)
        target.write_bytes(Path("toy.pt").read_bytes())

    monkeypatch.setattr(models, "fetch_url", fetch)
    assert run(capsys, "add", "far", "https://host/deep/toy.pt?download=1")[0] == 0
    assert read_card(models_dir() / "far.safetensors").backbone == "toy-resnet"
    assert not list((models_dir().parent / "downloads").iterdir())


def test_export_loads_strictly_into_open_clip(capsys):
    code, out, err = run(capsys, "export", "regionclip-tiny", "out.pt")
    assert (code, out) == (0, "")
    assert "tensors written to out.pt" in err
    model = open_clip.CLIP(**checkpoint_toys.TINY)
    model.load_state_dict(torch.load("out.pt", weights_only=True), strict=True)


def test_detector_without_text_encoder_gets_a_hint(capsys, monkeypatch):
    tensors = checkpoint_toys.finetuned(checkpoint_toys.official("rn50"), 1024)
    torch.save({"model": tensors}, "fine.pth")
    monkeypatch.setattr(models, "write_model", lambda path, card, tensors: write_model(path, card, {}))
    code, _, err = run(capsys, "add", "regionclip-coco-rn50", "fine.pth")
    assert code == 0
    assert "RegionCLIP fine-tuned detector, clip-rn50; visual, proposals, box_head, classifier" in err
    assert "--text-from regionclip-rn50" in err


def examples():
    """Return every example in the help of `regionclip models`, as words."""
    for info in command.app.registered_commands:
        text = info.callback.__doc__.replace("\\\n", " ")
        yield from (shlex.split(line)[1:] for line in re.findall(r"^\s*(regionclip .*)$", text, re.M))


def test_help_examples_run(capsys, monkeypatch, tmp_path):
    """On stand-ins of the released files that take no space; writing keeps the cards and leaves the tensors out."""
    rn50 = checkpoint_toys.official("rn50")
    torch.save({"model": rn50}, "regionclip_pretrained-cc_rn50.pth")
    torch.save({"model": checkpoint_toys.finetuned(rn50, 1024)}, "regionclip_finetuned-coco_rn50.pth")
    torch.save({"model": checkpoint_toys.proposal_network(rn50)}, "rpn_lvis_866.pth")
    torch.save(torch.rand(1203, 1024), "lvis_1203_cls_emb.pth")
    monkeypatch.setattr(models, "write_model", lambda path, card, tensors: write_model(path, card, {}))

    def from_hub(repo, files, progress):
        spec = "RN50" if "resnet50" in repo else "ViT-B-16"
        state = checkpoint_toys.marked(checkpoint_toys.clip_shapes(open_clip.get_model_config(spec)))
        torch.save(state, "fetched.pt")
        return tmp_path / "fetched.pt"

    monkeypatch.setattr(models, "fetch_from_hub", from_hub)
    found = list(examples())
    assert len(found) == 16
    for words in found:
        assert words[0] == "models"
        ended, _, err = run(capsys, *words[1:])
        assert ended == 0, (words, err)


def test_help_of_every_subcommand(capsys):
    for info in command.app.registered_commands:
        name = info.name or info.callback.__name__
        code, out, _ = run(capsys, name, "--help")
        assert code == 0
        assert "Examples:" in out
