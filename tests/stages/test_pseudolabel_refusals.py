"""What `pseudolabel` refuses, and that it loses nothing then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from label_toys import done, labelling, shards, write_bank
from listening import Listener
from small_disk import small_disk
from toys import DIM, write_toy_model

from regionclip_cli.errors import MissingError, OutputError, UsageError
from regionclip_cli.stages.pseudolabel import run


def test_a_full_disk_is_one_sentence_and_loses_nothing(work: Path, toy_teacher: Path) -> None:
    many = {"regions": 300, "proposal_iou": 0.95, "min_score": 0}
    run(labelling(toy_teacher, out="whole", **many))
    sizes = {name: len(content) for name, content in shards("whole").items()}
    assert sizes["labels-00001.jsonl"] > 12_000 > sizes["labels-00002.jsonl"]
    run(labelling(toy_teacher, **many), shard_of="1/2")  # shards 0 and 2
    before = shards()
    with pytest.raises(OutputError, match=r"labels-00001\.jsonl cannot be written: File too large"), small_disk(12_000):
        run(labelling(toy_teacher, **many), resume=True)
    assert shards() == before
    assert not list(Path("run/labels").glob(".*"))
    run(labelling(toy_teacher, **many), resume=True)
    assert shards() == shards("whole")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(work: Path, toy_teacher: Path) -> None:
    Path("shut").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        run(labelling(toy_teacher, out="shut/run"))


def test_a_file_in_the_way(work: Path, toy_teacher: Path) -> None:
    Path("run").mkdir()
    Path("run/labels").write_text("in the way")
    with pytest.raises((OutputError, UsageError), match=r"run/labels"):
        run(labelling(toy_teacher))
    assert Path("run/labels").read_text() == "in the way"


@pytest.mark.parametrize(
    ("section", "error", "sentence"),
    [
        ({"concept_bank": None}, MissingError, r"run/concepts\.safetensors .*`regionclip concepts"),
        ({"concept_bank": "none.safetensors"}, MissingError, "none.safetensors"),
        ({"concept_bank": "captions.jsonl"}, UsageError, "captions.jsonl is not a safetensors file"),
        ({"source": "given"}, UsageError, "pseudolabel.source"),
        ({"boxes": "boxes.json"}, UsageError, "pseudolabel.source"),
        ({"source": "given", "boxes": "none.json"}, MissingError, "no boxes file none.json"),
    ],
)
def test_wrong_settings_end_before_anything_is_written(
    work: Path, toy_teacher: Path, section: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        run(labelling(toy_teacher, **section))
    assert not Path("run").exists()


def test_a_bank_of_another_model_is_refused(work: Path, toy_teacher: Path) -> None:
    write_bank(work / "bank.safetensors", model="clip-rn50")
    with pytest.raises(UsageError, match="made by the model 'clip-rn50' with 16 dimensions, not by 'toy'"):
        run(labelling(toy_teacher))
    write_bank(work / "bank.safetensors", dim=DIM + 1)
    with pytest.raises(UsageError, match="with 17 dimensions, and 'toy' has 16"):
        run(labelling(toy_teacher))
    assert not Path("run").exists()


def test_a_model_without_proposals_is_refused_where_a_network_should_find_regions(work: Path) -> None:
    model = write_toy_model(work / "toy.safetensors", proposals=False)
    with pytest.raises(MissingError, match=r"toy\.safetensors has no proposal network.*pseudolabel\.source"):
        run(labelling(model))
    assert done(run(labelling(model, source="grid", min_score=0))).regions == 7 * 12


def test_it_is_said_when_no_region_gets_a_label(work: Path, toy_teacher: Path) -> None:
    (work / "boxes.json").write_text('{"elsewhere.png": [[0, 0, 9, 9]]}')
    none = {"nothing": {"min_score": 1}, "other": {"source": "given", "boxes": "boxes.json"}}
    for out, section in none.items():
        said = Listener()
        assert done(run(labelling(toy_teacher, out=out, **section), said)).regions == 0
        assert any("No labels" in text for text in said.warnings)
    assert "boxes.json" in said.warnings[-1]
    said = Listener()
    run(labelling(toy_teacher, out="some", min_score=0), said)
    assert said.warnings == []


def test_a_recipe_without_the_section(work: Path, toy_teacher: Path) -> None:
    with pytest.raises(UsageError, match="`pseudolabel`"):
        run(labelling(toy_teacher).model_copy(update={"pseudolabel": None}))


def test_shards_that_nothing_tells_of_are_not_taken_up(work: Path, toy_teacher: Path) -> None:
    run(labelling(toy_teacher))
    Path("run/labels/labels.json").unlink()
    with pytest.raises(UsageError, match=r"run/labels .*labels\.json"):
        run(labelling(toy_teacher, top_k=2), resume=True)
