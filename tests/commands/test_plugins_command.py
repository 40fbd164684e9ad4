"""`regionclip plugins ls` and `check`: what is installed, and whether it keeps its promises."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from distributions import install, install_example

from regionclip_cli import app, plugins
from regionclip_cli.commands import plugins as command
from regionclip_cli.errors import ExitCode
from regionclip_cli.specs import BackboneSpec, DatasetSpec
from regionclip_cli.stages import plugin_check

DATASET = """
from regionclip_cli.specs import DatasetSpec
SPEC = DatasetSpec("{name}", "One sentence.", "{loader}", {classes})
"""
WRITER = """
from regionclip_cli.specs import WriterSpec

SPEC = WriterSpec("note", "note.txt: the names that were found.", "notes:render", outputs=("note.txt",))

def render(records, folder, labels):
    path = folder / "note.txt"
    text = " ".join(one["label"] for record in records for one in record["detections"])
    {write}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that Python looks for installed packages in; modules of it are forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, Any]]]:
    code = app.main(["-q", "plugins", *words, "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    return code, [json.loads(line) for line in out.splitlines()]


def test_ls_lists_built_ins(capsys: pytest.CaptureFixture[str]) -> None:
    code, offers = run_json(capsys, "ls")
    assert code == ExitCode.OK
    assert {"kind", "name", "distribution", "version", "summary", "problem"} == set(offers[0])
    assert {offer["distribution"] for offer in offers} == {plugins.OWN}
    assert all(offer["summary"] for offer in offers)


def test_ls_lists_the_example_plugins(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_example(site, "regionclip-mobilenet")
    install_example(site, "regionclip-shapes")
    assert app.main(["plugins", "ls"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["backbones", "mobilenet-v2-050", "regionclip-mobilenet"] for line in lines)
    assert any(line.split()[:3] == ["datasets", "shapes", "regionclip-shapes"] for line in lines)


def test_ls_reports_broken_plugins_and_lists_the_rest(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "broken", {"regionclip.writers": {"ink": "broken:SPEC"}}, "import no_such_library")
    install_example(site, "regionclip-shapes")
    assert app.main(["plugins", "ls"]) == ExitCode.PLUGIN
    out, err = capsys.readouterr()
    assert "shapes" in out
    assert err.count("error:") == 1
    assert "The writer 'ink' of the plugin broken 1.0 is broken: ModuleNotFoundError" in err
    assert "pip uninstall broken" in err


def test_check_without_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "check") == (ExitCode.OK, [])


def test_help_examples_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(plugin_check.CHECKS, "backbones", lambda spec: "not built here: that takes a minute")
    pages = [page.__doc__ or "" for page in (command.about, command.list_all, command.check_all)]
    lines = [line.split() for page in pages for line in page.splitlines() if line.strip().startswith("regionclip ")]
    assert len(lines) == 6
    for _, *words in lines:
        assert app.main(words) == ExitCode.OK
    capsys.readouterr()


def test_check_passes_for_the_example_plugins(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_example(site, "regionclip-mobilenet")
    install_example(site, "regionclip-shapes")
    code, outcomes = run_json(capsys, "check")
    assert [outcome["problem"] for outcome in outcomes] == ["", ""]
    assert code == ExitCode.OK
    facts = {outcome["name"]: outcome["fact"] for outcome in outcomes}
    assert facts["mobilenet-v2-050"].endswith("stride 16, D = 256")
    assert facts["shapes"].startswith("9 classes: red circle, ")


def test_check_reports_a_wrong_spec(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_example(site, "regionclip-mobilenet")
    module = site / "regionclip_mobilenet.py"
    module.write_text(module.read_text().replace("channels=48", "channels=50"))
    install_example(site, "regionclip-shapes")
    assert app.main(["plugins", "check"]) == ExitCode.PLUGIN
    out, err = capsys.readouterr()
    assert "ok: 9 classes" in out
    assert "error: backbone mobilenet-v2-050: " in err
    assert "50" in err
    assert "48" in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stride": 32}, "stride"),
        ({"embed_dim": 100}, "embed_dim"),
        ({"network": {"type": "no_such_module.Network"}}, "no_such_module"),
    ],
)
def test_backbone_spec_is_checked(change: dict[str, Any], words: str, site: Path) -> None:
    install_example(site, "regionclip-mobilenet")
    code = (site / "regionclip_mobilenet.py").read_text()
    code += f"\nimport dataclasses\nMOBILENET = dataclasses.replace(MOBILENET, **{change!r})\n"
    (site / "regionclip_mobilenet.py").write_text(code)
    (outcome,) = plugin_check.check(Silence())
    assert words in outcome.problem


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def trunk(self, images): return super().trunk(images)[..., 1:]", "has shape (1, 48, 4, 5)"),
        ("def pool(self, regions): return super().pool(regions)[:, 1:]", "has shape (2, 255)"),
        ("def pool(self, regions): return super().pool(regions) / 0", "NaN"),
        ("def pool(self, regions): return no_such_name", "NameError"),
        ("def __init__(self, pool_size, **rest): super().__init__(pool_size=9, **rest)", "14"),
    ],
)
def test_backbone_output_is_checked(body: str, words: str, site: Path) -> None:
    install_example(site, "regionclip-mobilenet")
    code = (site / "regionclip_mobilenet.py").read_text()
    code = code.replace("regionclip_cli.vision.backbones.timm_tower.TimmTower", "crooked_network.Crooked")
    (site / "regionclip_mobilenet.py").write_text(code)
    network = f"from regionclip_cli.vision.backbones import TimmTower\nclass Crooked(TimmTower):\n    {body}\n"
    (site / "crooked_network.py").write_text(network)
    (outcome,) = plugin_check.check(Silence())
    assert words in outcome.problem


class Silence:
    """A progress that hears nothing."""

    def start(self, task: str, total: int | None, unit: str) -> None: ...

    def advance(self, done: int = 1) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def finish(self) -> None: ...


@pytest.mark.parametrize(
    ("loader", "classes", "words"),
    [
        ("no_such_module:load", "('a',)", "'no_such_module:load'"),
        ("math:no_such_function", "('a',)", "math:no_such_function"),
        ("math:pi", "('a',)", "math:pi"),
        ("math:sqrt", "('a', 'b', 'a')", ": a."),
        ("math:sqrt", "('a', ' ')", "empty name"),
    ],
)
def test_dataset_spec_is_checked(loader: str, classes: str, words: str, site: Path) -> None:
    code = DATASET.format(name="dust", loader=loader, classes=classes)
    install(site, "duster", {"regionclip.datasets": {"dust": "duster:SPEC"}}, code)
    (outcome,) = plugin_check.check(Silence())
    assert words in outcome.problem


def test_caption_dataset_without_classes() -> None:
    assert plugin_check.check_dataset(DatasetSpec("x", "X.", "math:sqrt")) == "captions, no classes"


@pytest.mark.parametrize(
    ("write", "problem", "fact"),
    [
        ("path.write_text(text)", "", "wrote note.txt"),
        ("pass", "note.txt", ""),
        ("path.with_name('note.part').write_text('')", "note.part", ""),
        ("raise KeyError('label')", "KeyError: 'label'", ""),
    ],
)
def test_a_writer_renders_toy_detections(write: str, problem: str, fact: str, site: Path) -> None:
    install(site, "notes", {"regionclip.writers": {"note": "notes:SPEC"}}, WRITER.format(write=write))
    (outcome,) = plugin_check.check(Silence())
    assert outcome.fact == fact
    assert problem in outcome.problem
    assert bool(problem) is bool(outcome.problem)
    assert ("pip uninstall notes" in outcome.hint) is bool(problem)


@pytest.mark.parametrize("name", plugins.names("writers"))
def test_our_own_writers_pass(name: str) -> None:
    assert plugin_check.check_writer(plugins.find("writers", name)).startswith("wrote ")


def test_smallest_built_in_backbone_passes() -> None:
    spec = plugins.find("backbones", "regionclip-tiny")
    assert isinstance(spec, BackboneSpec)
    assert "stride 16" in plugin_check.check_backbone(spec)


def test_check_all_includes_built_ins(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(plugin_check.CHECKS, "backbones", lambda spec: f"looked at {spec.name}")
    code, outcomes = run_json(capsys, "check", "--all")
    assert code == ExitCode.OK
    assert [outcome["name"] for outcome in outcomes if outcome["kind"] == "backbones"] == plugins.names("backbones")
