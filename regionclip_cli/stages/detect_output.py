"""The output folder of `detect`: the journal of detections, the formats rendered from it, failures and settings."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from regionclip_cli import plugins
from regionclip_cli.data.images import ImageInput
from regionclip_cli.data.pixels import MAX_PIXELS, read_image
from regionclip_cli.errors import MissingError, OutputError, PluginError, RegionClipError, UsageError, did_you_mean
from regionclip_cli.files import Journal, check_folder, replacing
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.records import JournalRecords
from regionclip_cli.results.writers import WRITERS
from regionclip_cli.runs.log import open_log
from regionclip_cli.runs.progress import Progress, Silent
from regionclip_cli.specs import WriterSpec

DETECTIONS, RUN, ERRORS, LOG = "detections.jsonl", "run.json", "errors.jsonl", "run.log"
Render = Callable[..., Any]


@dataclass(frozen=True)
class Format:
    """One output format of a run.

    Attributes:
        spec: Its description.
        render: Writes it.
        plugin: The plugin that it comes from, or None for a built-in format.
        options: Keyword arguments of `render`.
    """

    spec: WriterSpec
    render: Render
    plugin: plugins.Entry | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def blame(self) -> AbstractContextManager[None]:
        """Turn any error of a plugin's code in the block into a `PluginError` that names the plugin."""
        return nullcontext() if self.plugin is None else plugins.blame(self.plugin)


