"""Captions in JSON lines and in plain text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from caption_files import RECORDS, captions_of, contents, image_of, pairs_of, write_images, write_jsonl

from regionclip_cli.errors import InputError, MissingError, RegionClipError, UsageError


def test_images_lie_beside_the_file_or_in_their_folder(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "captions.jsonl")
    write_images(tmp_path)
    assert contents(pairs_of("jsonl", path)) == dict(RECORDS)
    elsewhere = write_jsonl(tmp_path / "other" / "captions.jsonl")
    assert contents(pairs_of("jsonl", elsewhere, images=tmp_path)) == dict(RECORDS)


def test_fields_may_have_other_names(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "c.jsonl",
        [{"file_name": "x.jpg", "caption": " a cat "}, {"key": "k", "image": "y.jpg", "caption": ["a", "", "b"]}],
    )
    write_images(tmp_path, ["x.jpg", "y.jpg"])
    pairs = pairs_of("jsonl", path)
    assert [(pair.key, pair.captions) for pair in pairs] == [("x.jpg", ("a cat",)), ("k", ("a", "b"))]
    assert pairs[1].read() == image_of("y.jpg")


def test_lines_of_one_image_are_one_image(tmp_path: Path) -> None:
    lines = [("b.jpg", "one"), ("a.jpg", "two"), ("b.jpg", "three"), ("c.jpg", "four"), ("a.jpg", "five")]
    path = write_jsonl(tmp_path / "c.jsonl", [{"image": image, "caption": text} for image, text in lines])
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    found = contents(pairs_of("jsonl", path))
    assert list(found.items()) == [("b.jpg", ("one", "three")), ("a.jpg", ("two", "five")), ("c.jpg", ("four",))]
    assert captions_of("jsonl", path) == ["one", "two", "three", "four", "five"]


def test_a_limit_counts_images(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"image": f"{i // 2}.jpg", "caption": f"n{i}"} for i in range(8)])
    write_images(tmp_path, [f"{i}.jpg" for i in range(4)])
    assert len(pairs_of("jsonl", path, limit=2)) == 2
    assert captions_of("jsonl", path, limit=2) == ["n0", "n1", "n2", "n3"]


def test_a_key_that_stands_for_two_images_is_refused(tmp_path: Path) -> None:
    lines = [("1", "a.jpg"), ("2", "b.jpg"), ("2", "b.jpg"), ("1", "c.jpg")]
    path = write_jsonl(tmp_path / "c.jsonl", [{"key": key, "image": image, "caption": "x"} for key, image in lines])
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(UsageError, match=r"the key '1' stands for two images, a\.jpg and c\.jpg"):
        pairs_of("jsonl", path)


def test_captions_alone_need_no_image(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"image_id": 1, "captions": ["a", "b"]}, {"caption": "c"}])
    assert captions_of("jsonl", path) == ["a", "b", "c"]
    with pytest.raises(UsageError, match="the record of 'a' names no image"):
        pairs_of("jsonl", path)


def test_blank_lines_marks_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"image": "a.jpg", "caption": "a"}\r\n\r\n{"image": "b.jpg", "caption": "b"}')
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    assert contents(pairs_of("jsonl", path)) == {"a.jpg": ("a",), "b.jpg": ("b",)}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{broken", r"c\.jsonl:2: not valid JSON"),
        ("[" * 100_000, r"c\.jsonl:2: not valid JSON: nested too deeply"),
        ("[1, 2]", r"c\.jsonl:2: a list, not an object"),
        ('{"image": "a.jpg"}', r"c\.jsonl:2: there is no 'captions' and no 'caption'"),
        ('{"image": "a.jpg", "captions": [1]}', r"c\.jsonl:2: the captions are not texts"),
        ('{"image": 3, "caption": "a"}', r"c\.jsonl:2: 'image' is 3, not a name"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"image": "a.jpg", "caption": "fine"}) + "\n" + line + "\n")
    write_images(tmp_path, ["a.jpg"])
    for read in (pairs_of, captions_of):
        with pytest.raises(UsageError, match=sentence):
            read("jsonl", path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"caption": "\xff"}\n')
    with pytest.raises(UsageError, match=r"c\.jsonl:1: not UTF-8"):
        captions_of("jsonl", path)


@pytest.mark.parametrize("form", ["jsonl", "text"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file(tmp_path: Path, form: str, content: str) -> None:
    path = tmp_path / "captions.file"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"captions\.file is empty"):
        captions_of(form, path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "captions.jsonl")
    with pytest.raises(MissingError, match=r"Did you mean 'captions\.jsonl'"):
        captions_of("jsonl", tmp_path / "caption.jsonl")
    with pytest.raises(MissingError, match="no folder of images"):
        pairs_of("jsonl", path, images=tmp_path / "images")
    with pytest.raises(MissingError, match=r"a/1\.jpg is the first"):
        pairs_of("jsonl", path)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        captions_of("jsonl", tmp_path)


def test_one_image_that_is_gone_costs_itself(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "captions.jsonl")
    (write_images(tmp_path) / "a/2.jpg").unlink()
    pairs = pairs_of("jsonl", path)
    with pytest.raises(InputError, match=r"a/2\.jpg cannot be read from .*No such file"):
        pairs[1].read()
    assert pairs[2].read() == image_of("b/1.jpg")


def test_a_file_that_shrinks_while_it_is_used(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "captions.jsonl")
    pairs = pairs_of("jsonl", path, images=write_images(tmp_path))
    for content in ("", "x" * 10_000):
        path.write_text(content)
        with pytest.raises(RegionClipError, match=r"has become shorter|has changed"):
            pairs[2]


def test_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("a cat\n\n  two dogs  \nein Mädchen", encoding="utf-8")
    assert captions_of("text", path) == ["a cat", "two dogs", "ein Mädchen"]
    assert captions_of("text", path, limit=1) == ["a cat"]
    (tmp_path / "more.txt").write_text("a horse\n")
    assert captions_of("text", tmp_path / "*.txt", limit=2) == ["a cat", "two dogs"]
    assert captions_of("text", tmp_path / "*.txt", limit=4)[3:] == ["a horse"]
    with pytest.raises(UsageError, match="captions and no images"):
        pairs_of("text", path)
