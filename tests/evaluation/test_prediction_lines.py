"""What is kept of an image loses nothing, and survives being cut off and shared out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.errors import UsageError
from regionclip_cli.evaluation.store import Line, Predictions, read_lines
from regionclip_cli.runs.sharding import Share

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def line(image: int, score: float = 0.5) -> Line:
    boxes = np.array([[0.1, 2, 30.7, 4e-5]], np.float32)
    return Line(image, boxes, np.array([score], np.float32), np.array([2]), seconds=0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines")


@given(rows=arrays.arrays(np.float32, st.tuples(st.integers(0, 3), st.just(5)), elements=FLOATS))
def test_every_float32_comes_back(rows: np.ndarray, folder: Path, truth: DetectionSet) -> None:
    boxes, scores = rows[:, :4], rows[:, 4]
    names = np.arange(len(boxes))
    (folder / "predictions.jsonl").unlink(missing_ok=True)
    kept = Predictions(folder)
    ranks = np.array([0, 3])
    kept.write(truth[0], Line(truth[0].id, boxes, scores, names, ranks, ranks, ranks, np.eye(2, dtype=np.int64)))
    kept.close()
    (back,) = read_lines(folder)
    assert (back.image, back.error, back.seconds) == (truth[0].id, "", None)
    assert np.array_equal(back.boxes, boxes)
    assert np.array_equal(back.scores, scores)
    assert np.array_equal(back.names, names)
    assert back.ranks is not None
    assert back.hits is not None
    assert back.ranks.tolist() == [0, 3]
    assert back.hits.tolist() == [[1, 0], [0, 1]]


def test_a_second_run_is_refused_unless_it_resumes(tmp_path: Path, truth: DetectionSet) -> None:
    kept = Predictions(tmp_path)
    kept.write(truth[0], line(1))
    kept.close()
    with pytest.raises(UsageError, match="holds the predictions of another run") as told:
        Predictions(tmp_path)
    assert "--resume" in told.value.hint
    again = Predictions(tmp_path, resume=True)
    assert again.finished == again.images() == {1}
    again.close()


@pytest.mark.parametrize("left", range(1, 40, 6))
def test_half_a_line_is_no_line(tmp_path: Path, truth: DetectionSet, left: int) -> None:
    kept = Predictions(tmp_path)
    for image in truth:
        kept.write(image, line(image.id))
    kept.close()
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-left])
    again = Predictions(tmp_path, resume=True)
    assert again.finished == {image.id for image in truth} - {truth[4].id}
    again.write(truth[4], line(truth[4].id))
    again.close()
    assert [each.image for each in read_lines(tmp_path)] == [image.id for image in truth]


def test_what_failed_is_tried_again_and_told_once(tmp_path: Path, truth: DetectionSet) -> None:
    kept = Predictions(tmp_path)
    kept.fail(truth[0], "It is damaged.")
    kept.write(truth[1], line(truth[1].id))
    assert kept.images() == {truth[0].id, truth[1].id}
    kept.close()
    assert [(each.image, each.error) for each in read_lines(tmp_path)] == [(2, ""), (1, "It is damaged.")]
    again = Predictions(tmp_path, resume=True)
    assert again.finished == {2}
    again.write(truth[0], line(truth[0].id))
    again.close()
    assert [(each.image, each.error) for each in read_lines(tmp_path)] == [(2, ""), (1, "")]


def test_shares_see_one_another(tmp_path: Path, truth: DetectionSet) -> None:
    first, second = Predictions(tmp_path, Share(0, 2)), Predictions(tmp_path, Share(1, 2))
    first.write(truth[0], line(1))
    assert second.images() == {1}
    second.write(truth[1], line(2))
    assert first.images() == {1, 2}
    first.close()
    second.close()
    # Taken up by one process alone, nothing of it is done again.
    whole = Predictions(tmp_path, resume=True)
    assert whole.finished == {1, 2}
    whole.close()
