"""Every setting is explained, with its type and default."""

from __future__ import annotations

import pytest

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.reference import Row, heads, purpose, rows
from regionclip_cli.recipe.schema import STAGES, Recipe


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.key)
def test_every_setting_has_one_sentence(row: Row) -> None:
    assert row.sentence.endswith("."), row
    assert ". " not in row.sentence, row
    assert row.kind not in ("", "anything"), row


def test_types_defaults_and_lists() -> None:
    found = {row.key: row for row in rows()}
    assert (found["pretrain.lr"].kind, found["pretrain.lr"].default) == ("number, above 0", "0.002")
    assert found["pretrain.amp"].kind == "off, bf16"
    assert found["pretrain.flip"].kind == "number, 0 to 1"
    assert found["pretrain.clip_norm"].kind == "number, above 0 or null"
    assert found["data.captions.path"].kind == "text or list of text"
    assert found["data.captions"].kind == "section or list of section or null"
    assert found["evaluate.N.boxes"].default == '"proposals"'
    assert found["name"].default == ""
    assert found["finetune.milestones"].default == "[60000, 80000]"


def test_a_section_or_one_setting() -> None:
    assert [row.key for row in rows("pretrain.losses")] == [
        "pretrain.losses",
        "pretrain.losses.region_text",
        "pretrain.losses.distill",
        "pretrain.losses.image_text",
    ]
    assert [row.key for row in rows("evaluate.boxes")] == ["evaluate.N.boxes"]
    assert {row.key.partition(".")[0] for row in rows()} == set(Recipe.model_fields)
    with pytest.raises(UsageError, match="Did you mean 'pretrain'"):
        rows("pretrian")


def test_every_section_says_what_it_is_for() -> None:
    assert set(heads()) == {"model", "data", *STAGES}
    assert all(purpose(section).endswith(".") for section in heads())
