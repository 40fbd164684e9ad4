"""`regionclip concepts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from regionclip_cli.commands import completion
from regionclip_cli.commands.recipe_arguments import (
    DeviceOption,
    DryRunFlag,
    JsonFlag,
    ResumeFlag,
    open_recipe,
    run_progress,
)
from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode, UsageError
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.schema import ConceptsSection, Recipe

WORDS_HELP = "Recipe and overrides, e.g. concepts.min_count=5; with --captions, more caption files."
CAPTIONS_HELP = (
    "Caption files instead of a recipe: .jsonl, .json (COCO), .tsv, .tar, .txt; globs and {000..331} ranges."
)
OUT_HELP = "With --captions: concept bank to write (.safetensors), or a .csv file with --names-only."
POOL, WORK = "Concept selection", "Model and processing"


def _flag(field: str, *names: str, panel: str = POOL, **more: Any) -> Any:
    """Return the option for a settings field; its help is the field description plus the default."""
    default = fields.default(ConceptsSection, field)
    suffix = f" Default with --captions: {default}." if default not in (None, (), False) else ""
    help_text = fields.describe(ConceptsSection, field) + suffix
    return typer.Option(*names, help=help_text, rich_help_panel=panel, **more)


def concepts(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE|KEY=VALUE", help=WORDS_HELP, autocompletion=completion.recipe_then_overrides),
    ] = None,
    captions: Annotated[list[str] | None, typer.Option("--captions", metavar="FILE", help=CAPTIONS_HELP)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=OUT_HELP)] = None,
    parser: Annotated[Literal["hanta", "spacy"] | None, _flag("parser", "--parser")] = None,
    min_count: Annotated[int | None, _flag("min_count", "--min-count")] = None,
    max_concepts: Annotated[int | None, _flag("max_concepts", "--max-concepts")] = None,
    add: Annotated[str | None, _flag("add", "--add", metavar="NAMES", autocompletion=completion.class_lists)] = None,
    drop: Annotated[str | None, _flag("drop", "--drop", metavar="NAMES", autocompletion=completion.class_lists)] = None,
    names_only: Annotated[bool, _flag("names_only", "--names-only", metavar="")] = False,
    templates: Annotated[str | None, _flag("templates", "--templates", panel=WORK)] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Model whose text encoder embeds the concepts.",
            rich_help_panel=WORK,
            autocompletion=completion.installed_models,
        ),
    ] = None,
    workers: Annotated[int | None, _flag("workers", "--workers", panel=WORK)] = None,
    device: DeviceOption = None,
    resume: ResumeFlag = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> ExitCode:
    """Build a concept bank from image captions.

    Counts the nouns in the captions and keeps the frequent ones. Writes
    nouns.csv and a concept bank with their text embeddings, used by
    pseudolabel, pretrain and `detect --concepts`. Captions are streamed, so
    memory use does not grow with the corpus. NAMES is a comma-separated list,
    @coco, @lvis or a .txt file.

    [bold]Examples:[/bold]
      regionclip concepts tiny
      regionclip concepts tiny concepts.min_count=5 --dry-run
      regionclip concepts --captions captions_train2017.json \\
          --out bank.safetensors
      regionclip concepts --captions "cc3m/{00000..00331}.tar" --workers 8 \\
          --out bank.safetensors
      regionclip concepts --captions a.jsonl b.txt --min-count 5 \\
          --add @coco --drop "lot,front" --names-only --out nouns.csv
    """
    console = ctx.ensure_object(Console)
    settings = {
        "parser": parser,
        "min_count": min_count,
        "max_concepts": max_concepts,
        "add": _names(add),
        "drop": _names(drop),
        "names_only": names_only or None,
        "templates": templates,
        "workers": workers,
    }
    settings = {key: value for key, value in settings.items() if value is not None}
    if captions:
        recipe = _from_files([*captions, *(words or ())], settings, model, device)
    else:
        recipe = _from_recipe(words or [], settings, model, device, out)
    progress = run_progress(console, heavy=not names_only)
    from regionclip_cli.stages import concepts as stage

    options: dict[str, Any] = {"progress": progress, "resume": resume, "dry_run": dry_run}
    result = stage.mine_files(recipe, _required(out), **options) if captions else stage.run(recipe, **options)
    if as_json:
        console.json(result.to_json())
    console.note(result.summary())
    return ExitCode.OK


def _from_files(files: list[str], settings: dict[str, Any], model: str | None, device: str | None) -> Recipe:
    """Build an in-memory recipe that reads caption files."""
    from regionclip_cli.data.captions.base import guess_form

    values: dict[str, Any] = {"name": "concepts", "out": ".", "device": device or "auto"}
    values["data"] = {"captions": tuple({"dataset": guess_form(file), "path": file} for file in files)}
    values["concepts"] = settings
    values["model"] = {"start": model} if model else {}
    return fields.checked(Recipe, **values)


def _from_recipe(
    words: list[str], settings: dict[str, Any], model: str | None, device: str | None, out: Path | None
) -> Recipe:
    """Load the named recipe, with the options as overrides."""
    if not words:
        raise UsageError("No recipe and no captions given.", "Give a recipe, or caption files with --captions.")
    if out is not None:
        raise UsageError("--out requires --captions.", f"To change a recipe's run folder, add out={out.parent}.")
    flags = [f"concepts.{key}={json.dumps(value)}" for key, value in settings.items()]
    flags += [f"model.start={json.dumps(model)}"] if model else []
    return open_recipe(words[0], [*words[1:], *flags], device=device, section="concepts")


def _required(out: Path | None) -> Path:
    if out is None:
        raise UsageError("--captions requires --out.", "For example: --out concepts.safetensors.")
    return out


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [word for word in (part.strip() for part in text.split(",")) if word]
