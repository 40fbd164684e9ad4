from __future__ import annotations

import json

import numpy as np
import pytest
from results.sample_detections import SAMPLE

from regionclip_cli.results.detections import ImageDetections


def test_json_keys() -> None:
    value = json.loads(json.dumps(SAMPLE[2].to_json()))
    assert value == {
        "image": "b/2.png",
        "width": 64,
        "height": 48,
        "detections": [{"label": "cat", "score": 0.5, "box": [1.25, 2.5, 33.33, 40.0]}],
    }
    assert SAMPLE[1].to_json()["detections"] == []


def test_to_supervision() -> None:
    found = SAMPLE[0].to_supervision()
    assert np.allclose(found.xyxy, SAMPLE[0].boxes)
    assert found.class_id.tolist() == [1, 0]
    assert found.confidence.tolist() == [np.float32(0.9), np.float32(0.25)]
    assert found["class_name"].tolist() == ["coffee cup", "cat"]
    assert len(SAMPLE[1].to_supervision()) == 0


def test_mismatched_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        ImageDetections("x", 1, 1, np.zeros((1, 4)), np.zeros(2), ("a",), np.zeros(1))
