"""What is wrong in a recipe is told at once, each with its place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionclip_cli.errors import ExitCode, UsageError
from regionclip_cli.recipe.errors import RecipeError
from regionclip_cli.recipe.loader import LARGEST, check_recipe, load_recipe


@pytest.fixture(autouse=True)
def _work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABSENT", raising=False)


def problems_of(text: str, *overrides: str) -> list[str]:
    Path("r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml", overrides)
    assert caught.value.code == ExitCode.USAGE
    assert str(caught.value).rstrip() == "\n".join(map(str, caught.value.problems))
    return str(caught.value).rstrip().split("\n")


def test_all_problems_at_once_in_the_order_of_the_lines() -> None:
    text = """name: x
pretrain:
  stps: 3
  lr: fast
  amp: bf
  losses: {distil: 1}
  batch_size: 0
  flip: yes
stps: 3
steps: 4
evaluate: [{boxes: 3}, {max_dets: 1.5}]
data: {captions: {path: "${ABSENT}/a", dataset: [a]}}
seed: -1
name: y
"""
    assert problems_of(text, "pretrain.regions=many") == [
        "r.yaml:3: pretrain.stps: There is no such setting. Did you mean 'steps'?",
        "r.yaml:4: pretrain.lr: It should be a number, not 'fast'.",
        "r.yaml:5: pretrain.amp: It should be 'off' or 'bf16', not 'bf'. Did you mean 'bf16'?",
        "r.yaml:6: pretrain.losses.distil: There is no such setting. Did you mean 'distill'?",
        "r.yaml:7: pretrain.batch_size: It should be greater than or equal to 1, not 0.",
        "r.yaml:8: pretrain.flip: It should be a number, not 'yes'.",
        "r.yaml:9: stps: There is no such setting. The settings here are regionclip, name, seed, out, device, model, "
        "data, concepts, pseudolabel, pretrain, proposals, finetune, evaluate, extends.",
        "r.yaml:10: steps: There is no such setting. There is pretrain.steps and proposals.steps and finetune.steps.",
        "r.yaml:11: evaluate.0.boxes: It should be text, not 3. Put it in quotes.",
        "r.yaml:11: evaluate.1.max_dets: It should be a whole number, not 1.5.",
        "r.yaml:12: data.captions.path: The environment variable ABSENT is not set; `export ABSENT=...` first.",
        "r.yaml:12: data.captions.dataset: It should be text, not a list.",
        "r.yaml:13: seed: It should be greater than or equal to 0, not -1.",
        "r.yaml:14: name: This is here twice, first in line 1; keep one of them.",
        "override 'pretrain.regions=many': pretrain.regions: It should be a whole number, not 'many'.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1", "r.yaml:1: name: This setting is missing."),
        ("name: x\npretrain:", "r.yaml:2: pretrain: It has no value; write {} for a section with all its defaults"),
        ("name: a/b", "r.yaml:1: name: 'a/b' cannot name a folder"),
        ("name: '{name}'", "r.yaml:1: name: The name cannot be made of itself."),
        ("name: 7", "r.yaml:1: name: It should be text, not 7. Put it in quotes."),
        ("name: x\nregionclip: 2", "r.yaml:2: regionclip: It should be less than or equal to 1, not 2."),
        ("name: x\npretrain: 3", "pretrain: It should be a section of `key: value` lines, not 3."),
        ("name: x\npretrain: []", "pretrain: It should be a section of `key: value` lines, not a list."),
        ("name: x\npretrain: {lr: 1e400}", "pretrain.lr: It should be a finite number"),
        ("name: x\nname2: ''", "r.yaml:2: name2: There is no such setting. Did you mean 'name'?"),
        ("name: x\nextnds: a", "extnds: There is no such setting. Did you mean 'extends'?"),
        ("name: x\npretrain: {seed: 3}", "pretrain.seed: There is no such setting. There is seed at the top."),
        ("name: x\nconcepts: {add: [cat, 7]}", "concepts.add.1: It should be text, not 7. Put it in quotes."),
        ("name: x\ndata: {captions: 5}", "data.captions: It should be a section of `key: value` lines or a list"),
        ("name: x\ndata: {captions: {}}", "r.yaml:2: data.captions.dataset: This setting is missing."),
        ("name: x\ndata: {captions: [{dataset: a, pth: b}]}", "captions.0.pth: There is no such setting. Did you mean"),
        ("name: x\nout: a\x00b", "This is not YAML"),
        ('name: x\nout: "\\ud800"', "r.yaml:2: out: It holds characters that no text has."),
        ('name: x\nout: "a\\0b"', "r.yaml:2: out: It holds characters that no text has."),
        ("name: !!python/object:os.system x", "r.yaml:1: name: The tag !!python/object:os.system is not understood"),
        ("name: &a x\nout: *a", "r.yaml:2: out: Aliases (*name) are not understood"),
        ("a: &a [x, *a]", "Aliases (*name) are not understood"),
        ("name: x\n? [a]\n: b", "A key must be a word."),
        ("- a\n- b", "r.yaml:1: A recipe is a section of `key: value` lines."),
        ("just words", "r.yaml:1: A recipe is a section of `key: value` lines."),
        ("name: x\nout: [a", "r.yaml:2: This is not YAML"),
        ("name: x\nout: [${HOME}]", "Put texts with ${...} or {name} in quotes."),
        ("name: x\n\tout: y", "r.yaml:2: This is not YAML"),
        ("name: x\n---\nname: y", "This is not YAML"),
        ("name: x\nout: '${A-B}'", "out: ${A-B} is not understood; only the name of an environment variable"),
        ("name: x\nout: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("name: x\nout: " + "[" * 60 + "]" * 60, "nested too deeply"),
    ],
)
def test_each_problem_has_a_sentence(text: str, said: str) -> None:
    assert said in "\n".join(problems_of(text))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pretrain", "override 'pretrain': An override is written key=value"),
        ("=3", "override '=3': '' is no key"),
        ("pretrain..lr=3", "'pretrain..lr' is no key"),
        ("name.x=3", "override 'name.x=3': name: name is a value, not a section or list; it has no 'x'."),
        ("evaluate.1.boxes=x", "evaluate is a list with items 0 to 0; '1' is none of them."),
        ("evaluate.first.boxes=x", "evaluate is a list with items 0 to 0; 'first' is none of them."),
        ("pretrain.lr=[", "override 'pretrain.lr=[': This is not YAML"),
        ("pretrain.lr=${ABSENT}", "pretrain.lr: The environment variable ABSENT is not set"),
        ("pretrain.lrr=3", "override 'pretrain.lrr=3': pretrain.lrr: There is no such setting. Did you mean 'lr'?"),
        ("evaluate.0.nms={name: }", "evaluate.0.nms"),
    ],
)
def test_problems_of_overrides_name_the_override(override: str, said: str) -> None:
    assert said in "\n".join(problems_of("name: x\nevaluate: [{dataset: coco}]", override))


def test_a_variable_that_holds_a_variable_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "${HOME}")
    assert "which is not filled in again" in problems_of("name: x\nout: ${OUTER}")[0]


def test_problems_of_a_parent_name_its_file() -> None:
    Path("sub").mkdir()
    Path("sub/base.yaml").write_text("name: x\npretrain: {lrr: 1}\n")
    found = problems_of("extends: sub/base.yaml\nseed: a\n")
    assert sorted(found) == [
        "r.yaml:2: seed: It should be a whole number, not 'a'.",
        "sub/base.yaml:2: pretrain.lrr: There is no such setting. Did you mean 'lr'?",
    ]


def test_recipes_that_extend_each_other_in_a_circle() -> None:
    Path("a.yaml").write_text("extends: r.yaml\nname: a\n")
    [line] = problems_of("# a head\nextends: a.yaml\nname: r\n")
    assert line == "a.yaml:1: extends: These recipes extend each other in a circle: r.yaml > a.yaml > r.yaml."


@pytest.mark.parametrize("parent", ["nothing.yaml", "[a, b]", "tinny", "."])
def test_a_parent_that_is_none(parent: str) -> None:
    [line] = problems_of(f"extends: {parent}\nname: r\n")
    assert line.startswith("r.yaml:1: extends: ")
    assert ("Did you mean 'tiny'?" in line) == (parent == "tinny")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("tinny", "There is no recipe called 'tinny', and no such file. Did you mean 'tiny'?"),
        ("sub/tinny.yaml", "There is no file sub/tinny.yaml. Did you mean 'tiny'?"),
        ("folder", "folder is a folder and not a recipe."),
        ("empty.yaml", "empty.yaml is empty."),
        ("comment.yaml", "comment.yaml is empty."),
        ("binary.yaml", "binary.yaml:2: This is not text in UTF-8."),
        ("large.yaml", "large.yaml is too large for a recipe."),
    ],
)
def test_files_that_are_no_recipes(recipe: str, said: str) -> None:
    Path("folder").mkdir()
    Path("empty.yaml").touch()
    Path("comment.yaml").write_text("# nothing\n")
    Path("binary.yaml").write_bytes(b"a\n\xff\xfe")
    Path("large.yaml").write_bytes(b"#" * (LARGEST + 1))
    for load in (load_recipe, check_recipe):
        with pytest.raises(UsageError) as caught:
            load(recipe)
        assert said in str(caught.value)


def test_a_file_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    Path("r.yaml").write_text("name: x")
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(UsageError, match=r"r.yaml cannot be read: Permission denied"):
        load_recipe("r.yaml")


def test_check_knows_the_names_of_models_and_forms() -> None:
    text = """name: x
model: {start: clip-rn5, teacher: models/mine.safetensors, proposals: rpn-lvis-866}
data:
  captions: [{dataset: jsonl}, {dataset: webdatset}]
  val: {dataset: cocoo}
evaluate: [{model: regionclip-tny, dataset: lvis}]
"""
    Path("r.yaml").write_text(text)
    assert load_recipe("r.yaml").name == "x"
    with pytest.raises(RecipeError) as caught:
        check_recipe("r.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "r.yaml:2: model.start: There is no model called 'clip-rn5'. Did you mean 'clip-rn50' or 'clip-rn50x4' or "
        "'clip-rn50x64'?",
        "r.yaml:4: data.captions.1.dataset: There is no form of captions called 'webdatset'. "
        "Did you mean 'webdataset'?",
        "r.yaml:5: data.val.dataset: There is no form of annotations called 'cocoo'. Did you mean 'coco'?",
        "r.yaml:6: evaluate.0.model: There is no model called 'regionclip-tny'. Did you mean 'regionclip-tiny' or "
        "'regionclip-rn50' or 'regionclip-rn50x4'?",
    ]
