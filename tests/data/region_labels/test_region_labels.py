"""Region labels on the disk: exact bytes, access by key, and every way in which a folder can be wrong."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_disk import small_disk

from regionclip_cli.data.region_labels import LabelManifest, RegionLabel, RegionLabels
from regionclip_cli.data.region_labels import store as shard_files
from regionclip_cli.data.region_labels.format import MANIFEST, Row, claim, format_row, parse_row, read_manifest
from regionclip_cli.data.region_labels.store import index_path, is_whole, remove_parts, shard_path, writing_shard
from regionclip_cli.errors import MissingError, OutputError, UsageError

WHOLE = LabelManifest(images=5, shard_size=2, names=("cat", "猫", "dog"), kept=2, settings={"min_score": 0.1})
KEYS = ("a/1.jpg", "b~2", "猫.png", "\udcff.png", "last")


def label(count: int) -> RegionLabel:
    """Return `count` regions with numbers that JSON cannot hold in full."""
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4) / 3
    probs = np.linspace(0.9, 0.1, 2 * count, dtype=np.float32).reshape(count, 2)
    concepts = np.tile(np.array([[2, 0]]), (count, 1))
    return RegionLabel((640, 480), boxes, np.linspace(0, 1, count, dtype=np.float32), concepts, probs)


def row(number: int) -> Row:
    return Row(KEYS[number], None, "b~2 is damaged.") if number == 1 else Row(KEYS[number], label(number))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    claim(tmp_path, WHOLE)
    for shard in range(WHOLE.shards):
        with writing_shard(tmp_path, shard) as writer:
            for number in WHOLE.rows_of(shard):
                writer.add(row(number))
    return tmp_path


def test_a_row_has_these_very_bytes() -> None:
    assert format_row(Row("猫.png", label(2))) == (
        b'{"key":"\\u732b.png","size":[640,480],"boxes":[[0.0,0.33,0.67,1.0],[1.33,1.67,2.0,2.33]],'
        b'"objectness":[0.0,1.0],"concepts":[[2,0],[2,0]],"probs":[[0.9,0.6333],[0.3667,0.1]]}\n'
    )
    assert format_row(Row("x", None, "x is empty.")) == b'{"key":"x","error":"x is empty."}\n'
    plain = label(0)._replace(objectness=None)
    assert format_row(Row("x", plain)) == (
        b'{"key":"x","size":[640,480],"boxes":[],"objectness":null,"concepts":[],"probs":[]}\n'
    )


def test_labels_are_found_by_key_in_any_process(folder: Path) -> None:
    labels = pickle.loads(pickle.dumps(RegionLabels.open(folder)))  # noqa: S301 - what a data loader does
    assert len(labels) == 5
    assert labels.manifest == WHOLE
    for number in (4, 0, 3, 2):
        found = labels.get(KEYS[number])
        assert found is not None
        assert found.size == (640, 480)
        assert found.boxes.dtype == found.probs.dtype == np.float32
        assert found.concepts.dtype == np.int64
        assert found.concepts.shape == found.probs.shape == (number, 2)
        np.testing.assert_allclose(found.boxes, label(number).boxes, atol=0.0051)
        np.testing.assert_allclose(found.probs, label(number).probs, atol=0.000051)
        np.testing.assert_allclose(found.objectness, label(number).objectness, atol=0.000051)
    assert labels.get("b~2") is None
    assert labels.get("elsewhere.jpg") is None
    assert [one.key for one in labels.rows()] == list(KEYS)
    assert labels.row(1) == Row("b~2", None, "b~2 is damaged.")


def test_two_keys_of_one_hash_are_told_apart(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("regionclip_cli.data.region_labels.store", "regionclip_cli.data.region_labels.store"):
        monkeypatch.setattr(f"{name}.key_hash", lambda key: 7)
    for path in folder.glob("*.npy"):
        path.unlink()
    labels = RegionLabels.open(folder)
    assert [len(found.boxes) for key in ("last", "a/1.jpg", "猫.png") if (found := labels.get(key))] == [4, 0, 2]
    assert labels.get("other") is None


def test_lost_indexes_are_made_again(folder: Path) -> None:
    before = [shard_files.read_index(folder, shard, rows) for shard, rows in enumerate((2, 2, 1))]
    index_path(folder, 0).unlink()
    index_path(folder, 1).write_bytes(b"nothing")
    np.save(index_path(folder, 2), np.zeros(3))
    after = [shard_files.read_index(folder, shard, rows) for shard, rows in enumerate((2, 2, 1))]
    assert all(map(np.array_equal, before, after))


def cut(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize(
    ("harm", "error", "sentence"),
    [
        (lambda folder: cut(shard_path(folder, 1), 30), UsageError, r"labels-00001.jsonl is cut short: it has 1 of 2"),
        (lambda folder: shard_path(folder, 1).write_bytes(b""), UsageError, "has 0 of 2 rows"),
        (lambda folder: shard_path(folder, 1).write_bytes(b"[1]\n{}\n"), UsageError, "Row 1 of the shard .* damaged"),
        (lambda folder: shard_path(folder, 1).unlink(), MissingError, "1 of 3 shards are not in .*labels-00001.jsonl"),
    ],
)
def test_a_shard_that_is_not_whole_says_how_to_mend_it(
    folder: Path, harm: Callable[[Path], object], error: type[Exception], sentence: str
) -> None:
    harm(folder)
    with pytest.raises(error, match=sentence) as caught:
        RegionLabels.open(folder)
    assert "pseudolabel RECIPE --resume" in str(caught.value)
    assert not is_whole(folder, 1, 2)
    assert is_whole(folder, 0, 2)


def test_a_row_that_was_changed_is_a_sentence(folder: Path) -> None:
    path = shard_path(folder, 1)
    path.write_bytes(path.read_bytes().replace(b'"boxes":[[', b'"bxxes":[['))
    with pytest.raises(UsageError, match=r"labels-00001\.jsonl:1 .*boxes"):
        RegionLabels.open(folder).get("猫.png")
    with pytest.raises(UsageError, match="here"):
        parse_row(format_row(Row("x", label(2))), "here", kept=3)


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (None, MissingError, "There are no region labels in .* Run `regionclip pseudolabel RECIPE`"),
        ("[]", UsageError, "labels.json"),
        ("{", UsageError, "labels.json"),
        ('{"format": 1, "names": [], "odd": 1}', UsageError, "labels.json"),
        ('{"format": 2}', UsageError, "label format 2, and this version reads 1"),
    ],
)
def test_a_manifest_that_cannot_be_used(
    tmp_path: Path, content: str | None, error: type[Exception], sentence: str
) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(error, match=sentence):
        RegionLabels.open(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": {"min_score": 0.2}}, r"made with settings\.min_score 0\.1 and not 0\.2\. Use the same settings"),
        ({"names": ("cat", "dog")}, r'names \["cat", "猫", "dog"\] and not \["cat", "dog"\]'),
        ({"settings": {}, "images": 6}, r"images 5 and not 6, settings\.min_score 0\.1 and not null\."),
        ({"bank": {"model": "m"}}, r'bank\.model null and not "m"'),
        ({"settings": {}, "images": 6, "kept": 1, "data": "x"}, r"\(1 more differ\)"),
    ],
)
def test_labels_of_two_kinds_are_not_mixed(folder: Path, changes: dict, sentence: str) -> None:
    other = dataclasses.replace(WHOLE, **changes)
    with pytest.raises(UsageError, match=sentence) as caught:
        other.check_same(claim(folder, other), folder)
    assert "\n" not in str(caught.value)
    WHOLE.check_same(read_manifest(folder), folder)


def test_many_processes_may_claim_a_folder_at_once(tmp_path: Path) -> None:
    kinds = [dataclasses.replace(WHOLE, data=str(number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda kind: claim(tmp_path / "new", kind), kinds))
    assert len({one.data for one in claimed}) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == [MANIFEST]


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    assert claim(tmp_path, WHOLE) == WHOLE
    assert claim(tmp_path, dataclasses.replace(WHOLE, data="x")) == WHOLE


def test_concepts_are_compared_by_name(folder: Path) -> None:
    WHOLE.check_concepts(["cat", "猫", "dog"])
    with pytest.raises(UsageError, match="of 3 concepts, and the bank has 2"):
        WHOLE.check_concepts(["cat", "dog"])
    with pytest.raises(UsageError, match="Concept 1 is '猫' in the labels and 'dog' in the bank"):
        WHOLE.check_concepts(["cat", "dog", "猫"])


def write_rows(folder: Path, shard: int, numbers: tuple[int, ...], stop: BaseException | None = None) -> None:
    with writing_shard(folder, shard) as writer:
        for number in numbers:
            writer.add(row(number))
        if stop is not None:
            raise stop


@pytest.mark.parametrize("numbers", [(), (0,), (0, 1)])
def test_a_shard_is_whole_or_absent(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path, 0, numbers, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_sentence_and_leaves_the_other_shards(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match=r"labels-00003\.jsonl cannot be written: File too large"), small_disk(100):
        write_rows(folder, 3, (0, 2, 4))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_killed_runs_left_is_removed(folder: Path) -> None:
    litter = [folder / f".labels-0000{n}.{kind}.abcd.part" for n in (0, 1) for kind in ("jsonl", "index.npy")]
    for path in litter:
        path.touch()
    remove_parts(folder, 1)
    assert [path.exists() for path in litter] == [True, True, False, False]


def test_the_manifest_is_readable(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    assert (content["format"], content["images"], content["shard_size"], content["kept"]) == (1, 5, 2, 2)
    assert content["names"] == ["cat", "猫", "dog"]
