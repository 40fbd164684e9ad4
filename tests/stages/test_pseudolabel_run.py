"""`pseudolabel` as a function: what it writes, what it refuses, and that nothing is ever lost or different."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from label_toys import NAMES, done, labelling, rows, shards, write_bank
from listening import Listener

from regionclip_cli.data.region_labels import RegionLabels
from regionclip_cli.data.region_labels.store import ShardWriter, shard_path
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.runs.progress import Silent
from regionclip_cli.stages.pseudolabel import Estimate, run


def test_it_writes_labels_of_every_image(work: Path, toy_teacher: Path) -> None:
    listener = Listener()
    result = done(run(labelling(toy_teacher), listener))
    assert (result.images, result.shards, result.done_before, result.failed, result.finished) == (7, 3, 0, 0, True)
    assert (listener.done, listener.total, listener.warnings) == (7, 7, [])
    assert [row["key"] for row in rows()] == [f"photos/{number}.png" for number in range(7)]
    assert sum(len(row["boxes"]) for row in rows()) == result.regions > 20
    for row in rows():
        width, height = row["size"]
        assert (width, height) in {(64, 48), (64, 56), (64, 64)}
        for box, concepts, probs in zip(row["boxes"], row["concepts"], row["probs"], strict=True):
            assert 0 <= box[0] <= box[2] <= width
            assert 0 <= box[1] <= box[3] <= height
            assert len(set(concepts)) == 3
            assert probs == sorted(probs, reverse=True)
            assert probs[0] >= 0.2
        assert row["objectness"] == sorted(row["objectness"], reverse=True)
    manifest = RegionLabels.open("run/labels").manifest
    assert (manifest.names, manifest.kept, manifest.images, manifest.shard_size) == (NAMES, 3, 7, 3)
    assert manifest.teacher == manifest.proposals == {**manifest.teacher, "name": "toy"}
    assert json.loads(Path("run/run.json").read_text())["runs"][0]["counts"]["images"] == 7
    assert f"{result.regions} regions of 7 images labelled, 3 shards written. Labels are in" in result.summary()
    json.dumps(result.to_json())


def test_a_second_run_is_refused_or_has_nothing_to_do(work: Path, toy_teacher: Path) -> None:
    run(labelling(toy_teacher))
    before = shards()
    with pytest.raises(UsageError, match=r"run/labels .*3 of 3 shards.*--resume"):
        run(labelling(toy_teacher))
    with pytest.raises(UsageError, match=r"settings\.min_score 0\.2 and not 0\.3"):
        run(labelling(toy_teacher, min_score=0.3), resume=True)
    write_bank(work / "bank.safetensors", seed=2)
    with pytest.raises(UsageError, match=r"bank\.fingerprint"):
        run(labelling(toy_teacher), resume=True)
    write_bank(work / "bank.safetensors")
    result = done(run(labelling(toy_teacher), resume=True))
    assert (result.images, result.shards, result.done_before) == (0, 0, 3)
    assert shards() == before


@pytest.mark.parametrize("settings", [{"batch": 1, "shard_size": 100}, {"batch": 3}, {"batch": 8, "shard_size": 5}])
def test_labels_do_not_depend_on_batches_and_shards(work: Path, toy_teacher: Path, settings: dict[str, int]) -> None:
    run(labelling(toy_teacher, batch=1))
    run(labelling(toy_teacher, out="other", **settings))
    assert rows() == rows("other")


@pytest.mark.parametrize("at", range(1, 8))
def test_a_run_that_was_cut_anywhere_goes_on_to_the_same_bytes(
    work: Path, toy_teacher: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    run(labelling(toy_teacher, out="whole"))
    add, count = ShardWriter.add, 0
    said: list[str] = []

    def cut(self: ShardWriter, row: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        add(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "add", cut)
        patch.setattr(Silent, "note", lambda _, message: said.append(message))
        with pytest.raises(KeyboardInterrupt):
            run(labelling(toy_teacher))
    assert "--resume goes on" in said[-1]
    whole = (at - 1) // 3
    assert len(shards()) == 2 * whole
    assert not list(Path("run/labels").glob(".*"))
    result = done(run(labelling(toy_teacher), resume=True))
    assert result.done_before == whole
    assert shards() == shards("whole")


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from label_toys import labelling
from regionclip_cli.data.region_labels import store as shards
replace, names = os.replace, []
add, count = shards.ShardWriter.add, 0
def killing(self, row):
    global count
    count += 1
    add(self, row)
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
shards.ShardWriter.add = killing
from regionclip_cli.stages.pseudolabel import run
run(labelling({model!r}))
"""


def test_kill_9_loses_no_shard_that_was_whole(work: Path, toy_teacher: Path) -> None:
    code = KILLED.format(path=[str(Path(__file__).parents[1])], model=str(toy_teacher))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert list(shards()) == ["labels-00000.index.npy", "labels-00000.jsonl"]
    assert len(list(Path("run/labels").glob(".labels-00001.jsonl.*.part"))) == 1
    with pytest.raises(MissingError, match="2 of 3 shards are not in run/labels yet"):
        RegionLabels.open("run/labels")
    result = done(run(labelling(toy_teacher), resume=True))
    assert (result.done_before, result.shards) == (1, 2)
    run(labelling(toy_teacher, out="whole"))
    assert shards() == shards("whole")
    assert not list(Path("run/labels").glob(".*"))