class OutputFolder:
    """Where a run of `detect` writes.

    `detections.jsonl` grows by one line per image. `close` renders the formats from it, so a format can be added to a
    finished run. Besides there are `run.json` (what decides the results), `run.log`, and `errors.jsonl` with
    `{"image", "error"}` for every image that failed, if any did.

    Args:
        folder: The folder; `open` creates it.
        formats: Names of formats, built-in or from plugins.
        resume: Continue the run in the folder.
        max_pixels: Largest image that may be read again for a format.
        options: Options of formats, each as `NAME.KEY=VALUE`.

    Raises:
        UsageError: A format or an option is unknown, or the folder holds results and `resume` is not set, or another
            program wrote them.
        PluginError: A format's package is broken.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[str],
        resume: bool,
        max_pixels: int = MAX_PIXELS,
        options: Sequence[str] = (),
    ) -> None:
        self.folder, self.resume, self.max_pixels = folder, resume, max_pixels
        self.log: logging.Logger
        self.formats = with_options([find_format(name) for name in dict.fromkeys(formats)], options)
        self._piped: dict[str, np.ndarray] = {}
        check_folder(folder)
        self._before = _read_run(folder / RUN) if resume else {}
        written = self._before.get("formats", [])
        fresh = [form for form in self.formats if form.spec.name not in written]
        names = [output for form in fresh for output in form.spec.outputs]
        names += [] if written else [DETECTIONS, ERRORS]
        if held := [name for name in names if _has_content(folder / name)]:
            raise UsageError(
                f"{folder} already holds results of another run ({held[0]}).",
                "Choose another folder with --out."
                if resume
                else "Add --resume to continue that run, or choose another folder with --out.",
            )

    def open(self, labels: Sequence[str], about: Mapping[str, Any]) -> None:
        """Create the folder and open the journal.

        Args:
            labels: The class names.
            about: What decides the results; a run that is resumed must have had the same.

        Raises:
            UsageError: The run in the folder had other settings.
            OutputError: The folder cannot be written.
        """
        _compare(self.folder, self._before, about)
        for form in self.formats:
            if form.spec.check:
                with form.blame():
                    pkgutil.resolve_name(form.spec.check)(tuple(labels), **form.options)
        names = [form.spec.name for form in self.formats]
        content = {**about, "formats": list(dict.fromkeys([*self._before.get("formats", []), *names, "jsonl"]))}
        with replacing(self.folder / RUN) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
        self.labels = tuple(labels)
        self.log = open_log(self.folder / LOG)
        self._errors: Journal | None = None
        self._recovered: set[str] = set()
        self._journal = Journal(self.folder / DETECTIONS, self.resume)
        if self.resume and (self.folder / ERRORS).exists():
            self._errors = Journal(self.folder / ERRORS, resume=True)

    def has(self, name: str) -> bool:
        """Return whether the journal has this image."""
        return name in self._journal

    def write(self, found: ImageDetections, path: Path | None = None, pixels: np.ndarray | None = None) -> None:
        """Append one image to the journal.

        Args:
            found: Its detections.
            path: Its file, None for standard input.
            pixels: RGB uint8 (H, W, 3) of an image from standard input, which no format could read again.
        """
        record = found.to_json()
        if path is not None and os.path.abspath(path) != os.path.abspath(found.image):
            record["path"] = os.path.abspath(path)
        if pixels is not None:
            self._piped[found.image] = pixels
        self._journal.append(record)
        if self._errors is not None and found.image in self._errors:
            self._recovered.add(found.image)
        self.log.debug("%s: %d detections", found.image, len(found))

    def fail(self, name: str, message: str) -> None:
        """Add an image to the list of failures."""
        if self._errors is None:
            self._errors = Journal(self.folder / ERRORS)
        if name not in self._errors:
            self._errors.append({"image": name, "error": message})
        self.log.error("%s", message)

    def close(self, progress: Progress | None = None) -> Rendered:
        """Render every format, and drop images from the list of failures that succeeded this time.

        A format that fails does not stop the others.

        Raises:
            OutputError: A built-in format could not be written; raised when the others are done.
        """
        self._journal.close()
        rendered, refused = self._render(progress or Silent())
        if self._errors is not None:
            self._errors.close()
            if self._recovered:
                self._forget(self._errors)
        self._end_log()
        if refused is not None:
            raise refused
        return rendered

    def abort(self, reason: BaseException) -> None:
        """Close all files; what was written is complete, and the run can be resumed."""
        self.log.error("stopped: %s", str(reason) or type(reason).__name__)
        for journal in (self._journal, self._errors):
            if journal is not None:
                with suppress(OutputError):
                    journal.close()
        self._end_log()

    def _render(self, progress: Progress) -> tuple[Rendered, RegionClipError | None]:
        """Render every format; return what went wrong, and the first error of a built-in format."""
        skipped: dict[str, None] = {}
        broken: list[str] = []
        refused: RegionClipError | None = None

        def skip(image: str, reason: str) -> None:
            skipped[image] = None
            self.log.error("%s: %s", form.spec.name, reason)
            progress.warn(f"{reason} It is left out of the format {form.spec.name!r}.")

        for form in self.formats:
            if form.spec.name == "jsonl":
                continue
            bar = _Bar(progress)
            records = JournalRecords(self._journal, self._read, self._piped, skip, bar.reach)
            progress.start(f"Writing {form.spec.name}", len(records), "images")
            try:
                with form.blame():
                    form.render(records, self.folder, self.labels, **form.options)
            except RegionClipError as err:
                self.log.error("%s", err)
                if form.plugin is not None:
                    progress.warn(str(err))
                    broken.append(form.spec.name)
                elif refused is None:
                    refused = err
            finally:
                progress.finish()
        return Rendered(tuple(skipped), tuple(broken)), refused

    def _read(self, name: str, path: Path) -> np.ndarray:
        return read_image(ImageInput(name, path), self.max_pixels)

    def _forget(self, errors: Journal) -> None:
        left = [record for record in errors.records() if record["image"] not in self._recovered]
        if not left:
            with suppress(FileNotFoundError):
                errors.path.unlink()
            return
        with replacing(errors.path) as file:
            file.writelines(json.dumps(record).encode() + b"\n" for record in left)

    def _end_log(self) -> None:
        for handler in list(self.log.handlers):
            handler.close()
            self.log.removeHandler(handler)


@dataclass(frozen=True)
class Rendered:
    """What went wrong while formats were rendered.

    Attributes:
        skipped: Names of images that a format left out.
        broken: Names of plugin formats that failed.
    """

    skipped: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


class _Bar:
    """Advances a progress bar to the furthest record reached in any pass."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._reached = progress, 0

    def reach(self, number: int) -> None:
        if number > self._reached:
            self._progress.advance(number - self._reached)
            self._reached = number


