from __future__ import annotations

import pytest
from pydantic import ValidationError

from regionclip_cli.data.pixels import MAX_PIXELS
from regionclip_cli.errors import UsageError
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.detection import DetectSettings


def test_every_field_has_one_sentence() -> None:
    for name in DetectSettings.model_fields:
        sentence = fields.describe(DetectSettings, name)
        assert sentence.endswith("."), name
        assert ". " not in sentence, name


def test_defaults_are_those_of_the_code_they_reach() -> None:
    assert fields.default(DetectSettings, "max_pixels") == MAX_PIXELS
    assert fields.default(DetectSettings, "model") == "regionclip-tiny"
    assert fields.default(DetectSettings, "formats") == ("images",)


def test_settings_are_frozen() -> None:
    settings = DetectSettings(inputs=("a",))
    with pytest.raises(ValidationError):
        settings.conf = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"inputs": ("a",), "clases": "cat"}, "There is no setting 'clases'. Did you mean 'classes'?"),
        ({}, "The setting 'inputs' is missing."),
        ({"inputs": ("a",), "iou": 2}, "iou: it should be less than or equal to 1."),
        ({"inputs": ("a",), "batch": 0}, "batch: it should be greater than or equal to 1."),
        ({"inputs": ("a",), "conf": -1}, "conf: it should be greater than or equal to 0."),
        ({"inputs": ("a",), "nms": "no"}, "nms: it should be 'class', 'agnostic' or 'off'."),
        (
            {"inputs": ("a",), "classes": "x", "concepts": "b"},
            "classes and concepts",
        ),
        ({"inputs": ("a",), "json_lines": True, "resume": True}, "--out"),
        ({"inputs": ("-",), "resume": True}, "standard input"),
        ({"inputs": ("a",), "iou": 2, "batch": 0}, "less than or equal to 1. batch: it"),
    ],
)
def test_problems_are_told_in_sentences(values: dict, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        fields.checked(DetectSettings, **values)
    assert sentence in str(caught.value)
