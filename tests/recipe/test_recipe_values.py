"""Texts of a recipe become values: numbers, words, variables, paths; and back through `resolved.yaml`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.errors import Place, Problems
from regionclip_cli.recipe.loader import apply, load_recipe
from regionclip_cli.recipe.resolved import dump
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.recipe.yaml_tree import Node, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("600_000", 600_000),
        ("-3", -3),
        ("0", 0),
        ("1e-4", 1e-4),
        ("1E5", 100_000),
        (".5", 0.5),
        ("2.", 2.0),
        ("1_000.5", 1000.5),
        ("1e300", 1e300),
        ("007", "007"),
        ("1_", "1_"),
        ("1__0", "1__0"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2026-11-21", "2026-11-21"),
        ("1.2.3", "1.2.3"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("off", "off"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
    ],
)
def test_texts_without_quotes(text: str, value: object) -> None:
    found = read_scalar(text)
    assert found == value
    assert type(found) is type(value)


@given(st.integers(-(10**18), 10**18))
def test_whole_numbers_with_and_without_marks(number: int) -> None:
    assert read_scalar(str(number)) == number
    assert read_scalar(f"{number:_}") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_real_numbers_as_python_writes_them(number: float) -> None:
    assert read_scalar(repr(number)) == number


def write(folder: Path, text: str, name: str = "r.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_variables_and_the_name_are_filled_in_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDS", "/data/cc3m")
    monkeypatch.setenv("STEPS", "30")
    text = """
name: mine
out: "{name}/{names}/{0..3}/$HOME/{{name}}"
data: {captions: {dataset: webdataset, path: "${SHARDS}/{00000..00331}.tar", images: '{name}/${SHARDS}'}}
pretrain:
  steps: ${STEPS}
  concept_bank: "${STEPS}"
"""
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.out == "mine/{names}/{0..3}/$HOME/{mine}"
    [source] = recipe.data.caption_sources()
    assert source.path == "/data/cc3m/{00000..00331}.tar"
    assert source.images == "mine//data/cc3m"
    assert recipe.pretrain is not None
    assert recipe.pretrain.steps == 30
    assert recipe.pretrain.concept_bank == "30"


def test_the_run_folder_has_the_name_when_nothing_is_said(tmp_path: Path) -> None:
    file = write(tmp_path, "name: mine")
    assert load_recipe(file).out == "runs/mine"
    assert load_recipe(file, ["name=yours"]).out == "runs/yours"
    assert fields.checked(Recipe, name="memory").out == "runs/memory"


def test_paths_with_a_dot_are_relative_to_the_file_and_in_overrides_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    text = "name: x\nconcepts: {}\npretrain: {concept_bank: ./a.safetensors, labels: ../b}\nout: c/./d"
    write(tmp_path / "recipes", text)
    monkeypatch.chdir(work)
    recipe = load_recipe("../recipes/r.yaml", ["data.captions={dataset: text, path: [./e.txt, f.txt]}"])
    assert recipe.pretrain is not None
    assert recipe.pretrain.concept_bank == str(tmp_path / "recipes" / "a.safetensors")
    assert recipe.pretrain.labels == str(tmp_path / "b")
    assert recipe.out == "c/./d"
    assert recipe.data.caption_sources()[0].path == (str(work / "e.txt"), "f.txt")


@given(value=st.text('ab= .{}$:#-,[]&*!?"', min_size=1))
def test_an_override_is_split_at_the_first_equals_sign(value: str) -> None:
    problems = Problems()
    root = apply(Node(Place("r.yaml", 1, Path()), {}), [f"model.start='{value}'"], problems)
    assert problems.found == []
    assert isinstance(root.value, dict)
    assert isinstance(root.value["model"].value, dict)
    assert root.value["model"].value["start"].value == value


words = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
plain_words = words.filter(lambda text: "${" not in text and "{name}" not in text and not text.startswith("."))


@settings(deadline=None, max_examples=60)
@given(
    add=st.lists(plain_words, max_size=4),
    options=st.dictionaries(
        words.filter(bool), st.one_of(plain_words, st.integers(-(2**53), 2**53), st.booleans(), st.none()), max_size=3
    ),
    lr=st.floats(1e-12, 1e6),
    steps=st.integers(1, 10**9),
    milestones=st.lists(st.integers(1, 10**6), max_size=3),
)
def test_what_is_dumped_reads_back_to_the_same(
    add: list[str], options: dict[str, object], lr: float, steps: int, milestones: list[int]
) -> None:
    recipe = fields.checked(
        Recipe,
        name="x",
        data={"captions": [{"dataset": "scenes", "options": options}]},
        concepts={"add": tuple(add)},
        pretrain={"lr": lr, "steps": steps, "milestones": tuple(milestones), "clip_norm": None},
        evaluate=({"dataset": "coco", "boxes": "ground-truth"},),
    )
    with tempfile.TemporaryDirectory() as folder:
        assert load_recipe(write(Path(folder), dump(recipe))) == recipe


def test_a_dump_names_places_that_do_not_move_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = fields.checked(Recipe, name="x", data={"captions": {"dataset": "text", "path": "./a.txt"}})
    again = load_recipe(write(tmp_path / "runs", dump(recipe)))
    assert again.data.caption_sources()[0].path == str(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pretrain.accumulate=2", "grad_accum_steps"),
        ("pretrain.proposals=10", "max_proposals"),
        ("pretrain.teacher=labels", "teacher_mode"),
        ("pseudolabel.concepts=bank.safetensors", "concept_bank"),
        ("finetune.blend=0.3", "ensemble_alpha"),
        ("finetune.ema=0.9", "ema_decay"),
        ("finetune.freeze=1", "frozen_stages"),
    ],
)
def test_renamed_settings_name_the_new_word(old: str, new: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean {new}"):
        load_recipe("cc3m" if "finetune" not in old else "finetune-ov-coco", [old])
