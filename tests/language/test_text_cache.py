from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from regionclip_cli.hub.paths import text_cache_dir
from regionclip_cli.language import text_cache
from regionclip_cli.language.text_cache import TextCache


def rows(count: int, first: int = 0) -> dict[str, np.ndarray]:
    return {f"phrase {i}": np.full(8, float(i), np.float32) for i in range(first, first + count)}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in expected)


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache, stored = TextCache(tmp_path), rows(1200)
    cache.put("a", stored)
    assert same(TextCache(tmp_path).get("a", list(stored)), stored)
    assert same(cache.get("a", ["phrase 3", "unknown"]), {"phrase 3": stored["phrase 3"]})
    assert cache.get("b", list(stored)) == {}
    assert cache.get("a", []) == {}


def test_awkward_phrases(tmp_path: Path) -> None:
    stored = {
        phrase: np.random.default_rng(0).normal(size=4).astype(np.float32)
        for phrase in ("🐱", "a'b\"; DROP TABLE embeddings; --", "x\x00y", " ", "é")
    }
    TextCache(tmp_path).put("a", stored)
    assert same(TextCache(tmp_path).get("a", list(stored)), stored)


def test_the_last_value_counts(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.put("a", {"cat": np.zeros(2, np.float32)})
    cache.put("a", {"cat": np.ones(2, np.float32)})
    assert same(cache.get("a", ["cat"]), {"cat": np.ones(2, np.float32)})


def test_clear(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.put("a", rows(5000))
    full = cache.path.stat().st_size
    cache.clear()
    assert cache.get("a", list(rows(5000))) == {}
    assert cache.path.stat().st_size < full / 4


def test_the_default_folder_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TextCache()
    for folder in ("one", "two"):
        monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path / folder))
        assert cache.path.parent == text_cache_dir()
        assert cache.get("a", ["phrase 0"]) == {}
        cache.put("a", rows(1))
        assert cache.path.is_relative_to(tmp_path / folder)
        assert len(cache.get("a", ["phrase 0"])) == 1


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    assert TextCache(tmp_path / "absent").get("a", ["cat"]) == {}
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("damage", ["text", "header", "middle", "cut"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache, stored = TextCache(tmp_path), rows(3000)
    cache.put("a", stored)
    raw = cache.path.read_bytes()
    half = len(raw) // 2
    cache.path.write_bytes(
        {
            "text": b"this is no database, and long enough to be looked at" * 100,
            "header": b"\0" * 100 + raw[100:],
            "middle": raw[:half] + b"\xff" * 20_000 + raw[half + 20_000 :],
            "cut": raw[:half],
        }[damage]
    )
    found = TextCache(tmp_path).get("a", list(stored))
    assert all(np.array_equal(found[key], stored[key]) for key in found)
    assert len(found) < len(stored)
    fresh = TextCache(tmp_path)
    for _ in range(2):  # The first write may be the one that finds the damage.
        fresh.put("a", stored)
    assert same(fresh.get("a", list(stored)), stored)
    assert "damaged" in caplog.text


def test_a_changed_number_is_absent(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.put("a", rows(2, first=1))
    with sqlite3.connect(cache.path) as database:
        database.execute("UPDATE embeddings SET vector = zeroblob(32) WHERE phrase = 'phrase 1'")
    database.close()
    assert same(cache.get("a", ["phrase 1", "phrase 2"]), rows(1, first=2))


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TextCache(tmp_path / "file" / "text")
    for _ in range(3):
        cache.put("a", rows(1))
        assert cache.get("a", ["phrase 0"]) == {}
    cache.clear()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_file_that_cannot_be_written_is_still_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TextCache(tmp_path)
    cache.put("a", rows(2))
    real = sqlite3.connect

    def as_if_protected(address: str, **options: object) -> sqlite3.Connection:
        # Root may write protected files, so the mode says what the file system would.
        return real(address.partition("?")[0] + "?mode=ro", **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(text_cache.sqlite3, "connect", as_if_protected)
    cache.put("a", rows(1, first=5))
    assert same(cache.get("a", ["phrase 0", "phrase 1", "phrase 5"]), rows(2))
    assert "cannot be written" in caplog.text


def test_a_busy_file_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache, "_PATIENCE_S", 0.05)
    cache = TextCache(tmp_path)
    cache.put("a", rows(1))
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    cache.put("a", rows(1, first=1))
    assert cache.get("a", ["phrase 0"]) == {}
    assert "locked" in caplog.text
    other.execute("ROLLBACK")
    other.close()
    assert same(cache.get("a", ["phrase 0", "phrase 1"]), rows(1))


def test_an_empty_file_holds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TextCache(tmp_path)
    cache.path.touch()
    assert cache.get("a", ["phrase 0"]) == {}
    cache.put("a", rows(1))
    assert len(cache.get("a", ["phrase 0"])) == 1
    assert not caplog.records


def test_a_mistake_of_ours_is_not_taken_for_damage(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.put("a", rows(1))
    with pytest.raises(sqlite3.ProgrammingError):
        cache.get("a", [object()])  # type: ignore[list-item]
    assert len(cache.get("a", ["phrase 0"])) == 1


def test_the_oldest_rows_give_way(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, max_bytes=200_000)
    for start in range(0, 6000, 500):
        cache.put("a", rows(500, first=start))
    assert cache.path.stat().st_size < 300_000
    assert len(cache.get("a", list(rows(500, first=5500)))) == 500
    assert cache.get("a", ["phrase 0"]) == {}


_WRITER = """
import sys
import numpy as np
from pathlib import Path
from regionclip_cli.language.text_cache import TextCache
cache, first = TextCache(Path(sys.argv[1])), int(sys.argv[2])
for start in range(first, first + 400, 20):
    some = {f"phrase {i}": np.full(8, float(i), np.float32) for i in range(start, start + 20)}
    cache.put("a", some)
    found = cache.get("a", list(some))
    if set(found) != set(some) or not all(np.array_equal(found[key], some[key]) for key in some):
        sys.exit(f"lost something at {start}")
"""


def test_processes_share_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    workers = [subprocess.Popen([*command, str(first)]) for first in (0, 200)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert same(TextCache(tmp_path).get("a", list(rows(600))), rows(600))


def test_a_new_file_of_another_process_is_not_removed(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.put("a", rows(1))
    seen = text_cache._identity(cache.path)
    (tmp_path / "new").write_bytes(b"")
    (tmp_path / "new").replace(cache.path)
    text_cache._discard(cache.path, seen)
    assert cache.path.exists()
    text_cache._discard(cache.path, text_cache._identity(cache.path))
    assert not cache.path.exists()
