import json
import struct

import pytest
import torch
from pydantic import ValidationError
from small_disk import small_disk

from regionclip_cli.errors import MissingError, OutputError, UsageError
from regionclip_cli.files import whole_file
from regionclip_cli.hub.model_card import ModelCard, fingerprint, read_card
from regionclip_cli.hub.model_file import write_model

CARD = ModelCard(name="toy", backbone="clip-rn50", parts=("visual", "text"), clip={"embed_dim": 4}, conf=0.2)


def model(path, value=1.0, card=CARD):
    return write_model(path, card, {"clip.logit_scale": torch.tensor(value), "clip.visual.w": torch.ones(300, 2)})


def test_card_survives_the_file(tmp_path):
    path = model(tmp_path / "deep" / "toy.safetensors")
    assert read_card(path) == CARD
    assert [p.name for p in path.parent.iterdir()] == ["toy.safetensors"]


def test_card_is_frozen_and_knows_its_fields():
    with pytest.raises(ValidationError):
        ModelCard(name="x", colour="red")
    with pytest.raises(ValidationError):
        CARD.name = "other"


def test_fingerprint_tells_models_apart(tmp_path):
    first = fingerprint(model(tmp_path / "a.safetensors"))
    assert first == fingerprint(model(tmp_path / "copy.safetensors"))
    assert first != fingerprint(model(tmp_path / "b.safetensors", value=2.0))
    assert first != fingerprint(model(tmp_path / "c.safetensors", card=CARD.model_copy(update={"name": "z"})))


def test_missing_file(tmp_path):
    with pytest.raises(MissingError, match="does not exist"):
        read_card(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("content", [b"", b"abc", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 40, b"\xff" * 64])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a safetensors file"):
        read_card(path)


def test_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_card(tmp_path)


def test_truncated_file_is_refused(tmp_path):
    path = model(tmp_path / "toy.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UsageError, match="damaged"):
        read_card(path)


def raw(path, metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_foreign_newer_and_broken_cards_are_refused(tmp_path):
    with pytest.raises(UsageError, match="not a regionclip model"):
        read_card(raw(tmp_path / "a", {"format": "pt"}))
    with pytest.raises(UsageError, match="format 9"):
        read_card(raw(tmp_path / "b", {"regionclip": '{"format": 9, "name": "x", "aura": 1}'}))
    with pytest.raises(UsageError, match="aura"):
        read_card(raw(tmp_path / "c", {"regionclip": '{"name": "x", "aura": 1}'}))
    with pytest.raises(UsageError, match="model card"):
        read_card(raw(tmp_path / "d", {"regionclip": "{"}))


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    (tmp_path / "plain").touch()
    assert model(tmp_path / "toy.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("trouble", "seen"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), OutputError)],
)
def test_nothing_is_left_when_writing_fails(tmp_path, trouble, seen):
    target = tmp_path / "toy.safetensors"
    target.write_bytes(b"old")

    def write():
        with whole_file(target) as part:
            part.write_bytes(b"half")
            raise trouble

    with pytest.raises(seen) as caught:
        write()
    assert seen is KeyboardInterrupt or "No space left" in str(caught.value)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_is_one_sentence(tmp_path):
    with small_disk(1000), pytest.raises(OutputError, match=r"toy\.safetensors"):
        model(tmp_path / "toy.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"toy\.safetensors"):
        model(tmp_path / "file" / "toy.safetensors")


def test_shared_and_strided_tensors_are_written(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    path = write_model(tmp_path / "s.safetensors", CARD, {"a": base.t(), "b": base, "c": base[0]})
    from safetensors.torch import load_file

    loaded = load_file(path)
    assert torch.equal(loaded["a"], base.t())
    assert torch.equal(loaded["c"], base[0])
