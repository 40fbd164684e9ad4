"""`regionclip models`: list, fetch, add and export models, and say where one is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regionclip_cli.console import Console

if TYPE_CHECKING:
    from regionclip_cli.stages.models import Added

app = typer.Typer(help="List, fetch and add models.", no_args_is_help=True, rich_markup_mode="rich")

STATES = {
    "package": "ready, in the package",
    "here": "ready",
    "get": "models get",
    "hand": "by hand",
    "damaged": "damaged",
}

Half = Annotated[bool, typer.Option("--half", help="Store large tensors in float16: half the size.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what has this name already.")]


@app.command("ls")
def list_models(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a model on stdout.")] = False,
) -> None:
    """List the models that are here and those that can be had.

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
        ("name", "kind", "state", "licence", "size", "what"),
        [
            (row.name, row.kind, STATES[row.state], row.licence or "not stated", _size(row.size), row.summary)
            for row in found
        ],
    )


@app.command()
def get(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name that `models ls` marks with `models get`.")],
    half: Half = False,
    force: Force = False,
) -> None:
    """Fetch a model and keep it.

    [bold]Examples:[/bold]
      regionclip models get clip-rn50
      regionclip models get clip-vit-b-16 --half
    """
    from regionclip_cli.stages.models import get as fetch

    console = ctx.ensure_object(Console)
    result = fetch(name, half=half, force=force, progress=console.progress())
    if isinstance(result, Path):
        console.note(f"{name} is here already: {result}")
    else:
        _tell(console, result)


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    file: Annotated[str, typer.Argument(help="A weights file, or an https:// address of one.")],
    text_from: Annotated[
        str | None, typer.Option(help="Model to take the text encoder from, for detectors without one.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Names of concept embeddings: @lvis, @coco-65, a file, or a list.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model whose text encoder made the concept embeddings.")] = None,
    gelu: Annotated[
        bool, typer.Option("--gelu", help="CLIP weights trained with the plain GELU, not OpenAI's quick one.")
    ] = False,
    sha256: Annotated[str | None, typer.Option(help="Checksum that the file must have.")] = None,
    half: Half = False,
    force: Force = False,
) -> None:
    """Recognise a weights file, convert it and keep it under a name.

    It may be a RegionCLIP checkpoint or detector, one of its proposal
    networks or concept embeddings, a CLIP or open_clip state dict, or a
    model file of this tool. Files that could run code are not read.

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
    name: Annotated[str, typer.Argument(help="A model's name.")],
) -> None:
    """Print the path of a model's file.

    [bold]Examples:[/bold]
      regionclip models where regionclip-tiny
      cp "$(regionclip models where regionclip-tiny)" /media/usb
    """
    from regionclip_cli.stages.models import where as find

    ctx.ensure_object(Console).line(str(find(name)))


@app.command()
def export(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A model's name, or a model file.")],
    file: Annotated[Path, typer.Argument(help="Where to write: .safetensors, .pt, .pth or .bin.")],
    force: Force = False,
) -> None:
    """Write the CLIP model inside a model as an open_clip state dict.

    open_clip's model of the same architecture loads it with strict=True.

    [bold]Examples:[/bold]
      regionclip models export regionclip-tiny tiny_open_clip.safetensors
      regionclip models export regionclip-rn50 rn50_open_clip.pt
    """
    from regionclip_cli.stages.models import export as write

    count = write(name, file, force=force)
    ctx.ensure_object(Console).note(f"{count} tensors written to {file}")


def _tell(console: Console, result: Added) -> None:
    """Say what a file was and where it is now: the path is data, the rest is talk."""
    what = f"{result.recognised}, {result.backbone}" if result.backbone else result.recognised
    console.note(f"{result.name}: {what}; {', '.join(result.parts)}; {result.parameters / 1e6:.1f} M parameters.")
    console.note(f"Licence: {result.licence or 'not stated'}.")
    if result.hint:
        console.warn(result.hint)
    console.line(str(result.path))


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} MB"
