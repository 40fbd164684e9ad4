"""`regionclip models`: list, download, import and export models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regionclip_cli.commands import completion
from regionclip_cli.console import Console
from regionclip_cli.environment import spell_bytes
from regionclip_cli.errors import ExitCode
from regionclip_cli.runs.progress import loading

if TYPE_CHECKING:
    from regionclip_cli.stages.models import Added

app = typer.Typer(help="List, download, import and export models.", no_args_is_help=True, rich_markup_mode="rich")

STATES = {
    "package": "included",
    "here": "installed",
    "get": "download",
    "hand": "manual",
    "damaged": "damaged",
}

Half = Annotated[bool, typer.Option("--half", metavar="", help="Store large tensors as float16, at half the size.")]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Overwrite existing files.")]


@app.command("ls")
def list_models(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per model.")] = False,
) -> None:
    """List installed and available models.

    States: included in the package; installed; download (with `models get`);
    manual (download the file yourself and import it with `models add`);
    damaged. --json adds the kind, licence and path.

    [bold]Examples:[/bold]
      regionclip models ls
      regionclip models ls --json
    """
    from regionclip_cli.stages.models import list_models as rows

    console = ctx.ensure_object(Console)
    found = rows()
    if as_json:
        for row in found:
            console.json({**vars(row), "path": str(row.path) if row.path else None})
        return
    console.table(
        ("name", "state", "size", "description"),
        [(row.name, STATES[row.state], _size(row.size), row.summary or row.kind) for row in found],
    )


@app.command()
def get(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Model name from `models ls`.", autocompletion=completion.downloadable_models
        ),
    ],
    half: Half = False,
    force: Force = False,
) -> None:
    """Download a model.

    The model is converted and stored in the cache folder.

    [bold]Examples:[/bold]
      regionclip models get clip-rn50
      regionclip models get clip-vit-b-16 --half
    """
    from regionclip_cli.stages.models import get as fetch

    console = ctx.ensure_object(Console)
    result = fetch(name, half=half, force=force, progress=console.progress())
    if isinstance(result, Path):
        console.note(f"{name} is already installed: {result}")
    else:
        _tell(console, result)


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name for the model.", autocompletion=completion.known_models)
    ],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Weights file, or its https:// URL.")],
    text_from: Annotated[
        str | None,
        typer.Option(
            help="Model that provides the text encoder, for detectors without one.",
            autocompletion=completion.installed_models,
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            help="Names for a file of concept embeddings: @lvis, @coco-65, a file or a list.",
            autocompletion=completion.class_lists,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model whose text encoder produced the concept embeddings.", autocompletion=completion.installed_models
        ),
    ] = None,
    gelu: Annotated[
        bool, typer.Option("--gelu", metavar="", help="The CLIP weights use GELU instead of OpenAI's QuickGELU.")
    ] = False,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256 checksum of the file.")] = None,
    half: Half = False,
    force: Force = False,
) -> None:
    """Import a weights file.

    Accepts RegionCLIP checkpoints, detectors, proposal networks and concept
    embeddings, CLIP and open_clip state dicts, and regionclip model files.
    The format is detected and converted. Pickle files that could execute code
    are rejected.

    [bold]Examples:[/bold]
      regionclip models add regionclip-rn50 regionclip_pretrained-cc_rn50.pth
      regionclip models add rpn-lvis-866 rpn_lvis_866.pth --half
      regionclip models add regionclip-coco-rn50 \\
          regionclip_finetuned-coco_rn50.pth --text-from regionclip-rn50
      regionclip models add lvis lvis_1203_cls_emb.pth --names @lvis \\
          --model regionclip-rn50
    """
    from regionclip_cli.stages.models import add as keep

    console = ctx.ensure_object(Console)
    result = keep(
        name,
        file,
        text_from=text_from,
        names=names,
        model=model,
        gelu=gelu,
        half=half,
        force=force,
        sha256=sha256,
        progress=console.progress(),
    )
    _tell(console, result)


@app.command()
def where(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Model name.", autocompletion=completion.installed_models)
    ],
) -> None:
    """Print the path of a model file.

    Use it to copy or inspect the file.

    [bold]Examples:[/bold]
      regionclip models where regionclip-tiny
      cp "$(regionclip models where regionclip-tiny)" /media/usb
    """
    from regionclip_cli.stages.models import where as find

    ctx.ensure_object(Console).line(str(find(name)))


@app.command()
def export(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Model name or file.", autocompletion=completion.installed_models)
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Output file: .onnx, .safetensors, .pt, .pth or .bin.")],
    half: Half = False,
    force: Force = False,
) -> None:
    """Export a model to ONNX, or as an open_clip state dict.

    NAME.onnx is written with NAME.proposals.onnx, NAME.regions.onnx and
    NAME.text.onnx, and runs with `detect --model NAME.onnx`. Exported beside
    the model file, the graphs use its weights and `detect` finds them by the
    name of the model. Requires the extra regionclip-cli[onnx].

    The other formats load with strict=True into the open_clip model of the
    same architecture.

    [bold]Examples:[/bold]
      regionclip models export regionclip-tiny tiny.onnx --half
      regionclip models export regionclip-tiny tiny_open_clip.safetensors
      regionclip models export regionclip-rn50 rn50_open_clip.pt
    """
    from regionclip_cli.stages.models import export as write
    from regionclip_cli.stages.models import export_onnx

    console = ctx.ensure_object(Console)
    if file.suffix == ".onnx":
        with loading(console.progress(), name):
            written = export_onnx(name, file, half=half, force=force)
        for path in written:
            console.line(str(path))
        return
    count = write(name, file, half=half, force=force)
    console.note(f"{count} tensors written to {file}")


@app.command("rm")
def remove_models(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Installed models.", autocompletion=completion.removable_models),
    ],
) -> None:
    """Remove installed models.

    Deletes the model files from the cache folder. The included model cannot
    be removed.

    [bold]Examples:[/bold]
      regionclip models rm clip-rn50
      regionclip models rm regionclip-rn50 rpn-lvis-866
    """
    from regionclip_cli.stages.models import remove

    console = ctx.ensure_object(Console)
    for removed in remove(names):
        console.note(f"Removed {removed.path} ({_size(removed.size)}).")


@app.command("prune")
def prune_cache(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="List the files without deleting them.")
    ] = False,
) -> ExitCode:
    """Delete temporary and cached files, but no models.

    Deletes interrupted downloads, cached text embeddings and indexes of
    caption files from the cache folder. They are created again when needed.

    [bold]Examples:[/bold]
      regionclip models prune --dry-run
      regionclip models prune
    """
    from regionclip_cli.stages.models import prune

    console = ctx.ensure_object(Console)
    result = prune(dry_run=dry_run)
    for file in result.files:
        console.line(str(file.path))
    for path in result.failed:
        console.warn(f"{path} could not be deleted.")
    console.note(f"{'Would free' if dry_run else 'Freed'} {_size(sum(file.size for file in result.files))}.")
    return ExitCode.SOME_FAILED if result.failed else ExitCode.OK


def _tell(console: Console, result: Added) -> None:
    """Print what was imported: the path on stdout, the rest on stderr."""
    what = f"{result.recognised}, {result.backbone}" if result.backbone else result.recognised
    console.note(f"{result.name}: {what}; {', '.join(result.parts)}; {result.parameters / 1e6:.1f} M parameters.")
    console.note(f"Licence: {result.licence or 'not stated'}.")
    if result.hint:
        console.warn(result.hint)
    console.line(str(result.path))


def _size(count: int | None) -> str:
    return "" if count is None else spell_bytes(count)
