import hashlib
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from small_disk import small_disk

from regionclip_cli.errors import MissingError, OutputError
from regionclip_cli.hub import download
from regionclip_cli.hub.download import fetch_from_hub, fetch_url

CONTENT = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Recorder:
    def __init__(self):
        self.events = []
        self.done = 0

    def start(self, task, total, unit):
        self.events.append((task, total, unit))

    def advance(self, done=1):
        self.done += done

    def finish(self):
        self.events.append("finish")


class Handler(BaseHTTPRequestHandler):
    release = threading.Event()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        where = self.path.rpartition("/")[2]
        if where == "missing" or ("resolve" in self.path and not where.endswith(".bin")):
            self.send_response(404)
            if "resolve" in self.path:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "HEAD":
            return
        if where == "stalled":
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            self.release.wait(20)
        elif where == "cut":
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        else:
            self.wfile.write(CONTENT)

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def server():
    """The address of a server on this machine."""
    Handler.release.clear()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    Handler.release.set()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_comes_whole_and_only_once(server, tmp_path):
    progress, target = Recorder(), tmp_path / "deep" / "w.pth"
    assert fetch_url(f"{server}/good", target, progress, sha256=SHA256) == target
    assert target.read_bytes() == CONTENT
    assert progress.events == [("w.pth", 3, "MB"), "finish"]
    assert progress.done == len(CONTENT) // 1_000_000
    assert fetch_url("http://127.0.0.1:9/unreachable", target, progress, sha256=SHA256) == target
    assert left(target.parent) == ["w.pth"]


def test_a_file_with_another_checksum_is_fetched_again(server, tmp_path):
    target = tmp_path / "w.pth"
    target.write_bytes(b"older")
    fetch_url(f"{server}/good", target, Recorder(), sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("where", "sha256", "sentence"),
    [
        ("missing", None, "404"),
        ("cut", None, "connection"),
        ("cut", SHA256, "connection"),
        ("good", "0" * 64, "checksum"),
    ],
)
def test_what_goes_wrong_leaves_nothing(server, tmp_path, where, sha256, sentence):
    with pytest.raises(MissingError, match=sentence):
        fetch_url(f"{server}/{where}", tmp_path / "w.pth", Recorder(), sha256=sha256)
    assert left(tmp_path) == []


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(MissingError, match=r"connection|respond"):
        fetch_url(f"{server}/stalled", tmp_path / "w.pth", Recorder())
    assert time.monotonic() - began < 5
    assert left(tmp_path) == []


def test_nobody_answers(tmp_path):
    with pytest.raises(MissingError, match="connection failed"):
        fetch_url("http://127.0.0.1:9/w.pth", tmp_path / "w.pth", Recorder())


def test_offline_never_asks(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match="network"):
        fetch_url(f"{server}/good", tmp_path / "w.pth", Recorder())


def test_full_disk(server, tmp_path):
    with small_disk(500_000), pytest.raises(OutputError, match="cannot be written"):
        fetch_url(f"{server}/good", tmp_path / "w.pth", Recorder())
    assert left(tmp_path) == []


def test_interrupted(server, tmp_path):
    code = (
        "import sys; from pathlib import Path; from regionclip_cli.hub.download import fetch_url\n"
        "class P:\n"
        "    def start(self, *a): print('started', flush=True)\n"
        "    def advance(self, n=1): pass\n"
        "    def finish(self): pass\n"
        "fetch_url(sys.argv[1], Path(sys.argv[2]), P())\n"
    )
    # One second of silence is enough: the first 1000 bytes are counted only with a small chunk.
    code = code.replace("fetch_url(sys", "import regionclip_cli.hub.download as d; d.MEGABYTE = 500; fetch_url(sys")
    target = tmp_path / "w.pth"
    with subprocess.Popen(
        [sys.executable, "-c", code, f"{server}/stalled", str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline().strip() == b"started"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in errors
    assert left(tmp_path) == []


def fake_hub(folder, repo, name, content=CONTENT):
    """Lay out a Hub cache as huggingface_hub does, with one file in it."""
    base = folder / f"models--{repo.replace('/', '--')}"
    snapshot = base / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("0" * 40)
    (snapshot / name).write_bytes(content)


def point_hub_to(address, cache, monkeypatch):
    import huggingface_hub
    import huggingface_hub.constants

    # The variable is read when the package is imported, and tests run with it set.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    real = huggingface_hub.hf_hub_download
    there = partial(real, endpoint=address, cache_dir=cache, token=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", there)


@pytest.fixture
def hub(tmp_path, monkeypatch, server):
    """Use a Hub at the local server, with its cache in a temporary folder; returns the cache."""
    point_hub_to(server, tmp_path / "hub", monkeypatch)
    return tmp_path / "hub"


def test_hub_files_come_from_its_cache_when_offline(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fake_hub(hub, "who/what", "open_clip_pytorch_model.bin")
    path = fetch_from_hub("who/what", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"], Recorder())
    assert path.read_bytes() == CONTENT
    with pytest.raises(MissingError, match=r"network.*models add"):
        fetch_from_hub("who/else", ["open_clip_model.safetensors"], Recorder())


def test_hub_files_come_from_the_network(hub):
    progress = Recorder()
    path = fetch_from_hub("who/what", ["a.safetensors", "a.bin"], progress)
    assert path.read_bytes() == CONTENT
    assert progress.events[0][1:] == (3, "MB")
    assert progress.events[-1] == "finish"


def test_hub_without_the_file(hub):
    with pytest.raises(MissingError, match="huggingface"):
        fetch_from_hub("who/what", ["a.safetensors", "b.safetensors"], Recorder())


def test_hub_out_of_reach(tmp_path, monkeypatch):
    point_hub_to("http://127.0.0.1:9", tmp_path, monkeypatch)
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(MissingError, match="cannot be reached"):
        fetch_from_hub("who/what", ["a.bin", "b.bin"], Recorder())
    assert sum(waits) < 60, "the Hub's client waits between its tries, and may not do so for long"
