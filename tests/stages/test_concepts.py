"""From captions to a noun list and a bank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from caption_files import write_jsonl

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.stages import concepts
from regionclip_cli.stages.concepts import ConceptsPlan, ConceptsResult, mine_files, run

CAPTIONS = ["two dogs on a couch", "a dog and a cat", "a dog", "a cat with a tennis racket"]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "captions.jsonl", [{"caption": caption} for caption in CAPTIONS])


def recipe(captions: Path, model: Path | str = "no-model", **section: Any) -> Recipe:
    return fields.checked(
        Recipe,
        name="toy",
        out=str(captions.parent / "run"),
        device="cpu",
        model={"start": str(model)},
        data={"captions": {"dataset": "jsonl", "path": str(captions)}},
        concepts={"min_count": 2, **section},
    )


def same_banks(one: Path, other: Path) -> bool:
    """Compare what banks hold; safetensors writes the fields of a header in any order."""
    first, second = ConceptBank.load(one), ConceptBank.load(other)
    same = (first.names, first.model, first.templates) == (second.names, second.model, second.templates)
    return same and bool((first.embeddings == second.embeddings).all())


def test_a_run_writes_nouns_and_bank(captions: Path, toy_model: Path) -> None:
    result = run(recipe(captions, toy_model, add=["kettle"]))
    assert isinstance(result, ConceptsResult)
    folder = RunFolder(captions.parent / "run")
    assert (result.nouns, result.bank) == (folder.nouns, folder.bank)
    assert folder.nouns.read_text() == "dog,3\ncat,2\nkettle,0\n"
    bank = ConceptBank.load(folder.bank)
    assert bank.names == ("dog", "cat", "kettle")
    encoder = TextEncoder(toy_model)
    assert (bank.model, bank.templates) == (encoder.model, encoder.card.templates)
    assert bank.embeddings.allclose(encoder.encode(bank.names), atol=1e-6)
    assert (result.captions, result.distinct, result.concepts) == (4, 4, 3)
    assert "4,764" in result.summary()
    record = folder.last_run("concepts") or {}
    assert (record["status"], record["counts"]) == ("finished", {"captions": 4, "distinct": 4, "concepts": 3})


def test_two_runs_agree_whatever_the_order(captions: Path, toy_model: Path) -> None:
    run(recipe(captions, toy_model))
    out = captions.parent / "other" / "bank.safetensors"
    write_jsonl(captions, [{"caption": caption} for caption in reversed(CAPTIONS)])
    mine_files(recipe(captions, toy_model), out)
    folder = RunFolder(captions.parent / "run")
    assert out.with_name("nouns.csv").read_bytes() == folder.nouns.read_bytes()
    assert same_banks(out, folder.bank)


def test_names_alone_need_no_model(captions: Path) -> None:
    out = captions.parent / "pool.csv"
    result = mine_files(recipe(captions, names_only=True), out)
    assert result.to_json()["bank"] is None
    assert out.read_text() == "dog,3\ncat,2\n"
    assert not (captions.parent / "run").exists()


def test_a_dry_run_writes_nothing(captions: Path, toy_model: Path) -> None:
    before = sorted(captions.parent.rglob("*"))
    for plan in (
        run(recipe(captions, toy_model, templates="clip-80"), dry_run=True),
        mine_files(recipe(captions, toy_model, templates="clip-80"), captions.parent / "b.safetensors", dry_run=True),
    ):
        assert isinstance(plan, ConceptsPlan)
        assert (plan.bytes, plan.prompts, plan.parser) == (captions.stat().st_size, 80, "hanta")
        assert str(captions) in plan.summary()
        assert json.loads(json.dumps(plan.to_json()))["dry_run"] is True
    assert sorted(captions.parent.rglob("*")) == before


def test_what_is_there_is_not_replaced(captions: Path, toy_model: Path) -> None:
    run(recipe(captions, toy_model))
    with pytest.raises(UsageError, match=r"nouns\.csv"):
        run(recipe(captions, toy_model))
    with pytest.raises(UsageError, match=r"concepts\.min_count"):
        run(recipe(captions, toy_model, min_count=1), resume=True)
    out = captions.parent / "bank.safetensors"
    mine_files(recipe(captions, toy_model), out)
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"bank\.safetensors"):
            mine_files(recipe(captions, toy_model), out, resume=resume)


@pytest.mark.parametrize("stop", ["mining", "embedding"])
def test_a_run_that_was_cut_off_goes_on(
    captions: Path, toy_model: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    whole = recipe(captions, toy_model)
    with monkeypatch.context() as patch:
        broken = {"mining": (concepts, "count_nouns"), "embedding": (ConceptBank, "save")}[stop]
        patch.setattr(*broken, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(whole)
        out = captions.parent / "file" / "bank.safetensors"
        with pytest.raises(KeyboardInterrupt):
            mine_files(whole, out)
    folder = RunFolder(captions.parent / "run")
    assert not folder.bank.exists()
    assert folder.nouns.exists() == (stop == "embedding")
    run(whole, resume=True)
    mine_files(whole, out, resume=True)
    assert same_banks(out, folder.bank)


def test_resuming_over_another_list_is_refused(captions: Path, toy_model: Path) -> None:
    (captions.parent / "nouns.csv").write_text("horse,7\n")
    out = captions.parent / "bank.safetensors"
    with pytest.raises(UsageError, match=r"nouns\.csv"):
        mine_files(recipe(captions, toy_model), out)
    with pytest.raises(UsageError, match=r"nouns\.csv"):
        mine_files(recipe(captions, toy_model), out, resume=True)
    assert (captions.parent / "nouns.csv").read_text() == "horse,7\n"


def test_what_is_missing_is_told_before_the_captions_are_read(
    captions: Path, toy_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concepts, "count_nouns", lambda *_: pytest.fail("captions were read"))
    with pytest.raises(MissingError, match="'no-model'"):
        run(recipe(captions))
    with pytest.raises(UsageError, match="'clip-8'"):
        run(recipe(captions, toy_model, templates="clip-8"))
    with pytest.raises(UsageError, match="cocoo"):
        run(recipe(captions, toy_model, add=["@cocoo"]))
    with pytest.raises(UsageError, match="'tea'"):
        run(recipe(captions, toy_model, add=["tea"], drop=["Tea"]))
    with pytest.raises(UsageError, match=r"2.* 1 "):
        run(recipe(captions, toy_model, add=["tea", "cup"], max_concepts=1))
    blind = captions.parent / "blind.safetensors"
    import torch
    from toys import toy_clip

    from regionclip_cli.hub.model_card import ModelCard

    card = ModelCard(name="blind", backbone="clip-rn50", clip=toy_clip(), parts=("visual",), templates="plain")
    write_model(blind, card, {"clip.visual.x": torch.zeros(1)})
    with pytest.raises(MissingError, match="text encoder"):
        run(recipe(captions, blind))
    assert not (captions.parent / "run").exists()


@pytest.mark.parametrize("name", ["bank", "bank.csv", "bank.txt"])
def test_a_bank_has_the_right_suffix(captions: Path, name: str) -> None:
    with pytest.raises(UsageError, match="concept bank"):
        mine_files(recipe(captions), captions.parent / name)


def test_recipes_that_lack_something(captions: Path) -> None:
    with pytest.raises(UsageError, match="captions"):
        run(fields.checked(Recipe, name="x", concepts={}))
    with pytest.raises(UsageError, match="`concepts`"):
        run(fields.checked(Recipe, name="x"))


def test_a_cut_that_leaves_nothing(captions: Path) -> None:
    with pytest.raises(UsageError, match=r"100.*'dog'.* 3 "):
        run(recipe(captions, names_only=True, min_count=100))
    assert not (captions.parent / "run" / "nouns.csv").exists()
