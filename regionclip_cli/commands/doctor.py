"""`regionclip doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from regionclip_cli.stages.doctor import Report


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", metavar="", help="Print Markdown for a bug report.")] = False,
) -> ExitCode:
    """Show versions, devices and known problems.

    Checks the installed packages, device, compiled operators, packaged model,
    cache folder and plugins. Changes nothing and sends nothing. Exit code: 0
    if everything works, 5 if something is missing, 4 if only a plugin is
    broken.

    [bold]Examples:[/bold]
      regionclip doctor
      regionclip doctor --markdown
    """
    if as_json and markdown:
        raise UsageError("--json and --markdown cannot be combined.", "Use one of them.")
    console = context.ensure_object(Console)
    console.progress().start("Loading libraries", None, "")
    from regionclip_cli.stages.doctor import examine

    report = examine()
    if as_json:
        console.json(report.as_dict())
    elif markdown:
        _show_markdown(report, console)
    else:
        _show(report, console)
    return report.code


def _show(report: Report, console: Console) -> None:
    console.facts(_facts(report))
    console.line()
    console.facts({name: version or "not installed" for name, version in report.versions.items()})
    for check in report.problems:
        console.error(f"{check.name}: {check.problem}", check.hint)


def _show_markdown(report: Report, console: Console) -> None:
    for heading, facts in (("", _facts(report)), ("package", report.versions)):
        console.line(f"| {heading} | |\n|---|---|")
        for name, value in facts.items():
            console.line(f"| {name} | {str(value or 'not installed').replace('|', '/')} |")
        console.line()
    for check in report.problems:
        console.line(f"* **{check.name}**: {check.problem} {check.hint}".rstrip())


def _facts(report: Report) -> dict[str, str]:
    machine = report.machine
    memory = f", {machine.memory_gib} GiB memory" if machine.memory_gib else ""
    facts = {
        "python": f"{machine.python} ({machine.executable})",
        "machine": f"{machine.platform}, {machine.cores} cores{memory}",
    }
    return facts | {check.name: "BROKEN" if check.problem else check.fact for check in report.checks}
