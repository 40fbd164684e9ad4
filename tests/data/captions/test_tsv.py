"""Tab-separated files of the official layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_files import RECORDS, captions_of, contents, pairs_of, write_tsv

from regionclip_cli.data.captions import base, tsv
from regionclip_cli.errors import InputError, MissingError, UsageError


@pytest.mark.parametrize("index", [True, False])
def test_a_folder_or_two_files(tmp_path: Path, index: bool) -> None:
    folder = write_tsv(tmp_path / "set", index=index)
    assert contents(pairs_of("tsv", folder)) == dict(RECORDS)
    assert contents(pairs_of("tsv", folder / "text.tsv", images=folder / "images.tsv")) == dict(RECORDS)
    everything = [caption for captions in RECORDS.values() for caption in captions]
    assert captions_of("tsv", folder) == captions_of("tsv", folder / "text.tsv") == everything
    assert len(pairs_of("tsv", folder, limit=2)) == 2
    assert captions_of("tsv", folder, limit=1) == list(RECORDS["a/1.jpg"])


def test_rows_that_the_lineidx_leaves_out(tmp_path: Path) -> None:
    folder = write_tsv(tmp_path)
    for name in ("images", "text"):
        index = folder / f"{name}.lineidx"
        index.write_text("\n".join(index.read_text().split()[1:]))
    assert list(contents(pairs_of("tsv", folder))) == ["a/2.jpg", "b/1.jpg"]
    assert captions_of("tsv", folder) == [*RECORDS["a/2.jpg"], *RECORDS["b/1.jpg"]]


def test_forms_of_text(tmp_path: Path) -> None:
    folder = write_tsv(tmp_path, {"a": ("x",), "b": ("x",), "c": ("x",), "d": ("x",)}, index=False)
    (folder / "text.tsv").write_text('a\tplain words\nb\t{"tags": "cat dog"}\nc\t{"captions": ["p", "q"]}\nd\t \n')
    assert contents(pairs_of("tsv", folder)) == {"a": ("plain words",), "b": ("cat dog",), "c": ("p", "q")}


def test_several_files_in_order(tmp_path: Path) -> None:
    for number, key in enumerate("xy"):
        folder = write_tsv(tmp_path / str(number), {key: (f"caption of {key}",)})
        for name in ("images", "text"):
            for suffix in (".tsv", ".lineidx"):
                (folder / f"{name}{suffix}").rename(tmp_path / f"{name}_{number}{suffix}")
    text, images = tmp_path / "text_{0..1}.tsv", tmp_path / "images_*.tsv"
    assert contents(pairs_of("tsv", text, images=images)) == {"x": ("caption of x",), "y": ("caption of y",)}


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = write_tsv(tmp_path, index=False)
    rows = (folder / "text.tsv").read_text().splitlines(keepends=True)
    (folder / "text.tsv").write_text("".join(rows[:2]))
    with pytest.raises(UsageError, match=r"text\.tsv has 2 rows and .*images\.tsv has 3"):
        pairs_of("tsv", folder)
    (folder / "text.tsv").write_text("".join([rows[1], rows[0], rows[2]]))
    with pytest.raises(UsageError, match=r"Row 1 of .* have different keys"):
        pairs_of("tsv", folder)


def test_a_row_in_the_middle_costs_itself(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(9)]
    folder = write_tsv(tmp_path, {key: (key,) for key in keys}, index=False)
    path = folder / "images.tsv"
    path.write_text(path.read_text().replace("k2\t", "kX\t").replace("\naz", "\n!!").replace("k6\taW", "k6\t!!"))
    pairs = pairs_of("tsv", folder)
    with pytest.raises(InputError, match="k2 is not in its row"):
        pairs[2].read()
    with pytest.raises(InputError, match=r"k6 .* is not base64"):
        pairs[6].read()
    assert pairs[8].read() == b"image of k8"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has 0 rows and"),
        ("a\n\n\n", "row 1: no key and tab|has 1 rows"),
        ("a/1.jpg\tx\nno tab here\nb/1.jpg\ty\n", "row 2: no key and tab"),
        ('a/1.jpg\tx\na/2.jpg\t{"captions": \nb/1.jpg\ty\n', "row 2: not valid JSON"),
        ('a/1.jpg\tx\na/2.jpg\t{"words": 1}\nb/1.jpg\ty\n', "row 2: there is no 'captions'"),
    ],
)
def test_wrong_text_rows(tmp_path: Path, text: str, sentence: str) -> None:
    folder = write_tsv(tmp_path, index=False)
    (folder / "text.tsv").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        pairs_of("tsv", folder)


def test_what_is_missing(tmp_path: Path) -> None:
    folder = write_tsv(tmp_path)
    with pytest.raises(UsageError, match=r"images of .* are not named"):
        pairs_of("tsv", folder / "text.tsv")
    with pytest.raises(MissingError, match="no image file"):
        pairs_of("tsv", folder / "text.tsv", images=folder / "pictures.tsv")
    (folder / "images.tsv").unlink()
    with pytest.raises(MissingError, match=r"holds no image \.tsv"):
        pairs_of("tsv", folder)
    (folder / "text.lineidx").write_text("0\n999999\n")
    with pytest.raises(UsageError, match="offsets beyond the end"):
        captions_of("tsv", folder)
    (folder / "text.lineidx").write_text("zero\n")
    with pytest.raises(UsageError, match="not a list of byte offsets"):
        captions_of("tsv", folder)


def test_the_index_of_a_large_file_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tsv(tmp_path, index=False)
    monkeypatch.setattr(base, "WORTH_KEEPING", 0)
    first = contents(pairs_of("tsv", folder))
    scans: list[Path] = []
    monkeypatch.setattr(tsv, "_scan", lambda path: scans.append(path) or {})
    assert contents(pairs_of("tsv", folder)) == first
    assert scans == []


def test_a_damaged_index_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tsv(tmp_path, index=False)
    monkeypatch.setattr(base, "WORTH_KEEPING", 0)
    monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path / "cache"))
    first = contents(pairs_of("tsv", folder))
    indexes = list((tmp_path / "cache" / "indexes").iterdir())
    assert len(indexes) == 2
    for damage in (b"", b"PK\x03\x04 nonsense", indexes[0].read_bytes()[:100]):
        for index in indexes:
            index.write_bytes(damage)
        assert contents(pairs_of("tsv", folder)) == first
