from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from regionclip_cli.errors import MissingError, OutputError, UsageError
from regionclip_cli.language.class_names import parse_classes
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.language.text_cache import TextCache
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.language.vocabulary_embedding import embed_bank, embed_vocabulary


@pytest.fixture
def bank() -> ConceptBank:
    rows = torch.arange(1, 13, dtype=torch.float32).reshape(3, 4)
    return ConceptBank(("cat", "kettle", "猫"), rows, "rn50", "clip-81")


def test_a_saved_bank_comes_back(bank: ConceptBank, tmp_path: Path) -> None:
    path = tmp_path / "new" / "bank.safetensors"
    bank.save(path)
    again = ConceptBank.load(path)
    assert (again.names, again.model, again.templates, again.dim) == (bank.names, "rn50", "clip-81", 4)
    assert torch.equal(again.embeddings, bank.embeddings)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with safe_open(path, framework="np") as file:
        assert list(file.keys()) == ["embeddings"]
        assert json.loads(file.metadata()["names"]) == ["cat", "kettle", "猫"]


def test_a_bank_written_twice_is_the_same_bytes(words: Path, tmp_path: Path) -> None:
    names = ("cat", "kettle", 'caf\u00e9 \x07\x7f\u2028\U0001f431"\\/', "cup")
    written = set()
    for attempt in range(6):
        encoder = TextEncoder(words)
        encoder.encode(names[attempt % 3 :])  # some of them are then in the cache
        path = tmp_path / f"{attempt}.safetensors"
        ConceptBank(names, encoder.encode(names), "words", "few").save(path)
        assert ConceptBank.load(path).names == names
        written.add(path.read_bytes())
        TextCache().clear()
    assert len(written) == 1


def test_half_precision_of_others_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    metadata = {"names": '["cat", "dog"]', "model": "m", "templates": "few"}
    save_file({"embeddings": torch.ones(2, 4).half()}, path, metadata=metadata)
    assert ConceptBank.load(path).embeddings.dtype == torch.float32


def test_rows_that_are_a_view_are_saved(bank: ConceptBank, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    dataclasses.replace(bank, embeddings=torch.randn(4, 3, requires_grad=True).T).save(path)
    assert ConceptBank.load(path).embeddings.shape == (3, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ("cat", "kettle")}, "2 names for 3"),
        ({"names": ("cat", "kettle", "cat")}, "'cat' comes twice"),
        ({"names": ("cat", " ", "cup")}, "empty"),
        ({"embeddings": torch.ones(12)}, "shape"),
        ({"embeddings": torch.ones(3, 0)}, "shape"),
        ({"embeddings": torch.ones(3, 4).double()}, "float64"),
        ({"embeddings": torch.tensor([[1.0], [float("nan")], [2.0]])}, "'kettle' is not finite"),
        ({"embeddings": torch.tensor([[1.0], [3.0], [0.0]])}, "'猫' is zero"),
    ],
)
def test_what_is_no_bank_is_refused(bank: ConceptBank, change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dataclasses.replace(bank, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({"embeddings": torch.ones(2, 3)}, {"names": '["cat"]'}, "damaged.*1 names for 2"),
        ({"embeddings": torch.ones(1, 3)}, {"names": '["cat"'}, "not JSON"),
        ({"embeddings": torch.ones(1, 3)}, {"names": '{"cat": 1}'}, "list of texts"),
        ({"embeddings": torch.ones(1, 3)}, {"names": "[1]"}, "list of texts"),
        ({"embeddings": torch.ones(1, 3, dtype=torch.int64)}, {"names": '["cat"]'}, "int64"),
        ({"embeddings": torch.ones(1, 3)}, {}, "not a concept bank"),
        ({"weights": torch.ones(1, 3)}, {"names": '["cat"]'}, "not a concept bank"),
        ({"clip.x": torch.ones(1)}, {"regionclip": "{}"}, "--model"),
        ({"embeddings": torch.ones(1, 3)}, {"names": '["cat"]', "regionclip_bank": "9"}, "Upgrade"),
    ],
)
def test_a_file_that_is_no_bank_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], words: str
) -> None:
    path = tmp_path / "bank.safetensors"
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(UsageError, match=words):
        ConceptBank.load(path)


def test_absent_and_damaged_files(bank: ConceptBank, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    with pytest.raises(MissingError):
        ConceptBank.load(path)
    bank.save(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UsageError, match="damaged"):
        ConceptBank.load(path)
    path.write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(UsageError, match="safetensors"):
        ConceptBank.load(path)


def test_a_bank_that_cannot_be_written(bank: ConceptBank, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        bank.save(tmp_path / "file" / "bank.safetensors")


def test_check(bank: ConceptBank) -> None:
    bank.check("rn50", 4)
    with pytest.raises(UsageError) as model:
        bank.check("rn50x4", 4)
    assert "'rn50'" in model.value.message
    assert "'rn50x4'" in model.value.message
    assert "Use the model 'rn50'" in model.value.hint
    with pytest.raises(UsageError, match=r"4 dimensions, and 'rn50' has 640.*again with"):
        bank.check("rn50", 640)


def test_a_vocabulary_becomes_rows_and_groups(words: Path) -> None:
    vocabulary = parse_classes("referee=striped shirt|whistle,ball", "thermos,cup")
    encoder = TextEncoder(words)
    steps: list[int] = []
    found = embed_vocabulary(vocabulary, encoder, progress=steps.append)
    assert (found.labels, found.num_classes, sum(steps)) == (("referee", "ball"), 2, 5)
    assert found.groups.tolist() == [0, 0, 1, 2, 3]
    assert found.groups.dtype == torch.int64
    expected = encoder.encode(["striped shirt", "whistle", "ball", "thermos", "cup"])
    assert torch.equal(found.embeddings, expected)
    assert not torch.equal(found.embeddings, embed_vocabulary(vocabulary, encoder, "plain").embeddings)


def test_a_bank_becomes_rows_and_groups(bank: ConceptBank, words: Path) -> None:
    found = embed_bank(bank)
    assert found.groups.tolist() == [0, 1, 2]
    assert (found.labels, found.num_classes) == (bank.names, 3)
    assert torch.equal(found.embeddings, bank.embeddings)

    encoder = TextEncoder(words)
    own = ConceptBank(("cat", "dog"), encoder.encode(["cat", "dog"], "plain"), "words", "plain")
    found = embed_bank(own, ["ball"], encoder)
    assert found.groups.tolist() == [0, 1, 2]
    assert found.num_classes == 2
    assert torch.equal(found.embeddings[2], encoder.encode(["ball"], "plain")[0])


def test_distractors_of_a_bank_need_an_encoder_and_other_names(bank: ConceptBank, words: Path) -> None:
    with pytest.raises(UsageError, match="text encoder"):
        embed_bank(bank, ["ball"])
    with pytest.raises(UsageError, match="'Cat'"):
        embed_bank(bank, ["Cat"], TextEncoder(words))
