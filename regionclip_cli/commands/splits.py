"""`regionclip splits`: list base/novel class splits, and split COCO annotation files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regionclip_cli.commands import completion
from regionclip_cli.console import Console

app = typer.Typer(
    help="List class splits and split COCO annotation files.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command("ls")
def list_splits(
    ctx: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object per split, with its classes.")
    ] = False,
) -> None:
    """List the built-in splits into base and novel classes.

    --json includes the class names.

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
        console.table(("name", "base", "novel", "description"), rows)


@app.command("cut")
def cut_files(
    ctx: typer.Context,
    split: Annotated[
        str,
        typer.Argument(
            metavar="SPLIT",
            help="Name from `splits ls`, or a .yaml or .json file with base and novel.",
            autocompletion=completion.splits,
        ),
    ],
    annotations: Annotated[list[Path], typer.Option(help="COCO annotation file; can be repeated.")],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per file.")] = False,
) -> None:
    """Split COCO annotation files by base and novel classes.

    instances_val2017.json becomes ovd_ins_val2017_b.json (base classes),
    _t.json (novel classes) and _all.json (both). Images without boxes are
    omitted.

    [bold]Examples:[/bold]
      regionclip splits cut coco-48-17 --out ovd \\
          --annotations instances_val2017.json
      regionclip splits cut mine.yaml --out cut \\
          --annotations train.json --annotations val.json
    """
    from regionclip_cli.data.detection_sets.open_vocabulary_coco import cut

    console = ctx.ensure_object(Console)
    for made in cut(split, annotations, out, console.warn):
        if as_json:
            console.json({**vars(made), "path": str(made.path)})
        else:
            console.note(f"{made.classes} classes, {made.images:,} images, {made.annotations:,} boxes:")
            console.line(str(made.path))
