"""Finding, loading and describing what other packages offer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from distributions import EXAMPLES, install, install_example

from regionclip_cli import app, plugins
from regionclip_cli.errors import ExitCode, PluginError, UsageError
from regionclip_cli.specs import BackboneSpec, DatasetSpec, WriterSpec

WRITER = """
from regionclip_cli.specs import WriterSpec
SPEC = WriterSpec("{name}", "One sentence.", "{module}:Writer")
"""
COMMAND = """
import typer
app = typer.Typer(help="Say hello.")

@app.callback()
def about(): pass

@app.command()
def hello(name: str, loud: bool = False, code: int = 0):
    '''Greet somebody.'''
    print(name.upper() if loud else name)
    if code == 99:
        raise ValueError("too much")
    raise typer.Exit(code)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that Python looks for installed packages in; modules of it are forgotten at the end."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    monkeypatch.delenv(plugins.SWITCH, raising=False)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def add_writer(site: Path, distribution: str, name: str) -> None:
    module = distribution.replace("-", "_")
    code = WRITER.format(name=name, module=module)
    install(site, distribution, {"regionclip.writers": {name: f"{module}:SPEC"}}, code)


def test_our_own_specs_come_through_the_same_door(site: Path) -> None:
    assert isinstance(plugins.find("backbones", "clip-rn50"), BackboneSpec)
    assert isinstance(plugins.find("writers", "jsonl"), WriterSpec)
    assert "clip-rn50" in plugins.names("backbones")
    assert plugins.names("commands") == []


@pytest.mark.parametrize("kind", plugins.BUILT_IN)
def test_our_own_specs_go_by_the_names_they_are_listed_under(kind: str) -> None:
    assert all(plugins.find(kind, name).name == name for name in plugins.names(kind))


def test_listing_names_imports_nothing(site: Path) -> None:
    add_writer(site, "scribe", "ink")
    assert plugins.names("writers")[-1] == "ink"
    assert plugins.entries("writers") == [plugins.Entry("writers", "ink", "scribe", "1.0", "scribe:SPEC")]
    assert "scribe" not in sys.modules


def test_only_what_is_asked_for_is_imported(site: Path) -> None:
    add_writer(site, "scribe", "ink")
    add_writer(site, "chisel", "stone")
    assert plugins.find("writers", "stone").summary == "One sentence."
    assert "chisel" in sys.modules
    assert "scribe" not in sys.modules


def test_unknown_names_get_near_ones_without_an_import(site: Path) -> None:
    add_writer(site, "scribe", "inkwell")
    with pytest.raises(UsageError, match=r"'inkwel'.*'inkwell'"):
        plugins.find("writers", "inkwel")
    with pytest.raises(UsageError, match="None is installed"):
        plugins.find("datasets", "zzz")
    assert "scribe" not in sys.modules


