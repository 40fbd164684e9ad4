"""The evaluate stage: output folder, resume, shards, failures, prediction files, dry runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from box_toys import write_shapes
from toys import write_toy_model

from regionclip_cli.errors import MissingError, RegionClipError, UsageError
from regionclip_cli.evaluation.predictor import Predictor
from regionclip_cli.recipe.schema import DetectionData
from regionclip_cli.runs.progress import Silent
from regionclip_cli.stages.evaluate import EvaluateResult, run

TIMES = ("seconds_per_image", "images_per_second", "results", "report")


class Interrupted(Silent):
    """Stops a run after some images, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.said: list[str] = []
        self.warned: list[str] = []

    def start(self, task: str, total: int | None, unit: str) -> None:
        self.task = task

    def advance(self, done: int = 1) -> None:
        if self.task == "Evaluating":
            self.left -= done
            if self.left == 0:
                raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)


def numbers(result: EvaluateResult) -> list[dict[str, Any]]:
    return [{key: value for key, value in each.items() if key not in TIMES} for each in result.measured]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the images that are predicted, as it grows."""
    seen: list[str] = []
    predict = Predictor.predict

    def noting(self: Predictor, images: Any, ready: Any) -> Any:
        seen.extend(image.name for image in images)
        return predict(self, images, ready)

    monkeypatch.setattr(Predictor, "predict", noting)
    return seen


def test_output_folder_of_an_evaluation(make_recipe: Any, tmp_path: Path) -> None:
    result = run(make_recipe({"boxes": "proposals", "name": "found"}, boxes="ground-truth", name="known"))
    known, found = result.measured
    assert result.failed == 0
    assert result.finished == result.measured
    assert (known["name"], known["boxes"], known["classes"], known["model"]) == ("known", "ground-truth", 3, "toy")
    assert {"AP", "AP50", "top1", "top5", "mean_class_accuracy"} <= known.keys()
    assert {"AP", "AP50", "AR@100", "AR@1000"} <= found.keys()
    kept = json.loads(Path(known["results"]).read_text())
    assert {key: kept[key] for key in known if key != "results"} == {k: v for k, v in known.items() if k != "results"}
    assert sorted(each["name"] for each in kept["per_class"]) == ["blue", "green", "red"]
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {"evaluate", "resolved.yaml", "run.json", "run.log"}
    assert json.loads((folder / "run.json").read_text())["runs"][0]["counts"]["images"] == 10
    json.dumps(asdict(result), allow_nan=False)


def test_interrupted_run_resumes(make_recipe: Any, tmp_path: Path, looked: list[str]) -> None:
    whole = run(make_recipe(out=tmp_path / "whole"))
    looked.clear()
    cut = Interrupted(after=2)
    with pytest.raises(KeyboardInterrupt):
        run(make_recipe(), cut)
    assert "--resume goes on" in cut.said[-1]
    assert len(looked) == 2
    with pytest.raises(UsageError, match="holds the results of another run"):
        run(make_recipe())
    again = run(make_recipe(), resume=True)
    assert len(looked) == len(set(looked)) == 5
    assert numbers(again) == numbers(whole)
    assert numbers(run(make_recipe(), resume=True)) == numbers(whole)
    assert len(looked) == 5


def test_shares_are_scored_by_the_last_process(make_recipe: Any, tmp_path: Path, looked: list[str]) -> None:
    whole = run(make_recipe(out=tmp_path / "whole"))
    looked.clear()
    first = run(make_recipe(), shard_of="1/2")
    assert [each["missing"] for each in first.measured] == [2]
    assert first.finished == ()
    assert "other processes" in first.summary()
    second = run(make_recipe(), shard_of="2/2")
    assert len(looked) == len(set(looked)) == 5
    assert numbers(second) == numbers(whole)
    with pytest.raises(UsageError, match="predictions-1of2"):
        run(make_recipe(), shard_of="1/2")
    assert numbers(run(make_recipe(), shard_of="1/2", resume=True)) == numbers(whole)


def test_share_from_torchrun_environment(make_recipe: Any, monkeypatch: pytest.MonkeyPatch, looked: list[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "5")
    monkeypatch.setenv("RANK", "3")
    assert run(make_recipe()).measured[0]["missing"] == 4
    assert looked == ["3.png"]


def test_unreadable_image_is_skipped_and_retried(
    make_recipe: Any, shapes: DetectionData, tmp_path: Path, looked: list[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(str(shapes.images), images)
    good = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(good[:60])
    (images / "2.png").write_bytes((images / "3.png").read_bytes()[:0])
    told = Interrupted(after=99)
    result = run(make_recipe(images=str(images)), told)
    assert result.failed == result.measured[0]["failed"] == 2
    assert result.measured[0]["images"] == 5
    assert [warning.split()[0] for warning in told.warned] == ["1.png", "2.png"]
    (images / "1.png").write_bytes(good)
    assert run(make_recipe(images=str(images)), resume=True).failed == 1
    assert looked.count("1.png") == 1
    assert looked.count("0.png") == 1


def test_image_size_differs_from_annotations(make_recipe: Any, shapes: DetectionData, tmp_path: Path) -> None:
    content = json.loads(Path(str(shapes.annotations)).read_text())
    content["images"][0]["width"] += 1
    path = tmp_path / "wide.json"
    path.write_text(json.dumps(content))
    told = Interrupted(after=99)
    run(make_recipe(annotations=str(path)), told)
    assert [warning.split()[0] for warning in told.warned] == ["0.png"]


def test_resume_with_another_model_is_refused(make_recipe: Any, tmp_path: Path, toy_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    shutil.copy(toy_path, model)
    run(make_recipe(model=str(model)))
    write_toy_model(model, seed=5, templates="few")
    with pytest.raises(UsageError, match="model") as told:
        run(make_recipe(model=str(model)), resume=True)
    assert "another folder" in told.value.hint


def test_default_model_is_the_last_trained_one(make_recipe: Any, tmp_path: Path) -> None:
    for stage in ("pretrain", "finetune"):
        trained = tmp_path / "run" / stage / "model.safetensors"
        trained.parent.mkdir(parents=True)
        write_toy_model(trained, name=f"toy-{stage}")
        run(make_recipe(model=None, name="own"))
        about = json.loads((tmp_path / "run" / "evaluate" / "own" / "about.json").read_text())
        assert about["model"][0] == f"toy-{stage}"
        shutil.rmtree(tmp_path / "run" / "evaluate")


def test_predictions_file_is_scored_without_model(make_recipe: Any, tmp_path: Path) -> None:
    lines = [{"image": f"{number}.png", "detections": []} for number in range(4)] + [
        {"image": "9.png", "detections": []}
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    told = Interrupted(after=99)
    result = run(make_recipe(model=None, predictions=str(path), images=None, report=True), told)
    assert result.measured[0]["AP"] == 0
    assert result.measured[0]["model"] is None
    assert [warning.split()[0] for warning in told.warned] == ["1", "1"]
    assert Path(result.measured[0]["report"]).stat().st_size > 1000


def test_nan_detections_are_warned_about(make_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = Predictor.predict

    def damaged(self: Predictor, images: Any, ready: Any) -> Any:
        seen = predict(self, images, ready)
        for each in seen:
            each.scores[:2] = float("nan")
        return seen

    fine, told = Interrupted(after=99), Interrupted(after=99)
    result = run(make_recipe(limit=2, name="fine"), fine)
    assert fine.warned == []
    monkeypatch.setattr(Predictor, "predict", damaged)
    run(make_recipe(limit=2, name="toy", out=Path(result.measured[0]["results"]).parent / "second"), told)
    assert [warning.split()[:2] for warning in told.warned] == [["toy:", "4"]]


def test_dry_run_writes_nothing(make_recipe: Any, tmp_path: Path) -> None:
    result = run(make_recipe({"name": "second"}), dry_run=True, shard_of="1/2")
    assert [each["images"] for each in result.measured] == [3, 3]
    assert all(each["seconds"] > 0 and each["dry_run"] for each in result.measured)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "kind", "sentence"),
    [
        ({"model": "nowhere.safetensors"}, MissingError, "nowhere"),
        ({"annotations": "nowhere.json"}, MissingError, "nowhere.json"),
        ({"boxes": "nowhere.json"}, MissingError, "nowhere.json"),
        ({"images": None}, UsageError, "--images"),
        ({"predictions": "p.jsonl"}, UsageError, "model"),
        ({"predictions": "p.jsonl", "model": None}, MissingError, "p.jsonl"),
        ({"predictions": "p.jsonl", "model": None, "conf": 0.5}, UsageError, "'conf'"),
        ({"predictions": "p.jsonl", "model": None, "boxes": "ground-truth"}, UsageError, "'boxes'"),
        ({"proposals_from": "regionclip-tiny", "boxes": "ground-truth"}, UsageError, "proposals_from"),
        ({"boxes": "groundtruth"}, MissingError, "Did you mean 'ground-truth'"),
        ({"dataset": "cooc"}, UsageError, "cooc"),
    ],
)
def test_wrong_settings_fail_before_any_work(
    make_recipe: Any, tmp_path: Path, settings: dict[str, Any], kind: type[RegionClipError], sentence: str
) -> None:
    with pytest.raises(kind) as told:
        run(make_recipe(settings))
    assert sentence in f"{told.value.message} {told.value.hint}"
    assert not (tmp_path / "run").exists()


def test_proposal_network_is_refused_as_model(make_recipe: Any, tmp_path: Path) -> None:
    path = write_toy_model(tmp_path / "rpn.safetensors", kind="proposals", backbone=None)
    with pytest.raises(UsageError, match="holds a proposal network and no image encoder"):
        run(make_recipe(model=str(path)))


def test_empty_set_is_refused(make_recipe: Any, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "none", images=0)
    with pytest.raises(RegionClipError):
        run(make_recipe(annotations=data.annotations, images=data.images))