def test_a_damaged_shard_is_written_again(work: Path, toy_teacher: Path) -> None:
    run(labelling(toy_teacher))
    before = shards()
    path = shard_path(Path("run/labels"), 1)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match="cut short"):
        RegionLabels.open("run/labels")
    assert done(run(labelling(toy_teacher), resume=True)).shards == 1
    assert shards() == before


def test_shares_together_are_the_whole(work: Path, toy_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("photos/4.png").write_bytes(b"")
    run(labelling(toy_teacher, out="whole"))
    first = done(run(labelling(toy_teacher), shard_of="2/2"))
    assert (first.shards, first.images, first.failed, first.finished) == (1, 3, 1, False)
    assert "Other processes" in first.summary()
    with pytest.raises(UsageError, match="1 of 1 shards"):
        run(labelling(toy_teacher), shard_of="2/2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    second = done(run(labelling(toy_teacher)))
    assert (second.shards, second.images, second.failed, second.finished) == (2, 4, 0, True)
    assert shards() == shards("whole")
    assert Path("run/labels/labels.json").read_bytes() == Path("whole/labels/labels.json").read_bytes()
    assert Path("run/labels/errors.jsonl").read_bytes() == Path("whole/labels/errors.jsonl").read_bytes()
    with pytest.raises(UsageError, match="kept 3 and not 2"):
        run(labelling(toy_teacher, top_k=2), shard_of="1/2", resume=True)
    with pytest.raises(UsageError, match="'3/2' is no share of a job"):
        run(labelling(toy_teacher), shard_of="3/2")


def bomb() -> bytes:
    """Return a PNG of 60,000 x 60,000 pixels whose data say nothing."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_an_image_that_cannot_be_read_costs_only_itself(work: Path, toy_teacher: Path) -> None:
    run(labelling(toy_teacher, out="whole", batch=1))
    good = Path("photos/1.png").read_bytes()
    for number, content in ((1, good[:60]), (2, b""), (4, bomb())):
        Path(f"photos/{number}.png").write_bytes(content)
    Path("photos/6.png").unlink()
    listener = Listener()
    result = done(run(labelling(toy_teacher, batch=1), listener))
    assert (result.images, result.failed, listener.done) == (7, 4, 7)
    assert [set(row) for row in rows() if "error" in row] == [{"key", "error"}] * 4
    assert [row for row in rows() if "error" not in row] == [rows("whole")[number] for number in (0, 3, 5)]
    listed = [json.loads(line) for line in Path("run/labels/errors.jsonl").read_text().splitlines()]
    assert [one["image"] for one in listed] == [f"photos/{number}.png" for number in (1, 2, 4, 6)]
    assert [one["error"] for one in listed] == listener.warnings
    for word, one in zip(("damaged", "empty", "60000 x 60000 pixels", "photos/6.png"), listed, strict=True):
        assert word in one["error"]
    assert RegionLabels.open("run/labels").get("photos/2.png") is None
    assert "run/labels/errors.jsonl" in result.summary()
    again = done(run(labelling(toy_teacher, batch=1), resume=True))
    assert (again.images, again.failed) == (0, 4)
    Path("photos/1.png").write_bytes(good)
    shard_path(Path("run/labels"), 0).unlink()
    assert done(run(labelling(toy_teacher, batch=1), resume=True)).failed == 3
    assert rows()[1] == rows("whole")[1]


def test_only_so_many_warnings(work: Path, toy_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regionclip_cli.stages.label_shards.MOST_WARNINGS", 2)
    for number in range(1, 7):
        Path(f"photos/{number}.png").write_bytes(b"x")
    listener = Listener()
    assert done(run(labelling(toy_teacher), listener)).failed == 6
    assert len(listener.warnings) == 3
    assert listener.warnings[2] == "Further unreadable images are listed in errors.jsonl only."


def test_a_dry_run_tells_and_writes_nothing(work: Path, toy_teacher: Path) -> None:
    before = {path.name for path in work.iterdir()}
    told = run(labelling(toy_teacher), dry_run=True)
    assert isinstance(told, Estimate)
    assert (told.images, told.shards, told.concepts, told.regions) == (7, 3, 6, 12)
    assert told.seconds is not None
    assert told.seconds > 0
    assert told.bytes is not None
    assert {path.name for path in work.iterdir()} == before
    result = done(run(labelling(toy_teacher)))
    written = sum(len(content) for name, content in shards().items() if name.endswith(".jsonl"))
    assert 0.5 < told.bytes / written < 2
    assert told.labels is not None
    assert 0.5 < told.labels / result.regions < 2
    assert "7 images in 3 shards, up to 12 regions per image, 6 concepts" in told.summary()
    json.dumps(told.to_json())
    left = run(labelling(toy_teacher), dry_run=True, resume=True)
    assert "0 images in 0 shards" in left.summary()
    assert "Nothing left" in left.summary()
    for number in range(7):
        Path(f"photos/{number}.png").write_bytes(b"x")
    unreadable = run(labelling(toy_teacher, out="x"), dry_run=True)
    assert (unreadable.images, unreadable.seconds) == (7, None)
