"""Subcommands, one a file: signature, help, examples, one call.

How to add one:

1. Write `commands/<name>.py` with either a plain function whose parameters are Typer-annotated (`detect`), or, for
   verbs below a noun (`models ls`), a `typer.Typer` object named `app`. Do not register it anywhere in the file.
2. Add one line to `BUILT_IN` in `regionclip_cli/app.py`: name, `module:attribute`, and the one-line summary that
   `regionclip --help` shows. A test keeps that summary equal to the first line of the command's own help.

The module is imported only when its command is called or its help is asked for, and that must be cheap: at module
level import `typer`, `recipe`, `errors` and `console`, never torch, numpy or a stage. Import the stage inside the
function, right before the one call:

    def detect(
        ctx: typer.Context,
        inputs: Annotated[list[str], typer.Argument(help="Images, folders, globs, or - for stdin.")],
        conf: Annotated[float, typer.Option(help=describe("conf"), min=0, max=1)] = default("conf"),
        as_json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object an image.")] = False,
    ) -> ExitCode:
        '''Find objects by name in images.

        [bold]Examples:[/bold]
          regionclip detect kitchen.jpg --classes "cat,kettle"
        '''
        console = ctx.ensure_object(Console)                       # from regionclip_cli.console import Console
        settings = DetectSettings(...)
        from regionclip_cli.stages.detect import run

        result = run(settings, console.progress())
        return ExitCode.SOME_FAILED if result.errors else ExitCode.OK

What a command may rely on:

* The return value is the exit code: an `ExitCode`, or None for 0. Never call `sys.exit`.
* Errors for users are raised as `RegionClipError`; the boundary in `app.main` prints them. Do not catch and print.
* `console.json(value)` writes one JSON line to stdout, `console.line(text)` one line of text, `console.table(...)` a
  table (`to="stderr"` when it is talk and not the data asked for). `console.note`, `console.warn` and `console.detail`
  (only with `-v`) go to stderr. `console.progress()` is a `Progress` for a stage: a bar on a terminal, else a line
  every 5 %. All of them mind `-q`, `NO_COLOR` and pipes.
* `-q`, `-v`, `--offline`, `--version` belong to the root and are never repeated in a command. `--offline` sets
  `HF_HUB_OFFLINE=1` in this process before the command runs.
* The docstring is the help text, in Rich markup: line breaks after its first paragraph stay as written (keep lines
  under 76 characters), and a literal `[` that could be read as a style is written as a backslash and `[`.
* `metavar=""` keeps Typer from writing `<bool>` behind a flag.
"""
