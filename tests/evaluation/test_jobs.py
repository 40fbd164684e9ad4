"""Which networks are evaluated: those the recipe has trained before those it starts from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from toys import write_toy_model

from regionclip_cli.evaluation.jobs import make_jobs
from regionclip_cli.evaluation.metrics import compute_metrics
from regionclip_cli.evaluation.report import write_results
from regionclip_cli.recipe.fields import checked
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.progress import Silent


@pytest.fixture
def networks(make_recipe: Any, toy_path: Path, tmp_path: Path) -> Any:
    """Return the model and the proposals of a measurement, where some stages have left models in the run folder."""
    lent = write_toy_model(tmp_path / "lent.safetensors", kind="proposals", backbone=None)

    def found(*made: str, named: bool = False, **sections: Any) -> tuple[str, str | None]:
        for stage in made:
            place = tmp_path / "run" / stage / "model.safetensors"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(lent if stage == "proposals" else toy_path, place)
        values = make_recipe(model=None).model_dump() | {"model": {"start": str(toy_path)}} | sections
        values["model"] |= {"proposals": str(lent)} if named else {}
        [job] = make_jobs(checked(Recipe, **values), Silent())
        names = [
            path and (path.parent.name if path.is_relative_to(tmp_path / "run") else path.stem)
            for path in (job.model, job.proposals)
        ]
        return names[0], names[1]

    return found


FPN, HEAD = {"network": "rpn-fpn"}, {"network": "rpn-trunk"}


def test_proposals_come_from_the_trained_network(networks: Any) -> None:
    assert networks(proposals=FPN) == ("toy", None)
    assert networks(proposals=FPN, named=True) == ("toy", "lent")
    assert networks("proposals", proposals=FPN) == ("toy", "proposals")
    assert networks("proposals", proposals=FPN, named=True) == ("toy", "proposals")
    assert networks("pretrain", proposals=FPN) == ("pretrain", "proposals")


def test_proposal_head_is_evaluated_with_its_trunk(networks: Any) -> None:
    assert networks("proposals", "pretrain", proposals=HEAD, named=True) == ("proposals", None)


@pytest.mark.parametrize("proposals", [FPN, HEAD])
def test_finetuned_model_uses_its_proposal_network(networks: Any, proposals: dict) -> None:
    assert networks("finetune", "proposals", "pretrain", proposals=proposals, named=True) == ("finetune", None)


@pytest.mark.parametrize("share", ["about.json", "results.json"])
def test_several_processes_write_at_once(make_recipe: Any, monkeypatch: pytest.MonkeyPatch, share: str) -> None:
    [job] = make_jobs(make_recipe(), Silent())
    measured = compute_metrics(job.task, [])

    def write() -> None:
        job.claim() if share == "about.json" else write_results(job, measured, list, Silent())

    sync, others = os.fsync, [write]

    def another_comes_between(file: int) -> None:
        sync(file)
        if others:
            others.pop()()

    monkeypatch.setattr(os, "fsync", another_comes_between)
    write()
    assert not others
    assert [path.name for path in job.folder.iterdir()] == [share]
    assert json.loads((job.folder / share).read_bytes())
