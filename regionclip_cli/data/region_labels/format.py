"""One row of a shard: the labelled regions of one image, or why it has none."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regionclip_cli.errors import MissingError, OutputError, UsageError
from regionclip_cli.files import parsing, whole_file


class RegionLabel(NamedTuple):
    """The regions of one image that a teacher has named (RegionCLIP section 3.2); R may be 0.

    Attributes:
        size: Width and height of the upright image in pixels.
        boxes: (R, 4) float32 xyxy in pixels of that image, the likeliest object first where a network proposed them.
        objectness: (R,) float32 in 0..1, or None where nobody judged the boxes.
        concepts: (R, k) int64, rows of the concept bank, the best one first; column 0 is the pseudo label.
        probs: (R, k) float32, their probabilities among all C concepts; a row sums to 1 only when k is C.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    objectness: np.ndarray | None
    concepts: np.ndarray
    probs: np.ndarray


class Row(NamedTuple):
    """A row as it stands in a shard.

    Attributes:
        key: Of the image.
        label: Its regions, or None for an image that could not be read.
        error: Why it could not be read, else an empty text.
    """

    key: str
    label: RegionLabel | None
    error: str = ""


def format_row(row: Row) -> bytes:
    """Return a row as one line of JSON: boxes with 2 decimals, probabilities and objectness with 4."""
    if row.label is None:
        record: dict[str, Any] = {"key": row.key, "error": row.error}
    else:
        label = row.label
        record = {
            "key": row.key,
            "size": [int(side) for side in label.size],
            "boxes": _rounded(label.boxes, 2),
            "objectness": None if label.objectness is None else _rounded(label.objectness, 4),
            "concepts": label.concepts.tolist(),
            "probs": _rounded(label.probs, 4),
        }
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def parse_row(line: bytes, where: str, kept: int, names: int | None = None) -> Row:
    """Read a line back.

    Args:
        line: Of a shard.
        where: File and row, for messages.
        kept: Concepts k that are kept of a region.
        names: Number C of concepts; None accepts every id from 0.

    Raises:
        UsageError: It is not a row.
    """
    with parsing(f"{where} is not a row of region labels", REPAIR):
        record = json.loads(line)
        if "error" in record:
            return Row(str(record["key"]), None, str(record["error"]))
        width, height = record["size"]
        boxes = np.array(record["boxes"], np.float32).reshape(-1, 4)
        count = len(boxes)
        objectness = None if record["objectness"] is None else np.array(record["objectness"], np.float32)
        concepts = np.array(record["concepts"], np.int64).reshape(count, kept)
        probs = np.array(record["probs"], np.float32).reshape(count, kept)
        if concepts.size and (concepts.min() < 0 or (names is not None and concepts.max() >= names)):
            raise ValueError(f"it has a concept id outside 0..{'' if names is None else names - 1}")
        if objectness is not None and objectness.shape != (count,):
            raise ValueError("objectness and boxes differ in number")
        return Row(record["key"], RegionLabel((int(width), int(height)), boxes, objectness, concepts, probs))


REPAIR = "`regionclip pseudolabel RECIPE --resume` writes what is missing or damaged again, and keeps the rest."


def _rounded(values: np.ndarray, decimals: int) -> list[Any]:
    """Return nested lists of floats with so many decimals."""
    return np.round(values.astype(np.float64), decimals).tolist()


MANIFEST = "labels.json"
FORMAT = 1


