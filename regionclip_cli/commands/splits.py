"""`regionclip splits`: list the splits into base and novel classes, and cut annotation files by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regionclip_cli.console import Console

app = typer.Typer(help="List base and novel classes, and cut annotation files.", no_args_is_help=True)


@app.command("ls")
def list_splits(
    ctx: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a split on stdout, with its classes.")
    ] = False,
) -> None:
    """List the splits in the package.

    [bold]Examples:[/bold]
      regionclip splits ls
      regionclip splits ls --json
    """
    from regionclip_cli.data.splits import SPLITS, read_split
    from regionclip_cli.language import vocabularies

    console = ctx.ensure_object(Console)
    rows = []
    for name, summary in SPLITS.items():
        known = tuple(label for label, _ in vocabularies.classes(name.partition("-")[0]))
        split = read_split(name, known)
        if as_json:
            console.json({"name": name, "base": split.base, "novel": split.novel})
        rows.append((name, len(split.base), len(split.novel), summary))
    if not as_json:
        console.table(("name", "base", "novel", "what"), rows)


@app.command("cut")
def cut_files(
    ctx: typer.Context,
    split: Annotated[str, typer.Argument(help="A name of `splits ls`, or a .yaml or .json file with base and novel.")],
    annotations: Annotated[list[Path], typer.Option(help="COCO annotation file; give it several times for several.")],
    out: Annotated[Path, typer.Option(help="Folder for the new files.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a file on stdout.")] = False,
) -> None:
    """Cut COCO annotation files into base, novel and both.

    instances_val2017.json becomes ovd_ins_val2017_b.json (base), _t.json
    (novel) and _all.json (both); images without a box are left out.

    [bold]Examples:[/bold]
      regionclip splits cut coco-48-17 --annotations instances_val2017.json --out ovd
      regionclip splits cut mine.yaml --annotations train.json --annotations val.json --out cut
    """
    from regionclip_cli.data.detection_sets.open_vocabulary_coco import cut

    console = ctx.ensure_object(Console)
    for made in cut(split, annotations, out, console.warn):
        if as_json:
            console.json({**vars(made), "path": str(made.path)})
        else:
            console.note(f"{made.classes} classes, {made.images:,} images, {made.annotations:,} boxes:")
            console.line(str(made.path))
