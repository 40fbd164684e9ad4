"""Every recipe that comes with the tool can be used, and opens with what it is, what it needs and how to run it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from regionclip_cli.recipe import library
from regionclip_cli.recipe.loader import check_recipe, load_recipe
from regionclip_cli.recipe.resolved import dump, present
from regionclip_cli.recipe.schema import STAGES

RECIPES = library.packaged()
COMMAND = re.compile(r"(?:regionclip|-m regionclip_cli) ([a-z-]+) (.+)")


def head(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    count = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").strip() for line in lines[:count]]


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every variable that recipes name a value; the folders need not be there."""
    for file in RECIPES.values():
        for variable in re.findall(r"\$\{(\w+)\}", file.read_text(encoding="utf-8")):
            monkeypatch.setenv(variable, f"/data/{variable.lower()}")


def test_all_files_are_found() -> None:
    found = {path.resolve() for path in library.recipes_folder().rglob("*.yaml")}
    assert {path.resolve() for path in RECIPES.values()} == found
    assert {"cc3m", "cc3m-rn50x4", "coco-captions", "tiny"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_passes_its_check_and_reads_back(name: str, tmp_path: Path) -> None:
    recipe = check_recipe(name)
    assert present(recipe)
    (tmp_path / "resolved.yaml").write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_what_it_is_and_needs(name: str) -> None:
    lines = head(RECIPES[name])
    assert lines[0].startswith(f"{RECIPES[name].name} - ")
    assert library.summary(RECIPES[name]).endswith(".")
    words = {line.partition(":")[0] for line in lines if ":" in line}
    assert {"What", "Needs"} <= words
    for variable in set(re.findall(r"\$\{(\w+)\}", RECIPES[name].read_text(encoding="utf-8"))):
        assert f"export {variable}=" in "\n".join(lines), f"${variable} is not explained"


@pytest.mark.parametrize("name", RECIPES)
def test_the_commands_in_the_head_are_right(name: str) -> None:
    own = 0
    for line in head(RECIPES[name]):
        found = COMMAND.search(line)
        if found is None:
            continue
        command, words = found[1], shlex.split(found[2])
        if command == "recipes":
            command, words = words[0], words[1:]
        if command in (*STAGES, "run") and words and not words[0].startswith("-"):
            overrides = [word for word in words[1:] if "=" in word and not word.startswith("-")]
            recipe = load_recipe(words[0], overrides)
            assert command == "run" or getattr(recipe, command), line
            own += recipe.name == load_recipe(name).name
    assert own, "no command runs this recipe"


def test_the_numbers_of_the_paper() -> None:
    for name, model in (("cc3m", "clip-rn50"), ("cc3m-rn50x4", "clip-rn50x4")):
        recipe = load_recipe(name)
        settings = recipe.pretrain
        assert settings is not None
        assert recipe.concepts is not None
        assert (recipe.model.start, recipe.model.teacher, recipe.model.proposals) == (model, model, "rpn-lvis-866")
        assert (recipe.concepts.parser, recipe.concepts.min_count, recipe.concepts.templates) == (
            "spacy",
            100,
            "clip-81",
        )
        assert (settings.steps, settings.batch_size, settings.milestones, settings.decay) == (
            600_000,
            96,
            (300_000, 525_000),
            0.1,
        )
        assert (settings.optimiser, settings.lr, settings.momentum, settings.weight_decay) == ("sgd", 0.002, 0.9, 1e-4)
        assert (settings.warmup_steps, settings.warmup_factor, settings.clip_norm) == (1000, 0.001, 5.0)
        assert (settings.max_proposals, settings.proposal_iou, settings.regions, settings.min_score) == (
            300,
            0.5,
            100,
            0.1,
        )
        assert (settings.short_side, settings.max_side, settings.flip, settings.frozen_stages) == (800, 1333, 0.5, 2)
        assert (settings.teacher_mode, settings.temperature, settings.amp) == ("online", 0.01, "off")
        assert set(settings.losses.model_dump().values()) == {1.0}


DOCS = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_recipe_in_the_docs_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS", "/photos")
    found = re.search(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    assert found
    (tmp_path / "mine.yaml").write_text(found[1])
    recipe = check_recipe(tmp_path / "mine.yaml")
    [source] = recipe.data.caption_sources()
    assert (source.paths(), source.images) == ((str(tmp_path / "captions.jsonl"),), "/photos/small")
    assert present(recipe) == ("concepts", "pseudolabel", "pretrain")


@pytest.mark.parametrize("line", [line for line in DOCS.splitlines() if re.match(r"regionclip \S+ .*=", line)])
def test_the_overrides_in_the_docs_can_be_used(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: cc3m\nname: mine\nevaluate: [{dataset: coco}]\n")
    words = shlex.split(line, comments=True)
    recipe = next(word for word in words if word in RECIPES or word == "mine.yaml")
    assert check_recipe(recipe, [word for word in words if "=" in word])