@dataclass(frozen=True)
class LabelManifest:
    """What labels are of.

    Attributes:
        images: Number of images, unreadable ones included.
        shard_size: Images of a shard; the last one may hold fewer.
        names: The C concepts, in the order of their ids.
        kept: How many concepts are kept of a region, k.
        data: Fingerprint of the images and captions.
        bank: The concept bank: model, templates, fingerprint of its embeddings.
        teacher: Name and fingerprint of the model that named the regions.
        proposals: Name and fingerprint of the model that found them; empty where no network did.
        settings: Every other setting that a label depends on.
        format: Version of the layout.
    """

    images: int
    shard_size: int
    names: tuple[str, ...]
    kept: int
    data: str = ""
    bank: Mapping[str, str] = field(default_factory=dict)
    teacher: Mapping[str, str] = field(default_factory=dict)
    proposals: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def shards(self) -> int:
        """Return the number of shards."""
        return -(-self.images // self.shard_size)

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits of all that decides the labels; where and when their images were saved does not."""
        content = json.dumps(asdict(self) | {"data": ""}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def rows_of(self, shard: int) -> range:
        """Return which images, by number, are in a shard."""
        return range(shard * self.shard_size, min(self.images, (shard + 1) * self.shard_size))

    def check_concepts(self, names: Sequence[str]) -> None:
        """See that concept ids of these labels mean the same in a list of names (that of a bank to train with).

        The embeddings may be another model's: ids are names, and names are what teacher and student share.

        Raises:
            UsageError: Number, order or spelling of the concepts differ.
        """
        if tuple(names) == self.names:
            return
        hint = "Label again with this bank, or use the bank that the labels were made with."
        if len(names) != len(self.names):
            raise UsageError(f"The labels are of {len(self.names)} concepts, and the bank has {len(names)}.", hint)
        at = next(i for i, (ours, theirs) in enumerate(zip(self.names, names, strict=True)) if ours != theirs)
        raise UsageError(f"Concept {at} is {self.names[at]!r} in the labels and {names[at]!r} in the bank.", hint)

    def check_same(self, other: LabelManifest, folder: Path) -> None:
        """Refuse to mix labels of two kinds; `self` is what is asked for, `other` what `folder` holds.

        Raises:
            UsageError: They differ; the sentence says in what.
        """
        ours, theirs = dict(_flat(asdict(self))), dict(_flat(asdict(other)))
        differing = [key for key in (*ours, *theirs) if ours.get(key) != theirs.get(key)]
        if differing:
            told = [f"{key} {_short(theirs.get(key))} and not {_short(ours.get(key))}" for key in differing[:3]]
            more = f" ({len(set(differing)) - 3} more differ)" if len(set(differing)) > 3 else ""
            raise UsageError(
                f"The labels in {folder} were made with {', '.join(dict.fromkeys(told))}{more}.",
                "Use the same settings, or another folder (`out=...`).",
            )


def read_manifest(folder: Path) -> LabelManifest:
    """Read the manifest of a folder.

    Raises:
        MissingError: There is none.
        UsageError: It cannot be read, or a newer version wrote it.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise MissingError(f"There are no region labels in {folder}.", "Run `regionclip pseudolabel RECIPE`.")
    with parsing(f"{path} is not a manifest of region labels"):
        content = json.loads(path.read_bytes())
        if content["format"] > FORMAT:
            raise UsageError(
                f"{path} has label format {content['format']}, and this version reads {FORMAT}.",
                "Upgrade regionclip-cli.",
            )
        manifest = LabelManifest(**content | {"names": tuple(map(str, content["names"]))})
        if min(manifest.images, manifest.shard_size - 1, manifest.kept - 1) < 0:
            raise ValueError("images, shard_size and kept are not positive numbers")
    return manifest


def claim(folder: Path, manifest: LabelManifest) -> LabelManifest:
    """Write the manifest where there is none yet; return the one that is there then, this or an earlier one.

    Any number of processes may do so at once: one of them wins, and the others find what it wrote.

    Raises:
        OutputError: The folder cannot be written.
        UsageError: What is there cannot be read.
    """
    path = folder / MANIFEST
    text = json.dumps(asdict(manifest), indent=1)
    own = path.with_name(f".{MANIFEST}.{uuid.uuid4().hex[:8]}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own.write_text(text, encoding="utf-8")
        try:
            os.link(own, path)  # unlike a rename, this fails when another process was first
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                with whole_file(path) as part:
                    part.write_text(text, encoding="utf-8")
    except OSError as err:
        raise OutputError(f"{path} cannot be written: {err.strerror or err}.", "Choose another `out`.") from err
    finally:
        with suppress(OSError):
            own.unlink(missing_ok=True)
    return read_manifest(folder)


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; the names of concepts as one value."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, tuple(value) if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    if isinstance(value, tuple) and len(value) > 4:
        return f"({len(value)} values, the first {value[0]!r})"
    return json.dumps(value, ensure_ascii=False)
