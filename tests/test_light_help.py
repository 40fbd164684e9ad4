"""Help and listings are fast, because they import no heavy libraries."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "cv2",
    "huggingface_hub",
    "matplotlib",
    "mmcv",
    "mmdet",
    "mmengine",
    "numpy",
    "open_clip",
    "pycocotools",
    "scipy",
    "supervision",
    "timm",
    "torch",
    "torchvision",
)
PROBE = """
import sys
from regionclip_cli.app import main
code = main(sys.argv[2:])
print("IMPORTED", *sorted(set(sys.argv[1].split(",")) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words",
    ["--help", "--version", "detect --help", "models --help", "models ls", "plugins ls", "doctor --help", "dtect"],
)
def test_light_commands_import_no_heavy_library(words: str) -> None:
    command = [sys.executable, "-c", PROBE, ",".join(HEAVY), *words.split()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == (2 if words == "dtect" else 0), ended.stderr
    assert ended.stderr.splitlines()[-1] == "IMPORTED"


def test_names_only_does_not_import_torch(tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("a dog runs\ntwo dogs on a mat\n")
    words = ["concepts", "--captions", str(captions), "--out", str(tmp_path / "nouns.csv"), "--names-only"]
    heavy = ",".join(set(HEAVY) - {"numpy"})
    command = [sys.executable, "-c", PROBE, heavy, *words, "--min-count", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == "IMPORTED"


def test_wrong_input_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    words = ["detect", str(tmp_path / "missing.jpg"), "--classes", "cat"]
    command = [sys.executable, "-c", PROBE, ",".join(set(HEAVY) - {"numpy"}), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 2, ended.stderr
    assert lines[0] == "Loading regionclip-tiny ..."
    assert lines[-1] == "IMPORTED"


def test_probe_detects_heavy_modules() -> None:
    code = PROBE.replace("from regionclip_cli.app", "import numpy\nfrom regionclip_cli.app")
    ended = subprocess.run(
        [sys.executable, "-c", code, "numpy,torch", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stderr.splitlines()[-1] == "IMPORTED numpy"


def test_help_takes_under_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "regionclip_cli", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # CPU time, so that a busy machine does not fail the test.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5