@pytest.mark.parametrize(
    ("switch", "expected"),
    [(None, ["ink", "stone"]), ("", []), ("scribe", ["ink"]), ("My.Chisel,scribe", ["ink", "stone"]), ("other", [])],
)
def test_the_switch(switch: str | None, expected: list[str], site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_writer(site, "scribe", "ink")
    add_writer(site, "my-chisel", "stone")
    if switch is not None:
        monkeypatch.setenv(plugins.SWITCH, switch)
    assert [entry.name for entry in plugins.entries("writers")] == expected
    assert [name for name in plugins.names("writers") if name in ("ink", "stone")] == expected


@pytest.mark.parametrize(
    ("code", "target", "reason"),
    [
        ("import no_such_library", "broken:SPEC", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "broken:SPEC", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(7)", "broken:SPEC", "SystemExit: 7"),
        ("OTHER = 1", "broken:SPEC", "AttributeError: module 'broken' has no attribute 'SPEC'"),
        ("SPEC = {}", "broken:SPEC", "broken:SPEC is a dict and not a WriterSpec"),
        (WRITER.format(name="blot", module="broken"), "broken:SPEC", "its spec calls itself 'blot'"),
    ],
)
def test_a_broken_plugin_is_one_sentence_for_whoever_asks(code: str, target: str, reason: str, site: Path) -> None:
    install(site, "broken", {"regionclip.writers": {"ink": target}}, code)
    add_writer(site, "good", "stone")
    assert plugins.find("writers", "stone").name == "stone"
    with pytest.raises(PluginError) as caught:
        plugins.find("writers", "ink")
    assert caught.value.message == f"The writer 'ink' of the plugin broken 1.0 is broken: {reason}."
    assert "pip uninstall broken" in caught.value.hint
    assert caught.value.code == ExitCode.PLUGIN


def test_no_plugin_replaces_what_is_ours(site: Path) -> None:
    add_writer(site, "usurper", "jsonl")
    assert plugins.find("writers", "jsonl").render.startswith("regionclip_cli.")
    assert plugins.names("writers").count("jsonl") == 1
    problems = [offer.problem for offer in plugins.describe() if offer.distribution == "usurper"]
    assert len(problems) == 1
    assert "the name 'jsonl' belongs to regionclip itself" in problems[0]
    assert "usurper" not in sys.modules


def test_two_plugins_of_one_name_are_told_apart_by_the_switch(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_writer(site, "scribe", "ink")
    add_writer(site, "squid", "ink")
    with pytest.raises(PluginError, match=r"scribe and squid"):
        plugins.find("writers", "ink")
    problems = {offer.distribution: offer.problem for offer in plugins.describe() if offer.name == "ink"}
    assert problems == {"scribe": "The name is also offered by squid.", "squid": "The name is also offered by scribe."}
    monkeypatch.setenv(plugins.SWITCH, "squid")
    assert plugins.find("writers", "ink").render == "squid:Writer"


def test_describe_isolates_what_is_broken(site: Path) -> None:
    install(site, "broken", {"regionclip.datasets": {"dust": "broken:SPEC"}}, "1 / 0")
    add_writer(site, "scribe", "ink")
    offers = {offer.name: offer for offer in plugins.describe()}
    assert (offers["ink"].summary, offers["ink"].problem) == ("One sentence.", "")
    assert "ZeroDivisionError" in offers["dust"].problem
    assert offers["clip-rn50"].problem == ""


@pytest.mark.parametrize(
    ("example", "kind", "name", "spec_type"),
    [
        ("regionclip-mobilenet", "backbones", "mobilenet-v2-050", BackboneSpec),
        ("regionclip-shapes", "datasets", "shapes", DatasetSpec),
    ],
)
def test_the_examples_install_and_load(
    example: str, kind: str, name: str, spec_type: type[BackboneSpec | DatasetSpec], site: Path
) -> None:
    install_example(site, example)
    spec = plugins.find(kind, name)
    assert isinstance(spec, spec_type)
    assert [entry.distribution for entry in plugins.entries(kind)] == [example]


def test_every_example_folder_is_tested() -> None:
    assert {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()} == {
        "regionclip-mobilenet",
        "regionclip-shapes",
    }


def test_drawn_shapes_lie_where_their_boxes_say(site: Path) -> None:
    install_example(site, "regionclip-shapes")
    import regionclip_shapes as shapes

    records = list(shapes.draw(images=5, side=128, seed=3))
    again = list(shapes.draw(images=5, side=128, seed=3))
    assert [record["boxes"] for record in records] == [record["boxes"] for record in again]
    for record in records:
        background = record["image"].getpixel((0, 0))
        for (x1, y1, x2, y2), label in zip(record["boxes"], record["labels"], strict=True):
            assert 0 <= x1 < x2 < 128
            assert 0 <= y1 < y2 < 128
            inside = record["image"].getpixel(((x1 + x2) // 2, (y1 + y2) // 2))
            assert inside == shapes.COLOURS[shapes.CLASSES[label].split()[0]]
            assert record["image"].getpixel((x1 - 1, y1 - 1)) == background


def test_a_plugin_command_is_listed_but_not_loaded(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "greeter", {"regionclip.commands": {"greet": "greeter:app"}}, COMMAND)
    assert app.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "greet " in out
    assert "the package greeter" in out
    assert "greeter" not in sys.modules


def test_a_plugin_command_gets_the_rest_of_the_line(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "greeter", {"regionclip.commands": {"greet": "greeter:app"}}, COMMAND)
    assert app.main(["greet", "hello", "ada", "--loud"]) == 0
    assert capsys.readouterr().out == "ADA\n"
    assert app.main(["greet", "hello", "ada", "--code", "3"]) == 3
    capsys.readouterr()
    assert app.main(["greet", "hello", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: regionclip greet hello" in out
    assert "Greet somebody." in out
    assert app.main(["greet", "hello", "--laud"]) == ExitCode.USAGE
    assert "No such option: --laud" in capsys.readouterr().err


def test_a_plugin_command_that_fails_is_the_plugins_fault(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "greeter", {"regionclip.commands": {"greet": "greeter:app"}}, COMMAND)
    assert app.main(["greet", "hello", "ada", "--code", "99"]) == ExitCode.PLUGIN
    err = capsys.readouterr().err
    assert err.splitlines() == [
        "error: The command 'greet' of the plugin greeter 1.0 is broken: ValueError: too much.",
        "hint: Remove it with `pip uninstall greeter`, or ignore all plugins with REGIONCLIP_PLUGINS=''.",
    ]


def test_a_broken_plugin_command_costs_only_itself(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "broken", {"regionclip.commands": {"crash": "broken:app"}}, "import no_such_library")
    assert app.main(["--help"]) == 0
    assert app.main(["doctor", "--help"]) == 0
    capsys.readouterr()
    assert app.main(["crash", "--help"]) == ExitCode.PLUGIN
    out, err = capsys.readouterr()
    assert out == ""
    assert "The command 'crash' of the plugin broken 1.0 is broken: ModuleNotFoundError" in err
    assert "pip uninstall broken" in err


def test_a_plugin_cannot_take_a_built_in_command(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "usurper", {"regionclip.commands": {"doctor": "usurper:app"}}, COMMAND)
    assert app.main(["doctor", "--help"]) == 0
    assert "usurper" not in sys.modules
    assert app.main(["--help"]) == 0
    assert "usurper" not in capsys.readouterr().out
    (offer,) = [offer for offer in plugins.describe() if offer.distribution == "usurper"]
    assert "'doctor' belongs to regionclip itself" in offer.problem


def test_the_switch_hides_commands_too(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "greeter", {"regionclip.commands": {"greet": "greeter:app"}}, COMMAND)
    monkeypatch.setenv(plugins.SWITCH, "")
    assert app.main(["greet"]) == ExitCode.USAGE
    assert "No such command 'greet'" in capsys.readouterr().err
