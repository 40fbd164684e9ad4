"""Annotation files cut to the base classes, the novel classes, and both: the files of open-vocabulary COCO.

`instances_val2017.json` becomes `ovd_ins_val2017_b.json` (base), `ovd_ins_val2017_t.json` (novel, the target classes)
and `ovd_ins_val2017_all.json` (both). Images without a box of the classes are left out, as in the files of OVR-CNN and
RegionCLIP: of the 5,000 images of val2017 4,836 have one of the 65 classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from regionclip_cli.data.detection_sets.validation import Wrong, entry, text, whole
from regionclip_cli.data.json_stream import Element, stream_json
from regionclip_cli.data.splits import Split, left_out_of, read_split
from regionclip_cli.errors import UsageError
from regionclip_cli.files import whole_file

PARTS = ("all", "b", "t")
_WORDS = {"b": "seen", "t": "unseen"}


@dataclass(frozen=True)
class Cut:
    """One file that was written.

    Attributes:
        path: Where it is.
        classes: How many it has.
        images: How many it has.
        annotations: How many it has.
    """

    path: Path
    classes: int
    images: int
    annotations: int


@dataclass
class _Part:
    """One file to be written: its categories by id with the word for their side, and what was seen of them."""

    path: Path
    categories: dict[int, str]
    images: set[int] = field(default_factory=set)
    annotations: int = 0


def cut_paths(annotations: Path, out: Path) -> dict[str, Path]:
    """Return the files that an annotation file is cut into, by part: all, b (base), t (novel)."""
    stem = annotations.stem
    stem = f"ovd_ins_{stem.removeprefix('instances_')}" if stem.startswith("instances_") else stem
    return {part: out / f"{stem}_{part}.json" for part in PARTS}


def cut(
    split: str, annotations: Sequence[Path], out: Path, warn: Callable[[str], None] = lambda sentence: None
) -> list[Cut]:
    """Cut annotation files of COCO into base, novel and both.

    Files are read twice, an entry at a time, and everything about the entries that stay is kept as it is.

    Args:
        split: A name or file, as `read_split` takes it.
        annotations: COCO files, such as instances_train2017.json and instances_val2017.json.
        out: Folder of the new files; it is made.
        warn: Told of classes of the split that a file lacks.

    Raises:
        MissingError: A file is missing.
        UsageError: A file is no COCO file, an entry of it is wrong, or a new file exists already.
        OutputError: The folder cannot be written.
    """
    wanted = [path for file in annotations for path in cut_paths(file, out).values()]
    there = [path for path in wanted if path.exists()]
    if there:
        raise UsageError(f"{there[0]} exists already.", "Choose another folder with --out, or move it away.")
    twice = [path for path in wanted if wanted.count(path) > 1]
    if twice:
        raise UsageError(f"Two of the annotation files would be cut into {twice[0]}.", "Cut them into two folders.")
    return [made for file in annotations for made in _cut(split, file, out, warn)]


def _cut(split: str, file: Path, out: Path, warn: Callable[[str], None]) -> list[Cut]:
    """Cut one file."""
    names = dict(_categories(file))
    if sentence := left_out_of(split, tuple(names.values()), file.name):
        warn(sentence)
    chosen = read_split(split, tuple(names.values()))
    parts = _parts(chosen, names, cut_paths(file, out))
    for element in _entries(file, "annotations"):
        with _named(file, element):
            owner, category = whole(entry(element.value), "image_id"), whole(element.value, "category_id")
        for part in parts:
            if category in part.categories:
                part.images.add(owner)
                part.annotations += 1
    empty = [part for part in parts if part.categories and not part.annotations]
    if len(empty) == len([part for part in parts if part.categories]):
        raise UsageError(f"{file} has no box of the classes of {split}.")
    with ExitStack() as stack:
        writers = [_Writer(part, stack.enter_context(_opened(part.path))) for part in parts]
        for element in stream_json(file):
            with _named(file, element):
                for writer in writers:
                    writer.take(element)
        for writer in writers:
            writer.close()
    return [
        Cut(part.path, len(part.categories), writer.images, part.annotations)
        for part, writer in zip(parts, writers, strict=True)
    ]


def _parts(split: Split, names: dict[int, str], paths: dict[str, Path]) -> list[_Part]:
    """Return the three parts."""
    sides = dict.fromkeys(split.base, "b") | dict.fromkeys(split.novel, "t")
    wanted = {"all": "bt", "b": "b", "t": "t"}
    return [
        _Part(
            paths[part],
            {key: _WORDS[sides[name]] for key, name in names.items() if sides.get(name, "-") in wanted[part]},
        )
        for part in PARTS
    ]


def _categories(file: Path) -> Iterator[tuple[int, str]]:
    """Yield id and name of each category."""
    for element in _entries(file, "categories"):
        with _named(file, element):
            yield whole(entry(element.value), "id"), text(element.value, "name")


def _entries(file: Path, key: str) -> Iterator[Element]:
    """Yield the entries of one list of a file."""
    found = False
    for element in stream_json(file):
        if element.key == key:
            found = True
            if element.position is not None:
                yield element
    if not found:
        raise UsageError(f"{file} has no {key!r}, so it is no annotation file of COCO.")


@contextmanager
def _named(file: Path, element: Element) -> Iterator[None]:
    """Say which entry is wrong."""
    try:
        yield
    except Wrong as err:
        raise UsageError(f"{file}: {element.key}[{element.position}] {err}.") from err


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that gets its name when it is whole."""
    with whole_file(path) as part, part.open("wb") as file:
        yield file


class _Writer:
    """One file, written an element at a time."""

    def __init__(self, part: _Part, file: BinaryIO) -> None:
        self.part, self.file = part, file
        self.key, self.inside, self.first = "", False, True
        self.images = 0
        file.write(b"{")

    def take(self, element: Element) -> None:
        """Write an element if it belongs to this part."""
        if element.key != self.key:
            self._end_list()
            self.file.write((", " if self.key else "").encode() + json.dumps(element.key).encode() + b": ")
            self.key, self.first = element.key, True
            if element.position is None:
                self.file.write(_bytes(element.value))
                return
            self.inside = True
            self.file.write(b"[")
        value = self._kept(element)
        if value is not None:
            self.file.write((b"" if self.first else b", ") + _bytes(value))
            self.first = False

    def close(self) -> None:
        """Write the end."""
        self._end_list()
        self.file.write(b"}")

    def _end_list(self) -> None:
        if self.inside:
            self.file.write(b"]")
            self.inside = False

    def _kept(self, element: Element) -> Any:
        """Return what is written of an element; None for nothing."""
        value, part = element.value, self.part
        if element.key == "categories":
            return {**value, "split": part.categories[value["id"]]} if value["id"] in part.categories else None
        if element.key == "annotations":
            return value if value["category_id"] in part.categories else None
        if element.key == "images":
            if whole(entry(value), "id") not in part.images:
                return None
            if "neg_category_ids" in value:
                raise Wrong("is of LVIS, which is scored with all its images: use the split instead of cutting")
            self.images += 1
        return value


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode()
