from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from regionclip_cli.data.images import ImageInput, find_inputs, safe_name
from regionclip_cli.errors import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    for name in ("a/1.jpg", "a/sub/2.PNG", "b/1.jpg", "b/notes.txt", "b/.hidden.jpg", "outer.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    return folder


def names(*inputs: str, **options: object) -> list[str]:
    return [found.name for found in find_inputs(inputs, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "recursive", "expected"),
    [
        (["a"], False, ["a/1.jpg"]),
        (["a"], True, ["a/1.jpg", "a/sub/2.PNG"]),
        (["a", "b"], False, ["a/1.jpg", "b/1.jpg"]),
        (["b", "a"], False, ["b/1.jpg", "a/1.jpg"]),
        (["a/1.jpg", "./a/../a/1.jpg", "a", "*/1.jpg"], False, ["a/1.jpg", "b/1.jpg"]),
        (["**/*"], False, ["a/1.jpg", "a/sub/2.PNG", "b/1.jpg", "outer.jpg"]),
        (["b/*"], False, ["b/1.jpg"]),
        (["b/*.txt"], False, ["b/notes.txt"]),
        (["b/notes.txt"], False, ["b/notes.txt"]),
        (["."], True, ["a/1.jpg", "a/sub/2.PNG", "b/1.jpg", "outer.jpg"]),
    ],
)
def test_inputs_are_sorted_and_come_once(here: Path, inputs: list[str], recursive: bool, expected: list[str]) -> None:
    assert names(*inputs, recursive=recursive) == expected


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([], "No image was named"),
        (["a/1.jpeg"], "There is no file or folder a/1.jpeg. Did you mean '1.jpg'?"),
        (["aa/1.jpg"], "There is no file or folder aa/1.jpg. Did you mean 'a'?"),
        (["*.bmp"], r"The pattern \*.bmp matches no image"),
        (["empty"], "The folder empty holds no image"),
        (["outer.jpg", "missing.jpg"], "missing.jpg"),
    ],
)
def test_what_leads_to_no_image_is_refused_at_the_call(here: Path, inputs: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_inputs(inputs)
    assert sentence.replace("\\", "") in str(caught.value)


def test_a_folder_with_images_only_below_offers_r(here: Path) -> None:
    (here / "a" / "1.jpg").unlink()
    with pytest.raises(UsageError, match="Add -r"):
        find_inputs(["a"])


def test_a_folder_that_cannot_be_listed_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        find_inputs(["a"])


def test_a_sub_folder_that_cannot_be_listed_is_one_bad_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert names("a", "b", recursive=True) == ["a/1.jpg", "a/sub", "b/1.jpg"]


def test_files_outside_the_working_folder_get_a_safe_name(here: Path, tmp_path: Path) -> None:
    outside = tmp_path / "else" / "1.jpg"
    outside.parent.mkdir()
    outside.write_bytes(b"x")
    inner = str(outside).lstrip("/")
    assert names(str(outside), "../else/1.jpg") == [inner]
    assert ".." not in safe_name(Path("../../x/../1.jpg"))
    (here / inner).parent.mkdir(parents=True)
    (here / inner).write_bytes(b"x")
    assert names(str(outside), inner) == [inner, inner.replace("1.jpg", "1~2.jpg")]


def test_the_results_of_this_run_are_no_inputs(here: Path) -> None:
    (here / "out" / "images").mkdir(parents=True)
    (here / "out" / "images" / "1.jpg").write_bytes(b"x")
    for pattern in (".", "**/*.jpg"):
        assert "out/images/1.jpg" in names(pattern, recursive=True)
        assert "out/images/1.jpg" not in names(pattern, recursive=True, exclude=Path("out"))


def test_finding_is_lazy(here: Path) -> None:
    found = find_inputs(["a", "b"])
    next(found)
    (here / "b" / "3.jpg").write_bytes(b"x")
    assert [image.name for image in found] == ["b/1.jpg", "b/3.jpg"]


def test_standard_input_is_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert list(find_inputs(["-", "-"])) == [ImageInput("stdin", None)]


def test_a_terminal_is_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="Nothing is piped"):
        find_inputs(["-"])
