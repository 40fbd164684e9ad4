"""Check that plugins work: build backbones, render with writers, check datasets, load commands."""

from __future__ import annotations

import math
import pkgutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionclip_cli import plugins
from regionclip_cli.errors import PluginError, RegionClipError
from regionclip_cli.runs.progress import Progress
from regionclip_cli.specs import BackboneSpec, DatasetSpec, WriterSpec

REGIONS = 2
"""Number of regions R pooled when checking a backbone."""


@dataclass(frozen=True)
class Outcome:
    """Result of one check.

    Attributes:
        kind: One of `plugins.KINDS`.
        name: Name that users type.
        distribution: Package that provides it.
        fact: Summary of a passed check.
        problem: Error of a failed check, else empty.
        hint: How to solve the problem.
    """

    kind: str
    name: str
    distribution: str
    fact: str = ""
    problem: str = ""
    hint: str = ""


def check(progress: Progress, *, built_in: bool = False) -> list[Outcome]:
    """Check every plugin; a failure does not affect the others.

    Args:
        progress: Progress over the plugins.
        built_in: Also check the built-in parts, which builds some large networks.
    """
    offers = [offer for offer in plugins.describe() if built_in or offer.distribution != plugins.OWN]
    if not offers:
        return []
    outcomes = []
    progress.start("Checking plugins", len(offers), "checks")
    for offer in offers:
        outcomes.append(_try(offer))
        progress.advance()
    progress.finish()
    return outcomes


def _try(offer: plugins.Offer) -> Outcome:
    """Check one plugin and record any exception as its problem."""

    def outcome(fact: str = "", problem: str = "", hint: str = "") -> Outcome:
        return Outcome(offer.kind, offer.name, offer.distribution, fact, problem, hint)

    if offer.problem:
        return outcome(problem=offer.problem)
    hint = "" if offer.distribution == plugins.OWN else plugins.removal(offer.distribution)
    try:
        return outcome(fact=CHECKS[offer.kind](plugins.find(offer.kind, offer.name)))
    except RegionClipError as err:
        return outcome(problem=err.message, hint=err.hint or hint)
    except Exception as err:  # noqa: BLE001 - plugin code may raise anything
        return outcome(problem=f"{type(err).__name__}: {' '.join(str(err).split())}", hint=hint)


def check_backbone(spec: BackboneSpec) -> str:
    """Build the network with random weights, send a small image through it, and compare shapes with the promises.

    Raises:
        PluginError: A shape is another one, or a number is not finite.
    """
    import torch

    from regionclip_cli.vision.backbones.build import build_backbone

    backbone = build_backbone(spec.name).eval()
    height, width = 4 * spec.stride, 6 * spec.stride
    with torch.inference_mode():
        features = backbone.trunk(backbone.normalise(torch.full((1, 3, height, width), 128.0)))
        regions = torch.zeros(REGIONS, spec.channels, spec.pool_size, spec.pool_size)
        embeddings = backbone.pool(regions)
    cells = (math.ceil(height / spec.stride), math.ceil(width / spec.stride))
    _expect(spec.name, f"trunk of a {width}x{height} image", (1, spec.channels, *cells), tuple(features.shape))
    _expect(spec.name, f"pool of {REGIONS} regions", (REGIONS, spec.embed_dim), tuple(embeddings.shape))
    if backbone.pool_size != spec.pool_size:
        raise PluginError(
            f"Backbone {spec.name!r} has pool_size {backbone.pool_size}, but its spec states {spec.pool_size}."
        )
    if not (features.isfinite().all() and embeddings.isfinite().all()):
        raise PluginError(f"Backbone {spec.name!r} outputs NaN or Inf with random weights.")
    weights = sum(parameter.numel() for parameter in backbone.parameters())
    return f"{weights / 1e6:.1f} M weights, stride {spec.stride}, D = {spec.embed_dim}"


def check_dataset(spec: DatasetSpec) -> str:
    """Check the loader and the class names; no image is read.

    Raises:
        PluginError: The loader does not exist or is not callable, or a class name is empty or duplicated.
    """
    try:
        loader = pkgutil.resolve_name(spec.loader)
    except (AttributeError, ImportError, ValueError) as err:
        raise PluginError(f"The loader {spec.loader!r} of dataset {spec.name!r} cannot be imported: {err}") from err
    if not callable(loader):
        raise PluginError(f"The loader {spec.loader!r} of dataset {spec.name!r} is not callable.")
    twice = [name for name, times in Counter(spec.classes).items() if times > 1]
    if twice:
        raise PluginError(f"Dataset {spec.name!r} has duplicate classes: {', '.join(twice)}.")
    if not all(name.strip() for name in spec.classes):
        raise PluginError(f"Dataset {spec.name!r} has a class with an empty name.")
    return f"{len(spec.classes)} classes: {', '.join(spec.classes)}" if spec.classes else "captions, no classes"


def check_writer(spec: WriterSpec) -> str:
    """Render two small images, one without detections, into a temporary folder, and look at what was written.

    Raises:
        PluginError: The code is not a function, an output that the spec names is missing, or a `.part` file is left.
        MissingError: It needs a package that is not installed.
    """
    import numpy as np
    from PIL import Image

    from regionclip_cli.files import Journal
    from regionclip_cli.results.detections import ImageDetections
    from regionclip_cli.results.records import JournalRecords
    from regionclip_cli.stages.detect_output import check_render, check_requirements

    check_requirements(spec)
    try:
        render = pkgutil.resolve_name(spec.render)
    except (AttributeError, ImportError, ValueError) as err:
        raise PluginError(f"Writer {spec.name!r} names {spec.render!r}, which cannot be imported: {err}") from err
    check_render(spec, render)
    boxes, scores = np.array([[4, 4, 20, 16]], np.float32), np.array([0.75], np.float32)
    found = ImageDetections("a.png", 32, 24, boxes, scores, ("kettle",), np.array([1]))
    nothing = ImageDetections("folder/b.png", 32, 24, boxes[:0], scores[:0], (), np.array([], int))
    with tempfile.TemporaryDirectory(prefix="regionclip-check-") as temporary:
        folder, image = Path(temporary, "out"), Path(temporary, "image.png")
        folder.mkdir()
        Image.new("RGB", (32, 24)).save(image)
        journal = Journal(Path(temporary, "detections.jsonl"))
        for detections in (found, nothing):
            journal.append({**detections.to_json(), "path": str(image)})
        journal.close()
        render(
            JournalRecords(journal, lambda name, path: np.array(Image.open(path))),
            folder,
            ("cat", "kettle"),
            **spec.options,
        )
        names = sorted(path.name for path in folder.iterdir())
        partial = [name for name in names if name.endswith(".part")]
        absent = [name for name in spec.outputs if not (folder / name).exists()]
    if partial or absent:
        problem = f"leaves {', '.join(partial)} behind" if partial else f"did not write {', '.join(absent)}"
        raise PluginError(f"Writer {spec.name!r} {problem}.")
    return f"wrote {', '.join(names) or 'nothing'}"


def check_command(command: Any) -> str:
    """Say what loading the command has shown already: that it is a `typer.Typer`."""
    return "loads"


def _expect(name: str, what: str, promised: tuple[int, ...], found: tuple[int, ...]) -> None:
    if promised != found:
        raise PluginError(f"Backbone {name!r}: the {what} has shape {found}, but its spec implies {promised}.")


CHECKS: dict[str, Callable[[Any], str]] = {
    "backbones": check_backbone,
    "datasets": check_dataset,
    "writers": check_writer,
    "commands": check_command,
}
