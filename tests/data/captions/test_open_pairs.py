"""Sources as one set: forms, keys, numbered ranges, pickling, memory."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
from caption_files import contents, pairs_of, source, write_images, write_jsonl, write_tar, write_tsv
from hypothesis import given
from hypothesis import strategies as st

from regionclip_cli.data.captions import PairSet, open_pairs, stream_captions
from regionclip_cli.data.captions.base import BLOCK, WHOLE, expand, fingerprint
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import numbered


def everything(folder: Path) -> PairSet:
    """Return a set with sources of four forms."""
    write_images(folder)
    return open_pairs(
        [
            source("jsonl", write_jsonl(folder / "captions.jsonl")),
            source("scenes", options={"count": 3, "size": 32}),
            source("tsv", write_tsv(folder / "tsv")),
            source("webdataset", write_tar(folder / "a.tar", [("one.jpg", b"image of one"), ("one.txt", b"a cat")])),
        ]
    )


def test_sources_stand_one_after_the_other_with_keys_of_their_own(tmp_path: Path) -> None:
    pairs = everything(tmp_path)
    keys = [pair.key for pair in pairs]
    assert keys == [
        *("a/1.jpg", "a/2.jpg", "b/1.jpg", "scene-0-000000", "scene-0-000001", "scene-0-000002"),
        *("a/1.jpg~2", "a/2.jpg~2", "b/1.jpg~2", "one"),
    ]
    assert [pairs.key(index) for index in range(len(pairs))] == keys
    assert pairs[6].captions == pairs[0].captions
    assert pairs[-1].key == "one"
    for index in (10, -11):
        with pytest.raises(IndexError):
            pairs[index]


def test_a_set_can_be_pickled(tmp_path: Path) -> None:
    pairs = everything(tmp_path)
    again = pickle.loads(pickle.dumps(pairs))  # noqa: S301 - our own
    for one, other in zip(pairs, again, strict=True):
        assert (one.key, one.captions, one.read()) == (other.key, other.captions, other.read())
        assert pickle.loads(pickle.dumps(one)).read() == one.read()  # noqa: S301 - our own
    assert again.fingerprint == pairs.fingerprint


def test_the_fingerprint_follows_files_and_settings(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"image": "a.jpg", "caption": "x"}, {"image": "b.jpg", "caption": "y"}])
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    first = pairs_of("jsonl", path).fingerprint
    assert pairs_of("jsonl", path).fingerprint == first
    seen = {first, pairs_of("jsonl", path, limit=1).fingerprint, pairs_of("jsonl", path, images=tmp_path).fingerprint}
    seen.add(open_pairs([source("jsonl", path), source("jsonl", path)]).fingerprint)
    path.write_text(path.read_text().replace("y", "z"))
    seen.add(pairs_of("jsonl", path).fingerprint)
    assert len(seen) == 5


def test_a_copy_has_the_fingerprint_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(b"a dog\n" * 9)
    before = fingerprint([path], 1)
    os.utime(path, ns=(1, 1))
    assert fingerprint([path], 1) == before
    assert fingerprint([path], 2) != before


@pytest.mark.parametrize("at", [0, WHOLE // 7 + BLOCK // 2, WHOLE + BLOCK - 1])
def test_large_files_are_told_apart_by_samples(tmp_path: Path, at: int) -> None:
    path = tmp_path / "c.tar"
    path.write_bytes(bytes(WHOLE + BLOCK))
    before = fingerprint([path])
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"x")
    assert fingerprint([path]) != before


def test_a_key_made_unique_may_not_be_taken(tmp_path: Path) -> None:
    names = ["a.jpg", "a.jpg~2"]
    path = write_jsonl(tmp_path / "c.jsonl", [{"image": name, "caption": "x"} for name in names])
    write_images(tmp_path, names)
    with pytest.raises(UsageError, match=r"Two images have the key 'a\.jpg', and another has 'a\.jpg~2' already"):
        pairs_of("jsonl", [path, path]) and open_pairs([source("jsonl", path), source("jsonl", path)])


def test_forms_that_are_not_known() -> None:
    for read in (open_pairs, stream_captions):
        with pytest.raises(UsageError, match=r"no form of captions called 'webdatset'\. Did you mean 'webdataset'"):
            read([source("webdatset")])
        with pytest.raises(UsageError, match="are named"):
            read([])
        with pytest.raises(UsageError, match=r"No (caption file|shard) is named"):
            list(read([source("jsonl")]))


@given(first=st.integers(0, 300), count=st.integers(1, 60), width=st.integers(1, 6), tail=st.integers(0, 5))
def test_numbered_ranges(first: int, count: int, width: int, tail: int) -> None:
    last = first + count - 1
    padded = f"{first:0{width}}" if f"{first:0{width}}".startswith("0") else str(first)
    texts = numbered(f"a/{{{padded}..{last}}}-x{{0..{tail}}}.tar")
    assert len(texts) == len(set(texts)) == count * (tail + 1)
    assert texts[0] == f"a/{padded}-x0.tar"
    numbers = [int(text.split("/")[1].split("-")[0]) for text in texts]
    assert numbers == sorted(numbers)
    if padded.startswith("0"):
        assert all(len(text.split("/")[1].split("-")[0]) >= len(padded) for text in texts)


def test_ranges_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="range"):
        numbered("{5..3}.tar")
    with pytest.raises(UsageError, match=r"10,000,000,000 files"):
        numbered("{0..99999}{0..99999}.tar")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"matches no caption file"):
        expand([str(tmp_path / "*.jsonl")])
    with pytest.raises(MissingError, match=r"There is no folder .*nowhere either"):
        expand([str(tmp_path / "nowhere" / "a.jsonl")])
    strange = tmp_path / "a[1].jsonl"
    strange.touch()
    assert expand([str(strange)]) == [strange]


@pytest.mark.parametrize("form", ["jsonl", "tsv", "webdataset"])
def test_memory_is_a_few_numbers_an_image(tmp_path: Path, form: str) -> None:
    count, words = 3000, "many words " * 30
    keys = [f"{number:06}" for number in range(count)]
    if form == "jsonl":
        path = write_jsonl(tmp_path / "c.jsonl", [{"image": key, "caption": words + key} for key in keys])
        (tmp_path / keys[0]).touch()
    elif form == "tsv":
        path = write_tsv(tmp_path / "t", {key: (words + key,) for key in keys})
    else:
        parts = [part for key in keys for part in ((f"{key}.jpg", b"x"), (f"{key}.txt", (words + key).encode()))]
        path = write_tar(tmp_path / "a.tar", parts)
    pairs_of(form, path)  # whatever is imported or cached once
    tracemalloc.start()
    pairs = pairs_of(form, path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pairs) == count
    assert kept / count < 130
    assert peak / count < 330  # less than the caption alone
    assert len({pairs[index].captions for index in range(5)}) == 5


def test_contents_are_checked_by_their_own_helper(tmp_path: Path) -> None:
    pairs = pairs_of("jsonl", write_jsonl(tmp_path / "captions.jsonl"), images=write_images(tmp_path))
    (tmp_path / "a/1.jpg").write_bytes(b"another")
    with pytest.raises(AssertionError):
        contents(pairs)
