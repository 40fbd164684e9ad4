"""What other packages add, and what this one brings itself: found without an import, loaded by name, told apart.

A package offers a backbone, dataset, writer or command as an entry point of the group `regionclip.<kind>`; its target
is a `BackboneSpec`, `DatasetSpec`, `WriterSpec` or `typer.Typer`. Names are read from package metadata, so listing
and spelling help import nothing. Only what is asked for by name is imported, and what breaks then is the trouble of
whoever asked, told as one `PluginError` that names the distribution.

`REGIONCLIP_PLUGINS` chooses: unset, all plugins count; empty, none; `a,b`, only those of these two distributions.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, overload

from regionclip_cli import __version__
from regionclip_cli.errors import PluginError, RegionClipError, UsageError, did_you_mean
from regionclip_cli.specs import BackboneSpec, DatasetSpec, WriterSpec

OWN = "regionclip-cli"
"""The distribution that our own specs come from."""
SWITCH = "REGIONCLIP_PLUGINS"
Spec = BackboneSpec | DatasetSpec | WriterSpec
SPECS: Mapping[str, type[Any]] = {"backbones": BackboneSpec, "datasets": DatasetSpec, "writers": WriterSpec}
KINDS = (*SPECS, "commands")
BUILT_IN: Mapping[str, str] = {
    "backbones": "regionclip_cli.hub.backbones:BACKBONES",
    "writers": "regionclip_cli.results.writers:WRITERS",
}
"""Where this package keeps its own specs: dotted location of a mapping from name to spec, imported on demand."""
RESERVED: Mapping[str, frozenset[str]] = {
    "commands": frozenset(
        {
            "concepts",
            "detect",
            "doctor",
            "evaluate",
            "finetune",
            "models",
            "plugins",
            "pretrain",
            "pseudolabel",
            "recipes",
            "splits",
            "train-proposals",
        }
    )
}
"""Names that are taken although no mapping holds them: the subcommands of this package."""


@dataclass(frozen=True)
class Entry:
    """One offer of an installed package, not yet imported.

    Attributes:
        kind: One of `KINDS`.
        name: What users type.
        distribution: The installed package it comes from.
        version: Version of that package.
        location: `module:attribute` of the object behind it.
    """

    kind: str
    name: str
    distribution: str
    version: str
    location: str


@dataclass(frozen=True)
class Offer:
    """One backbone, dataset, writer or command that can be used, or the reason why it cannot.

    Attributes:
        kind: One of `KINDS`.
        name: What users type.
        distribution: The package it comes from; `regionclip-cli` for our own.
        version: Version of that package.
        summary: What the spec says about itself; empty when it could not be read.
        problem: What is wrong and what to do, empty when nothing is.
    """

    kind: str
    name: str
    distribution: str
    version: str
    summary: str = ""
    problem: str = ""


def entries(kind: str) -> list[Entry]:
    """Return what installed packages offer of `kind`, by name; nothing is imported."""
    allowed = _allowed()
    if allowed is not None and not allowed:
        return []
    found = []
    for point in entry_points(group=f"regionclip.{kind}"):
        distribution, version = _origin(point)
        if allowed is None or _plain(distribution) in allowed:
            found.append(Entry(kind, point.name, distribution, version, point.value))
    return sorted(set(found), key=lambda entry: (entry.name, entry.distribution))


def names(kind: str) -> list[str]:
    """Return every name of `kind` that can be asked for: our own first, then those of other packages."""
    own = list(_built_in(kind))
    return own + sorted({entry.name for entry in entries(kind)} - set(own) - RESERVED.get(kind, frozenset()))


@overload
def find(kind: Literal["backbones"], name: str) -> BackboneSpec: ...
@overload
def find(kind: Literal["datasets"], name: str) -> DatasetSpec: ...
@overload
def find(kind: Literal["writers"], name: str) -> WriterSpec: ...
@overload
def find(kind: str, name: str) -> Any: ...
def find(kind: str, name: str) -> Any:
    """Return the spec (or `typer.Typer`) called `name`, importing it and nothing else.

    Raises:
        UsageError: No such name; the hint tells the nearest ones.
        PluginError: The package that offers it failed to load, offers something of another type, or two packages
            offer the same name.
    """
    own = _built_in(kind)
    return own[name] if name in own else load(lookup(kind, name))


def lookup(kind: str, name: str) -> Entry:
    """Return the one offer of other packages that is called `name`; nothing but our own specs is imported.

    Raises:
        UsageError: No such name; the hint tells the nearest ones.
        PluginError: Two packages offer the same name.
    """
    matching = [entry for entry in entries(kind) if entry.name == name]
    if not matching:
        known = names(kind)
        hint = did_you_mean(name, known) or (f"Available: {', '.join(known)}." if known else "None is installed.")
        raise UsageError(f"Unknown {kind[:-1]} {name!r}.", hint)
    if len(matching) > 1:
        packages = [entry.distribution for entry in matching]
        raise PluginError(
            f"The {kind[:-1]} {name!r} is provided by {' and '.join(packages)}.",
            f"Uninstall one of them, or allow only one: {SWITCH}={packages[0]}.",
        )
    return matching[0]


def load(entry: Entry) -> Any:
    """Import what `entry` points at and check its type.

    Raises:
        PluginError: It cannot be imported, is of another type, or calls itself by another name.
    """
    if entry.name in RESERVED.get(entry.kind, frozenset()) or entry.name in _built_in(entry.kind):
        raise _refusal(entry, f"the name {entry.name!r} belongs to regionclip itself")
    with blame(entry):
        target = EntryPoint(entry.name, entry.location, f"regionclip.{entry.kind}").load()
    expected = _expected(entry.kind)
    if not isinstance(target, expected):
        raise _refusal(entry, f"{entry.location} is a {type(target).__name__} and not a {expected.__name__}")
    if isinstance(target, Spec) and target.name != entry.name:
        raise _refusal(entry, f"its spec calls itself {target.name!r}")
    return target


@contextmanager
def blame(entry: Entry, allowed: tuple[type[BaseException], ...] = (RegionClipError,)) -> Iterator[None]:
    """Turn whatever a plugin's code raises in this block into one `PluginError` that names the package.

    Those in `allowed` pass as they are, and so does a closed pipe.
    """
    try:
        yield
    except allowed:
        raise
    except BrokenPipeError:
        raise
    except (Exception, SystemExit) as err:
        raise _refusal(entry, f"{type(err).__name__}: {' '.join(str(err).split())}") from err


def describe() -> list[Offer]:
    """Return everything on offer, each with its summary or with the problem that keeps it from being used.

    Reads every spec, so it imports the modules that hold them; one that fails costs only its own line.
    """
    found = []
    for kind in KINDS:
        for name, spec in _built_in(kind).items():
            found.append(Offer(kind, name, OWN, __version__, spec.summary))
        offered = entries(kind)
        for entry in offered:
            twins = [other.distribution for other in offered if other.name == entry.name and other != entry]
            summary, problem = "", f"The name is also offered by {', '.join(twins)}." if twins else ""
            if not problem:
                try:
                    summary = _summary(load(entry))
                except RegionClipError as err:
                    problem = str(err)
            found.append(Offer(kind, entry.name, entry.distribution, entry.version, summary, problem))
    return found


def removal(distribution: str) -> str:
    """Return the hint on how to be rid of a broken plugin."""
    return f"Remove it with `pip uninstall {distribution}`, or ignore all plugins with {SWITCH}=''."


def _built_in(kind: str) -> Mapping[str, Any]:
    """Return our own specs of `kind`; named by string because this room may not import theirs."""
    if kind not in BUILT_IN:
        return {}
    module, _, attribute = BUILT_IN[kind].partition(":")
    specs: Mapping[str, Any] = getattr(importlib.import_module(module), attribute)
    return specs


def _expected(kind: str) -> type[Any]:
    if kind in SPECS:
        return SPECS[kind]
    import typer

    return typer.Typer


def _summary(target: Any) -> str:
    if isinstance(target, Spec):
        return target.summary
    words = target.info.help if isinstance(target.info.help, str) else ""
    return words.strip().partition("\n")[0]


def _refusal(entry: Entry, reason: str) -> PluginError:
    return PluginError(
        f"The {entry.kind[:-1]} {entry.name!r} of the plugin {entry.distribution} {entry.version} is broken: {reason}.",
        removal(entry.distribution),
    )


def _origin(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "unknown", ""
    return point.dist.name or "unknown", point.dist.version or ""


def _allowed() -> frozenset[str] | None:
    """Return the distributions that `REGIONCLIP_PLUGINS` lets in; None when it is unset and all may come."""
    chosen = os.environ.get(SWITCH)
    if chosen is None:
        return None
    return frozenset(_plain(name) for name in chosen.split(",") if name.strip())


def _plain(distribution: str) -> str:
    """Return a distribution name as package indexes compare it: lower case, any run of `-_.` is one dash."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()
