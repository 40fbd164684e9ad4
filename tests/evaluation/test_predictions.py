"""Stored predictions: float32 round trip, resume, several processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.errors import UsageError
from regionclip_cli.evaluation.predictions import ImagePrediction, PredictionStore, read_predictions
from regionclip_cli.runs.sharding import Share

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def line(image: int, score: float = 0.5) -> ImagePrediction:
    boxes = np.array([[0.1, 2, 30.7, 4e-5]], np.float32)
    return ImagePrediction(image, boxes, np.array([score], np.float32), np.array([2]), seconds=0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines")


@given(rows=arrays.arrays(np.float32, st.tuples(st.integers(0, 3), st.just(5)), elements=FLOATS))
def test_float32_round_trip(rows: np.ndarray, folder: Path, truth: DetectionSet) -> None:
    boxes, scores = rows[:, :4], rows[:, 4]
    names = np.arange(len(boxes))
    (folder / "predictions.jsonl").unlink(missing_ok=True)
    kept = PredictionStore(folder)
    ranks = np.array([0, 3])
    kept.write(
        truth[0], ImagePrediction(truth[0].id, boxes, scores, names, ranks, ranks, ranks, np.eye(2, dtype=np.int64))
    )
    kept.close()
    (back,) = read_predictions(folder)
    assert (back.image, back.error, back.seconds) == (truth[0].id, "", None)
    assert np.array_equal(back.boxes, boxes)
    assert np.array_equal(back.scores, scores)
    assert np.array_equal(back.labels, names)
    assert back.ranks is not None
    assert back.hits is not None
    assert back.ranks.tolist() == [0, 3]
    assert back.hits.tolist() == [[1, 0], [0, 1]]


def test_second_run_needs_resume(tmp_path: Path, truth: DetectionSet) -> None:
    kept = PredictionStore(tmp_path)
    kept.write(truth[0], line(1))
    kept.close()
    with pytest.raises(UsageError, match="--resume"):
        PredictionStore(tmp_path)
    again = PredictionStore(tmp_path, resume=True)
    assert again.finished == again.images() == {1}
    again.close()


@pytest.mark.parametrize("left", range(1, 40, 6))
def test_torn_line_is_ignored(tmp_path: Path, truth: DetectionSet, left: int) -> None:
    kept = PredictionStore(tmp_path)
    for image in truth:
        kept.write(image, line(image.id))
    kept.close()
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-left])
    again = PredictionStore(tmp_path, resume=True)
    assert again.finished == {image.id for image in truth} - {truth[4].id}
    again.write(truth[4], line(truth[4].id))
    again.close()
    assert [each.image for each in read_predictions(tmp_path)] == [image.id for image in truth]


def test_failures_are_retried(tmp_path: Path, truth: DetectionSet) -> None:
    kept = PredictionStore(tmp_path)
    kept.write(truth[0], ImagePrediction.empty(truth[0].id, error="It is damaged."))
    kept.write(truth[1], line(truth[1].id))
    assert kept.images() == {truth[0].id, truth[1].id}
    kept.close()
    assert [(each.image, each.error) for each in read_predictions(tmp_path)] == [(2, ""), (1, "It is damaged.")]
    again = PredictionStore(tmp_path, resume=True)
    assert again.finished == {2}
    again.write(truth[0], line(truth[0].id))
    again.close()
    assert [(each.image, each.error) for each in read_predictions(tmp_path)] == [(2, ""), (1, "")]


def test_shares_read_each_others_files(tmp_path: Path, truth: DetectionSet) -> None:
    first, second = PredictionStore(tmp_path, Share(0, 2)), PredictionStore(tmp_path, Share(1, 2))
    first.write(truth[0], line(1))
    assert second.images() == {1}
    second.write(truth[1], line(2))
    assert first.images() == {1, 2}
    first.close()
    second.close()
    # Taken up by one process alone, nothing of it is done again.
    whole = PredictionStore(tmp_path, resume=True)
    assert whole.finished == {1, 2}
    whole.close()
