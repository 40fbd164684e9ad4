"""A recipe over its parent, and overrides over both."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe import library
from regionclip_cli.recipe.loader import load_recipe


@pytest.fixture(autouse=True)
def _work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_sections_are_joined_and_other_values_replaced() -> None:
    Path("sub/deep").mkdir(parents=True)
    Path("sub/deep/grand.yaml").write_text(
        "name: g\nseed: 3\npretrain: {steps: 10, milestones: [1, 2], losses: {distill: 0.5}}\n"
        "concepts: {}\ndata: {captions: {dataset: text, path: ./g.txt}}\n"
    )
    Path("sub/parent.yaml").write_text("extends: deep/grand.yaml\nname: p\npretrain: {milestones: [5], lr: 0.1}\n")
    Path("r.yaml").write_text(
        "extends: ./sub/parent.yaml\nname: r\nconcepts: null\npretrain: {losses: {image_text: 0}}\n"
    )
    recipe = load_recipe("r.yaml", ["pretrain.lr=0.2", "pretrain.lr=3e-1"])
    assert (recipe.name, recipe.seed, recipe.out) == ("r", 3, "runs/r")
    assert recipe.concepts is None
    assert recipe.pretrain is not None
    assert (recipe.pretrain.steps, recipe.pretrain.milestones, recipe.pretrain.lr) == (10, (5,), 0.3)
    assert recipe.pretrain.losses.model_dump() == {"region_text": 1.0, "distill": 0.5, "image_text": 0.0}
    assert recipe.data.caption_sources()[0].path == str(Path("sub/deep/g.txt").absolute())


def test_a_parent_may_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE", "base")
    Path("base.yaml").write_text("name: b\nseed: 7\n")
    Path("r.yaml").write_text('extends: "${BASE}.yaml"\nname: r\n')
    assert load_recipe("r.yaml").seed == 7


def test_a_parent_may_be_a_recipe_of_the_tool() -> None:
    Path("r.yaml").write_text("extends: tiny\nname: r\n")
    recipe = load_recipe("r.yaml")
    assert recipe.pretrain == load_recipe("tiny").pretrain
    captions = recipe.data.caption_sources()[1].paths()[0]
    assert Path(captions) == library.recipes_folder() / "tiny" / "captions.jsonl"


def test_overrides_reach_into_lists_and_make_sections() -> None:
    Path("r.yaml").write_text("name: r\nevaluate: [{dataset: coco}, {dataset: lvis}]\npseudolabel: null\n")
    overrides = [
        "evaluate.0.boxes=ground-truth",
        "evaluate.1={dataset: scenes}",
        "pretrain.losses.distill=0",
        "pseudolabel={}",
        "concepts.add=[a=b, 'c, d']",
        "finetune.short_sides=[64]",
        "model.teacher=",
    ]
    recipe = load_recipe("r.yaml", overrides)
    assert [(item.dataset, item.boxes) for item in recipe.evaluate] == [
        ("coco", "ground-truth"),
        ("scenes", "proposals"),
    ]
    assert recipe.pretrain is not None
    assert recipe.pretrain.losses.distill == 0
    assert recipe.pseudolabel is not None
    assert recipe.concepts is not None
    assert recipe.concepts.add == ("a=b", "c, d")
    assert recipe.finetune is not None
    assert recipe.finetune.short_sides == (64,)
    assert recipe.model.teacher is None


def test_a_file_beside_goes_before_a_recipe_of_the_tool() -> None:
    Path("tiny").write_text("name: mine\n")
    assert load_recipe("tiny").name == "mine"
    Path("tiny").unlink()
    Path("tiny").mkdir()
    assert load_recipe("tiny").name == "tiny"


def test_a_copy_brings_its_files_and_takes_nothing_away() -> None:
    assert [str(path) for path in library.copy("tiny")] == [
        "tiny.yaml",
        "tiny/README.md",
        "tiny/captions.jsonl",
        "tiny/cat.jpg",
        "tiny/coffee.jpg",
    ]
    assert load_recipe("tiny.yaml").data.caption_sources()[1].paths() == (str(Path("tiny/captions.jsonl").absolute()),)
    with pytest.raises(UsageError, match=r"^tiny.yaml is there already. .*nothing was written"):
        library.copy("tiny")


def test_a_copy_leaves_a_folder_of_the_same_name_alone() -> None:
    Path("tiny").mkdir()
    Path("tiny/mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"^tiny is there already"):
        library.copy("tiny")
    assert [path.name for path in Path().rglob("*")] == ["tiny", "mine.txt"]


@pytest.mark.parametrize(("to", "made"), [("new/a.yaml", "new/a.yaml"), ("there", "there/cc3m.yaml")])
def test_a_copy_goes_where_it_is_told(to: str, made: str) -> None:
    Path("there").mkdir()
    assert library.copy("cc3m", Path(to)) == [Path(made)]
    assert Path(made).read_bytes() == library.packaged()["cc3m"].read_bytes()


def test_recipes_inside_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "recipes" / "more").mkdir(parents=True)
    (tmp_path / "recipes" / "more" / "b.yaml").write_text("# b.yaml - What it is.\nname: b\n")
    (tmp_path / "recipes" / "a.yaml").write_text("name: a\n")
    monkeypatch.setattr(library, "PACKAGE", tmp_path)
    assert list(library.packaged()) == ["a", "more/b"]
    assert library.summary(library.packaged()["more/b"]) == "What it is."
    assert load_recipe("more/b").name == "b"
