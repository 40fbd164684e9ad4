"""JSON an element at a time says what json.load says, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regionclip_cli.data import json_stream
from regionclip_cli.data.json_stream import stream_json
from regionclip_cli.errors import MissingError, UsageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def gathered(path: Path) -> Any:
    """Put the elements together again."""
    members: dict[str, Any] = {}
    for key, position, value, _, _ in stream_json(path):
        if position is None:
            members[key] = value
        else:
            assert position == len(members.setdefault(key, []))
            members[key].append(value)
    return members


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@given(content=st.dictionaries(st.text(max_size=5), VALUES, max_size=4), ascii_only=st.booleans(), indent=st.booleans())
def test_the_stream_says_what_json_says(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, content: Any, ascii_only: bool, indent: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"stream{chunk}.json"
    text = json.dumps(content, ensure_ascii=ascii_only, indent=2 if indent else None)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    kept, json_stream.CHUNK = json_stream.CHUNK, chunk
    try:
        assert gathered(path) == content
    finally:
        json_stream.CHUNK = kept


def test_offsets_lead_back_to_the_elements(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"x": [ {"é": "日本"}, 12.5 ,"ü"],\n "y": {"z": []}, "e": [ ]}', encoding="utf-8")
    raw = path.read_bytes()
    for element in stream_json(path):
        assert json.loads(raw[element.start : element.end].decode()) == element.value


def test_a_list_at_the_top_has_elements_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text("[1, 2.5, {}]")
    assert [(one.key, one.position, one.value) for one in stream_json(path)] == [("", 0, 1), ("", 1, 2.5), ("", 2, {})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ('{"images": [{"id": 1}, {"id"', "cut off: it ends in the middle of images[1]"),
        ('{"images": [{"id": 1}', "cut off: it ends in the middle of images[0]"),
        ('{"images": [{"id": 1}, ', "cut off: it ends in the middle of images[1]"),
        ('{"images": "abc', "cut off: it ends in the middle of 'images'"),
        ('{"images": [{"id": 1} {"id": 2}]}', "not JSON: no comma at images[0], byte 22"),
        ('{"images": [{"id": 1}, ]}', "a comma too many at images[0]"),
        ('{"images": [{"id": x}]' + " " * 99 + "}", "not JSON: Expecting value at images[0]"),
        ('{"a": 1, "a": 2}', "a second 'a'"),
        ('{"a" 1}', "no colon"),
        ("{1: 2}", "no member name"),
        ('{"a": 1} 2', "more than one value"),
        ('{"a": [' + "[" * 99999 + "]" * 99999 + "]}", "too deep"),
    ],
)
def test_what_is_no_json_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        list(stream_json(path))
    assert words in caught.value.message
    assert str(path) in caught.value.message


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes('{"categories": [{"name": "café"}]}'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"not UTF-8 at categories\[0\]"):
        list(stream_json(path))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no annotation file"):
        list(stream_json(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="cannot be read"):
        list(stream_json(tmp_path))
