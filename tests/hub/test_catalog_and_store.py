import subprocess
import sys

import pytest
from pydantic import ValidationError

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub import store
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.hub.catalog import CatalogEntry, catalog
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.paths import models_dir
from regionclip_cli.hub.store import installed, is_name, place_for, resolve


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "PACKAGED", tmp_path / "packaged")


def put(folder, name, **fields):
    """Write a model file without any tensor."""
    import json
    import struct

    folder.mkdir(parents=True, exist_ok=True)
    metadata = fields.pop("metadata", None) or ModelCard(name=name, **fields).metadata()
    header = json.dumps({"__metadata__": metadata}).encode()
    path = folder / f"{name}.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_every_entry_is_whole():
    assert len(catalog()) > 20
    for name, entry in catalog().items():
        assert entry.name == name
        assert is_name(name)
        assert entry.backbone is None or entry.backbone in BACKBONES
        assert (entry.kind == "concepts") == bool(entry.names)
        for other in (entry.text_from, entry.model):
            assert other is None or other in catalog()
        assert name in entry.how_to_get or entry.origin == "package"


def test_every_backbone_has_a_model():
    assert {entry.backbone for entry in catalog().values() if entry.backbone} | {"regionclip-tiny"} == set(BACKBONES)


def test_repositories_are_those_of_open_clip():
    import open_clip

    for entry in catalog().values():
        if entry.open_clip:
            config = open_clip.get_pretrained_cfg(*entry.open_clip)
            assert config["hf_hub"].rstrip("/") == entry.repo, entry.name


def test_class_lists_have_as_many_names_as_the_files_say():
    import re

    from regionclip_cli.language.class_names import parse_classes

    for entry in catalog().values():
        if entry.names:
            count = int(re.match(r"(?:coco|lvis)_(\d+)_", entry.file).group(1))
            assert len(parse_classes(entry.names)) == count


def test_entries_say_where_they_come_from():
    with pytest.raises(ValidationError, match="must say from where"):
        CatalogEntry.model_validate({"name": "x", "summary": "x", "kind": "detector", "from": "hub"})


def test_resolve_looks_in_the_package_then_the_cache_then_at_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = put(tmp_path, "mine")
    assert resolve("mine.safetensors") == here.relative_to(tmp_path)
    assert resolve(str(here)) == here
    with pytest.raises(MissingError):
        resolve("mine")
    cached = put(models_dir(), "mine")
    assert resolve("mine") == cached
    packaged = put(store.PACKAGED, "mine")
    assert resolve("mine") == packaged


def test_known_models_say_how_to_get_them():
    with pytest.raises(MissingError) as caught:
        resolve("clip-rn50")
    assert "models get clip-rn50" in caught.value.hint
    assert str(models_dir() / "clip-rn50.safetensors") in caught.value.hint
    with pytest.raises(MissingError) as caught:
        resolve("regionclip-coco-rn50")
    assert "regionclip_finetuned-coco_rn50.pth" in caught.value.hint
    assert "models add regionclip-coco-rn50" in caught.value.hint
    assert "--text-from regionclip-rn50" in caught.value.hint
    assert caught.value.code == 5


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("clip-rm50", "Did you mean 'clip-rn50'"),
        ("my-mdel", "Did you mean 'my-model'"),
        ("xyzzy", "models ls"),
        ("./nothing.safetensors", "nothing.safetensors"),
        ("qqq/www", "qqq/www"),
    ],
)
def test_unknown_models_get_near_names(asked, sentence):
    put(models_dir(), "my-model")
    with pytest.raises(MissingError) as caught:
        resolve(asked)
    assert sentence in str(caught.value)


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        resolve(str(tmp_path))


def test_installed_reads_every_kind_and_survives_damage():
    put(store.PACKAGED, "tiny", backbone="clip-rn50", parts=("visual",))
    put(models_dir(), "rpn", kind="proposals")
    put(models_dir(), "bank", metadata={"names": '["cat"]', "model": "x", "templates": "few"})
    put(models_dir(), "foreign", metadata={"who": "knows"})
    (models_dir() / "cut.safetensors").write_bytes(b"abc")
    (models_dir() / ".x.safetensors.part").write_bytes(b"half")
    found = {item.name: item for item in installed()}
    assert {name: item.kind for name, item in found.items()} == {
        "tiny": "detector",
        "rpn": "proposals",
        "bank": "concepts",
        "foreign": "damaged",
        "cut": "damaged",
    }
    assert found["tiny"].packaged
    assert not found["rpn"].packaged
    assert found["cut"].problem
    assert found["rpn"].size > 0


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "a\\b", ".hidden", "", "x.safetensors", "-x", "a" * 101, "a b", "ä"]
)
def test_names_that_are_no_names(name):
    with pytest.raises(UsageError, match="model name"):
        place_for(name, force=True)


def test_names_that_are_taken():
    assert place_for("mine", force=False) == models_dir() / "mine.safetensors"
    put(models_dir(), "mine")
    with pytest.raises(UsageError, match="--force"):
        place_for("mine", force=False)
    assert place_for("mine", force=True) == models_dir() / "mine.safetensors"
    with pytest.raises(UsageError, match="regionclip-tiny"):
        place_for("regionclip-tiny", force=True)


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from regionclip_cli.stages.models import list_models; list_models();"
        "print([m for m in ('torch','numpy','safetensors','open_clip','huggingface_hub','pooch','mmengine')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
