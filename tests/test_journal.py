from __future__ import annotations

import collections
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_disk import small_disk

from regionclip_cli.errors import OutputError
from regionclip_cli.files import Journal, check_folder, replacing

LINES = [f'{{"image": "{index}", "detections": []}}\n'.encode() for index in range(3)]


@given(cut=st.integers(0, sum(map(len, LINES))))
def test_whole_lines_survive_a_cut_anywhere(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("journal") / "lines.jsonl"
    path.write_bytes(b"".join(LINES)[:cut])
    whole = cut // len(LINES[0])
    journal = Journal(path, resume=True)
    assert len(journal) == whole
    assert [str(index) in journal for index in range(3)] == [index < whole for index in range(3)]
    for index in range(whole, 3):
        journal.append({"image": str(index), "detections": []})
    assert [record["image"] for record in journal.records()] == ["0", "1", "2"]
    journal.close()
    assert path.read_bytes() == b"".join(LINES)


def test_lines_of_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"not json\n[1]\n" + LINES[0])
    journal = Journal(path, resume=True)
    journal.append({"image": "x"})
    journal.close()
    assert path.read_bytes() == b"not json\n[1]\n" + LINES[0] + b'{"image": "x"}\n'


def test_a_line_that_does_not_fit_leaves_the_others_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lines.jsonl")
    records = ({"image": str(index), "detections": []} for index in range(1000))
    sentence = r"lines.jsonl cannot be written: File too large\. Choose another folder"
    with small_disk(1000), pytest.raises(OutputError, match=sentence):
        collections.deque(map(journal.append, records))
    journal.close()
    content = journal.path.read_bytes()
    assert 900 < len(content) <= 1000
    assert content.endswith(b"}\n")
    assert len(journal) == content.count(b"\n")


def test_a_file_that_does_not_fit_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    with small_disk(1000), pytest.raises(OutputError, match="File too large"), replacing(path) as file:
        file.write(b"x" * 2000)
    assert list(path.parent.iterdir()) == []


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    writing = replacing(path)
    writing.__enter__().write(b"half")
    assert writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is not True
    assert path.read_text() == "old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_checked_without_making_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file is a file"):
        check_folder(tmp_path / "file" / "out")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(OutputError, match="write"):
        check_folder(tmp_path / "a")