def find_format(name: str) -> Format:
    """Import the function behind a format.

    Raises:
        UsageError: The format is unknown.
        PluginError: Its plugin is broken.
        MissingError: It needs a package that is not installed.
    """
    if name in WRITERS:
        check_requirements(WRITERS[name])
        return Format(WRITERS[name], pkgutil.resolve_name(WRITERS[name].render), None)
    entry = plugins.lookup("writers", name)
    spec: WriterSpec = plugins.load(entry)
    check_requirements(spec)
    with plugins.blame(entry):
        render = pkgutil.resolve_name(spec.render)
        check_render(spec, render)
    return Format(spec, render, entry)


def check_requirements(spec: WriterSpec) -> None:
    """Check that the packages a format needs are installed.

    Raises:
        MissingError: One is not.
    """
    for package in spec.requires:
        if importlib.util.find_spec(package) is None:
            install = f'"regionclip-cli[{spec.extra}]"' if spec.name in WRITERS else package
            raise MissingError(
                f"The format {spec.name!r} needs the package {package}, which is not installed.",
                f"pip install {install}",
            )


def with_options(formats: Sequence[Format], texts: Sequence[str]) -> list[Format]:
    """Return formats with options, each given as `NAME.KEY=VALUE`; the value is read as YAML.

    Raises:
        UsageError: A text has another form, or names a format or option that is not there, or a value of another type.
    """
    chosen = {form.spec.name: dict(form.spec.options) for form in formats}
    for text in texts:
        key, equals, value = text.partition("=")
        name, _, option = key.strip().partition(".")
        if not equals or not option:
            raise UsageError(
                f"The format option {text!r} is not of the form NAME.KEY=VALUE.", "Such as yolo.scores=true."
            )
        if name not in chosen:
            raise UsageError(
                f"The format option {text!r} is for {name!r}, which is not among the formats.", f"Add --format {name}."
            )
        if option not in chosen[name]:
            known = ", ".join(chosen[name]) or "none"
            hint = f"{did_you_mean(option, chosen[name])} Options: {known}.".strip()
            raise UsageError(f"The format {name!r} has no option {option!r}.", hint)
        chosen[name][option] = _option_value(key, value, chosen[name][option])
    return [replace(form, options=chosen[form.spec.name]) for form in formats]


def _option_value(key: str, text: str, default: Any) -> Any:
    """Return the value of an option, of its default's type."""
    kind = str if default is None else type(default)
    if kind is str:
        return text.strip()
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        names = {bool: "true or false", int: "a whole number", float: "a number"}
        raise UsageError(f"The format option {key} must be {names.get(kind, kind.__name__)}, not {text!r}.")
    return value


def check_render(spec: WriterSpec, render: Any) -> None:
    """Check that a format's code is a function.

    Raises:
        PluginError: It is a class, as before 0.1.0, or cannot be called.
    """
    if isinstance(render, type) or not callable(render):
        raise PluginError(
            f"Writer {spec.name!r} names {spec.render!r}, which is not a function.",
            "A writer is a function render(records, folder, labels); update its package.",
        )


def _has_content(path: Path) -> bool:
    """Return whether there is a non-empty file or folder."""
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except OSError:
        return False


def _read_run(path: Path) -> dict[str, Any]:
    """Return the settings of the run in the folder; empty when there was none.

    Raises:
        UsageError: The file is damaged.
    """
    try:
        before = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        before = None
    if not isinstance(before, dict) or not isinstance(before.get("formats", []), list):
        raise UsageError(f"{path} is damaged, so the run cannot be resumed.", "Choose another folder with --out.")
    return before


def _compare(folder: Path, before: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuse to mix results of different settings in one folder."""
    for key, value in json.loads(json.dumps(about)).items():
        if key != "version" and key in before and before[key] != value:
            raise UsageError(
                f"The run in {folder} had {key} = {_short(before[key])}, and this one has {_short(value)}.",
                "Resume with the same settings, or choose another folder with --out.",
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
