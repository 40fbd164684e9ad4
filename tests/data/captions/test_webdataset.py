"""Webdataset shards."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest
from caption_files import RECORDS, captions_of, contents, image_of, pairs_of, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regionclip_cli.data.captions import base, webdataset
from regionclip_cli.errors import MissingError, UsageError

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def members(records: dict[str, str]) -> list[tuple[str, bytes]]:
    return [
        part for key, text in records.items() for part in ((f"{key}.jpg", image_of(key)), (f"{key}.txt", text.encode()))
    ]


def shard(path: Path, records: dict[str, str], form: int = tarfile.PAX_FORMAT) -> Path:
    return write_tar(path, members(records), form)


def test_samples_of_several_shards(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"{number:05}.tar", {f"{number}{place}": f"caption {number}{place}" for place in range(4)})
    pairs = pairs_of("webdataset", tmp_path / "{00000..00002}.tar")
    expected = {f"{number}{place}": (f"caption {number}{place}",) for number in range(3) for place in range(4)}
    assert contents(pairs) == expected
    assert list(contents(pairs)) == list(expected)
    assert contents(pairs_of("webdataset", tmp_path / "*.tar")) == expected
    assert list(contents(pairs_of("webdataset", tmp_path / "*.tar", limit=5))) == list(expected)[:5]
    assert captions_of("webdataset", tmp_path / "*.tar", limit=5) == [text for (text,) in list(expected.values())[:5]]


def test_texts_of_every_kind(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("x/one.jpg", image_of("x/one")),
            ("x/one.json", json.dumps({"caption": "from json", "url": "u"}).encode()),
            ("./two.png", image_of("two")),
            ("./two.json", json.dumps({"captions": ["not", "taken"]}).encode()),
            ("./two.txt", b"from\n text"),
            ("three.json", json.dumps({"captions": ["p", "q"]}).encode()),
            ("three.seg.jpg", image_of("three")),
            ("three.jpg", b"a second image"),
            ("only-image.jpg", b"x"),
            ("only-text.txt", b"words"),
            ("metadata.jpg", b"x"),
            ("metadata.json", b'{"url": "u"}'),
            ("blank.jpg", b"x"),
            ("blank.txt", b" \n"),
            ("readme.md", b"x"),
        ],
    )
    found = contents(pairs_of("webdataset", path))
    assert found == {"x/one": ("from json",), "two": ("from text",), "three": ("p", "q")}
    assert captions_of("webdataset", path) == ["from json", "from text", "p", "q", "words"]


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/etc/passwd.jpg", "..\\out.jpg", "a/.."])
def test_a_member_that_climbs_out(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "a.tar", [*members({"fine": "a cat"}), (name, b"x")])
    for read in (pairs_of, captions_of):
        with pytest.raises(UsageError, match=r"a\.tar holds a member .* which would climb out of its folder"):
            read("webdataset", path)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_index_finds_what_was_written(form: str, tmp_path: Path, data: st.DataObject) -> None:
    letters = st.characters(categories=("L", "N"), include_characters="-_/")
    names = st.text(letters, min_size=1, max_size=120 if form != "ustar" else 20).filter(
        lambda name: not name.startswith("/") and not name.endswith("/") and "//" not in name
    )
    keys = data.draw(st.lists(names, min_size=1, max_size=5, unique_by=str.casefold))
    texts = data.draw(st.lists(st.text(st.characters(categories=("L",)), min_size=1), min_size=5, max_size=5))
    padding = data.draw(st.lists(st.integers(0, 1200), min_size=5, max_size=5))
    parts = []
    for key, text, size in zip(keys, texts, padding, strict=False):
        parts += [(f"{key}.jpg", b"i" * size + key.encode()), (f"{key}.txt", text.encode())]
    path = write_tar(tmp_path / "a.tar", parts, FORMS[form])
    pairs = pairs_of("webdataset", path)
    assert [(pair.key, pair.captions) for pair in pairs] == [(k, (t,)) for k, t in zip(keys, texts, strict=False)]
    assert [pair.read() for pair in pairs] == [data for name, data in parts if name.endswith(".jpg")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 6 * 512 - 1), value=st.integers(0, 255), cut=st.integers(0, 10240))
def test_damage_is_told_or_does_no_harm(tmp_path: Path, at: int, value: int, cut: int) -> None:
    raw = bytearray(shard(tmp_path / "a.tar", {"one": "a cat", "two": "a dog"}).read_bytes())
    raw[at] = value
    path = tmp_path / "damaged.tar"
    path.write_bytes(bytes(raw[: cut or len(raw)]))
    sentence = ""
    try:
        found = [pair.read() for pair in pairs_of("webdataset", path)]
    except UsageError as err:
        found, sentence = [], str(err)
    assert 1 <= len(found) <= 2 or str(path) in sentence


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    raw = shard(tmp_path / "a.tar", {"one": "a cat", "two": "a dog"}).read_bytes()
    end = 8 * 512  # four headers and their contents; the end mark follows
    assert raw[end:] == bytes(len(raw) - end)
    path = tmp_path / "cut.tar"
    for cut in range(1, end + 512, 100):
        path.write_bytes(raw[:cut])
        with pytest.raises(UsageError, match=r"cut\.tar is .*cut short"):
            pairs_of("webdataset", path)
    path.write_bytes(raw[: end + 512])
    assert len(pairs_of("webdataset", path)) == 2


def test_shards_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(shard(tmp_path / "b.tar", {"one": "a cat"}).read_bytes()))
    with pytest.raises(UsageError, match=r"a\.tar is compressed.*gunzip"):
        pairs_of("webdataset", path)
    for content in (b"", b"words " * 400):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.tar is not a tar file"):
            pairs_of("webdataset", path)
    write_tar(path, [("a.jpg", b"x")])
    with pytest.raises(UsageError, match="holds no sample with a caption"):
        pairs_of("webdataset", path)
    write_tar(path, [("a.jpg", b"x"), ("a.json", b"{")])
    with pytest.raises(UsageError, match=r"a in .*a\.tar: not valid JSON"):
        pairs_of("webdataset", path)


def test_a_range_that_ends_too_late(tmp_path: Path) -> None:
    shard(tmp_path / "00000.tar", {"one": "a cat"})
    with pytest.raises(MissingError, match=r"2 of the 3 files .*00001\.tar is the first"):
        pairs_of("webdataset", tmp_path / "{00000..00002}.tar")


def test_a_key_that_comes_again_gets_a_number(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar", [*members({"one": "first"}), *members({"two": "x"}), *members({"one": "second"})]
    )
    pairs = pairs_of("webdataset", [path, path])
    assert [pair.key for pair in pairs] == ["one", "two", "one~2", "one~3", "two~2", "one~4"]
    assert [pairs[index].captions for index in (0, 2, 3)] == [("first",), ("second",), ("first",)]


def test_the_index_of_a_large_shard_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "a.tar", {key.partition(".")[0]: texts[0] for key, texts in RECORDS.items()})
    monkeypatch.setattr(base, "WORTH_KEEPING", 0)
    first = contents(pairs_of("webdataset", path))
    with monkeypatch.context() as patch:
        patch.setattr(webdataset, "samples", lambda path: iter(()))
        assert contents(pairs_of("webdataset", path)) == first
    shard(path, {"other": "a cat"})
    assert list(contents(pairs_of("webdataset", path))) == ["other"]
