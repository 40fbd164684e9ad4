"""`regionclip doctor`: what is there, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from distributions import install

from regionclip_cli import app, environment
from regionclip_cli.commands import doctor as command
from regionclip_cli.errors import ExitCode, MissingError
from regionclip_cli.hub import store
from regionclip_cli.stages import doctor

MODEL_BYTES = 2_500_000


@pytest.fixture(autouse=True)
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the packaged model be a file of known size."""
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"0" * MODEL_BYTES)
    monkeypatch.setattr(store, "resolve", lambda name: model)


def test_working_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert "error" not in err
    facts = dict(line.split("  ", 1) for line in out.splitlines() if "  " in line)
    assert facts["packaged model"].strip() == "regionclip-tiny, 2.5 MB"
    assert facts["torch"].strip() == environment.versions()["torch"]
    assert facts["plugins"].strip() == "none installed"
    assert "BROKEN" not in out


def test_help_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = command.doctor.__doc__ or ""
    lines = [line.split() for line in page.splitlines() if line.strip().startswith("regionclip ")]
    assert len(lines) == 2
    for _, *words in lines:
        assert app.main(words) == ExitCode.OK
    capsys.readouterr()


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--json"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert "error" not in err
    report = json.loads(out)
    assert report["ok"] is True
    assert report["versions"]["mmdet"] == environment.versions()["mmdet"]
    assert {check["name"] for check in report["checks"]} >= {"device", "operators", "packaged model", "cache"}
    assert any(offer["name"] == "clip-rn50" for offer in report["offers"])


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--markdown"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert f"| torch | {environment.versions()['torch']} |" in lines
    assert all(line.startswith("|") and line.endswith("|") for line in lines if line)


def test_json_and_markdown_cannot_be_combined(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--json", "--markdown"]) == ExitCode.USAGE


def test_missing_model_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(name: str) -> Path:
        raise MissingError(f"The model {name} is not here.", "Reinstall.")

    monkeypatch.setattr(store, "resolve", absent)
    assert app.main(["doctor"]) == ExitCode.MISSING
    out, err = capsys.readouterr()
    assert "BROKEN" in out
    assert err.endswith("error: packaged model: The model regionclip-tiny is not here.\nhint: Reinstall.\n")


def test_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environment, "NEEDED", (*environment.NEEDED, "no-such-distribution"))
    assert app.main(["doctor", "--json"]) == ExitCode.MISSING
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    (packages,) = [check for check in report["checks"] if check["name"] == "packages"]
    assert packages["problem"] == "Not installed: no-such-distribution."


def test_broken_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(doctor, "_device", broken)
    report = doctor.examine()
    assert [check.problem for check in report.problems] == [
        "ImportError: libcudart.so.12: cannot open shared object file"
    ]
    assert report.code == ExitCode.MISSING


def test_wrong_operators_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from regionclip_cli.vision import mmcv_ops

    mmcv_ops.install()
    import mmcv.ops

    monkeypatch.setattr(mmcv.ops, "roi_align", lambda *_: torch.zeros(1, 1, 2, 2))
    assert [check.name for check in doctor.examine().problems] == ["operators"]


def test_broken_plugin_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "broken", {"regionclip.datasets": {"dust": "broken:SPEC"}}, "1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert app.main(["doctor"]) == ExitCode.PLUGIN
    err = capsys.readouterr().err
    assert err.count("error:") == 1
    assert "The dataset 'dust' of the plugin broken 1.0 is broken: ZeroDivisionError" in err
    assert "pip uninstall broken" in err


def test_unwritable_cache_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path / "file" / "cache"))
    (cache,) = doctor.examine().problems
    assert cache.name == "cache"
    assert "REGIONCLIP_CACHE" in cache.hint


def test_cache_is_measured_and_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path / "cache"))
    facts = {check.name: check.fact for check in doctor.examine().checks}
    assert facts["cache"] == f"{tmp_path / 'cache'}, 0 B"
    assert not (tmp_path / "cache").exists()
