"""The recipe `tiny` as it is shipped: three real stages with the model in the package, held to losses seen before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regionclip_cli.recipe.loader import load_recipe
from regionclip_cli.runs.progress import Silent
from regionclip_cli.stages import pipeline

LOSSES = {
    4: {"loss_region_text": 0.619516, "loss_distill": 0.0544193, "loss_image_text": 2.43671},
    8: {"loss_region_text": 0.603632, "loss_distill": 0.121873, "loss_image_text": 2.57612},
    12: {"loss_region_text": 0.664097, "loss_distill": 0.186653, "loss_image_text": 1.77486},
    16: {"loss_region_text": 0.743125, "loss_distill": 0.295221, "loss_image_text": 1.69656},
}
"""By step. A change that is not about rounding changes them by more than the tolerance below."""


@pytest.mark.timeout(600)  # 35 s of one idle core
@pytest.mark.usefixtures("one_thread")
def test_the_three_stages_of_the_tiny_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("tiny")
    result = pipeline.run(recipe, Silent())
    assert [(stage.stage, stage.state) for stage in result.stages] == [
        ("concepts", "done"),
        ("pseudolabel", "done"),
        ("pretrain", "done"),
    ]
    assert {"circle", "cat", "cup", "spoon"} <= {
        line.partition(",")[0] for line in Path("runs/tiny/nouns.csv").read_text().splitlines()
    }
    rows = [json.loads(line) for line in Path("runs/tiny/pretrain/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(LOSSES)
    for row in rows:
        expected = LOSSES[row["step"]]
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=0.03), row["step"]
    assert Path("runs/tiny/pretrain/model.safetensors").stat().st_size > 10e6
    again = pipeline.run(recipe, Silent())
    assert [stage.state for stage in again.stages] == ["unchanged"] * 3
