"""Subcommands, one per file: signature, help, examples and one call.

How to add one:

1. Write `commands/<name>.py` with either a plain function whose parameters are Typer-annotated (`detect`), or, for
   a command group (`models ls`), a `typer.Typer` object named `app`.
2. Add a row to `BUILT_IN` in `regionclip_cli/app.py`: name, `module:attribute`, and the summary that
   `regionclip --help` shows. A test keeps that summary equal to the first line of the command's own help.

The module is imported only when the command runs or its help is shown, and must import quickly: at module level, import
`typer`, `recipe`, `errors` and `console`, never torch, numpy or a stage. Import the stage inside the function, right
before the call:

    def detect(
        ctx: typer.Context,
        inputs: Annotated[list[str], typer.Argument(help="Images, folders, globs, or - for stdin.")],
        conf: Annotated[float, typer.Option(help=describe("conf"), min=0, max=1)] = default("conf"),
        as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per image.")] = False,
    ) -> ExitCode:
        '''Find objects by name in images.

        Unreadable images are reported and skipped.

        [bold]Examples:[/bold]
          regionclip detect kitchen.jpg --classes "cat,kettle"
        '''
        console = ctx.ensure_object(Console)                       # from regionclip_cli.console import Console
        settings = DetectSettings(...)
        from regionclip_cli.stages.detect import run

        result = run(settings, console.progress())
        return ExitCode.SOME_FAILED if result.errors else ExitCode.OK

What a command can rely on:

* The return value is the exit code: an `ExitCode`, or None for 0. Never call `sys.exit`.
* Raise user errors as `RegionClipError`; `app.main` prints them. Do not catch and print.
* `console.json(value)` writes a JSON line to stdout, `console.line(text)` a line of text, `console.table(...)` a table
  (`to="stderr"` for messages rather than results). `console.note`, `console.warn` and `console.detail` (only with
  `-v`) write to stderr. `console.progress()` is a `Progress` for a stage: a bar on a terminal, otherwise a line every
  5 %. All of them respect `-q`, `NO_COLOR` and pipes.
* `-q`, `-v`, `--offline` and `--version` belong to the root command and are never repeated in a subcommand.
  `--offline` sets `HF_HUB_OFFLINE=1` before the command runs.
* The docstring is the help text, in Rich markup. Line breaks after the first paragraph are kept, so keep lines under 77
  characters. Examples need a paragraph before them, or rich drops their indentation. Write a literal `[` that could be
  read as a style as `\\[`.
* `metavar=""` omits Typer's `<bool>` after a flag.
"""
