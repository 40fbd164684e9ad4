"""From what a recipe writes (files, globs, numbered ranges) to files that are there, and what can be told of them."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from regionclip_cli.errors import InputError, MissingError, UsageError, did_you_mean

MOST_FILES = 1_000_000
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".tsv": "tsv", ".tar": "webdataset", ".txt": "text"}
"""Forms of captions that the name of a file tells."""
WHOLE = 1 << 24
"""Bytes of a file up to which all of it tells it from others."""
SAMPLES, BLOCK = 8, 1 << 16
"""Blocks that are looked at of a larger one, and their bytes."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(texts: Sequence[str], what: str = "caption file") -> list[Path]:
    """Return the files behind paths, globs (sorted) and numbered ranges such as `shards/{00000..00331}.tar`.

    Args:
        texts: What was written.
        what: What the files are, for messages.

    Raises:
        MissingError: A file is not there, or a glob matches none.
        UsageError: Nothing was written, a range runs backwards or is endless.
    """
    if not texts:
        raise UsageError(f"No {what} is named.", "Set `path`, or name files after --captions.")
    return [path for text in texts for path in _expand(text, what)]


def numbered(text: str) -> list[str]:
    """Return the texts that a text with numbered ranges stands for; one without is itself.

    Numbers are padded as the first one is written.

    >>> numbered("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']

    Raises:
        UsageError: A range runs backwards, or stands for more than a million texts.
    """
    pieces = _RANGE.split(text)
    counts, total = [], 1
    for first, last in zip(pieces[1::3], pieces[2::3], strict=True):
        if int(last) < int(first):
            raise UsageError(f"The range {{{first}..{last}}} in {text} runs backwards.")
        counts.append((int(first), int(last), len(first) if first.startswith("0") else 1))
        total *= int(last) - int(first) + 1
    if total > MOST_FILES:
        raise UsageError(f"{text} stands for {total:,} files, more than {MOST_FILES:,}.")
    numbers = ([f"{n:0{width}}" for n in range(first, last + 1)] for first, last, width in counts)
    return ["".join(_interleave(pieces[0::3], chosen)) for chosen in product(*numbers)]


def guess_form(text: str) -> str:
    """Return the form of a caption file: by its name and, where that leaves it open, by how it begins.

    Args:
        text: A path, glob or numbered range; of several files the first tells.

    Raises:
        MissingError: There is no such file.
        UsageError: It is of no form that is known.
    """
    path = expand([text])[0]
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in SUFFIXES:
        return "tsv" if path.is_dir() else SUFFIXES[suffix]
    try:
        with path.open("rb") as file:
            head = file.read(1 << 12)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror or err}.") from err
    line, line_end, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if head[257:262] == b"ustar":
        return "webdataset"
    if b"\0" in head:
        raise UsageError(f"{path} is no file of captions.", f"Known are {', '.join(SUFFIXES)} and COCO's .json.")
    if not line.startswith((b"{", b"[")):
        return "tsv" if b"\t" in line else "text"
    try:
        record = json.loads(line)
    except ValueError:
        # A line that goes on: all of COCO's file may be one, and so may a record with very many captions.
        goes_on = not line_end and b'"caption' in line and b'"annotations"' not in line and b'"info"' not in line
        record = {"caption": ""} if goes_on else {}
    return "jsonl" if isinstance(record, dict) and {"caption", "captions"} & set(record) else "coco-captions"


def fingerprint(files: Sequence[Path], *more: object) -> str:
    """Return 16 hex digits made of the names and contents of files, and of whatever else decides what is read.

    A copy of the data, on another machine or made later, has the same ones. Of a file above `WHOLE` bytes the size and
    `SAMPLES` blocks of it stand for all, so that terabytes of shards are told apart in seconds.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        size = os.stat(path).st_size
        digest.update(f"{path.name}\0{size}\n".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            if size <= WHOLE:
                digest.update(hashlib.file_digest(file, "sha256").digest())
                continue
            for sample in range(SAMPLES):
                file.seek((size - BLOCK) * sample // (SAMPLES - 1))
                digest.update(file.read(BLOCK))
    digest.update(repr(more).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def require_folder(text: str) -> Path:
    """Return a folder of images.

    Raises:
        MissingError: It is not there.
    """
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise MissingError(f"There is no folder of images {text}.", _near(folder) or "`images` names it.")
    return folder


def read_image_file(path: Path, key: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as err:
        raise InputError(f"The image {key} cannot be read from {path}: {err.strerror or err}.") from err


def read_part(path: Path, start: int, size: int, key: str) -> bytes:
    """Return `size` bytes of a file from `start` on: an image inside a larger file.

    Raises:
        InputError: It cannot be read, or ends before.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as err:
        raise InputError(f"{key} cannot be read from {path}: {err.strerror or err}.") from err
    if len(data) < size:
        raise InputError(f"{key} cannot be read from {path}: the file has become shorter.")
    return data


def _expand(text: str, what: str) -> list[Path]:
    if _RANGE.search(text):
        paths = [Path(each).expanduser() for each in numbered(text)]
        absent = [path for path in paths if not path.exists()]
        if absent:
            raise MissingError(
                f"{len(absent)} of the {len(paths)} files of {text} are not there: {absent[0]} is the first.",
                "Does the range end too late?" if len(absent) < len(paths) else "",
            )
        return paths
    path = Path(text).expanduser()
    if glob.has_magic(text) and not path.exists():
        found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not found:
            raise MissingError(f"The pattern {text} matches no {what}.")
        return found
    if not path.exists():
        raise MissingError(f"There is no {what} {text}.", _near(path))
    return [path]


def _near(path: Path) -> str:
    """Return a hint with the names nearest to a missing path."""
    try:
        return did_you_mean(path.name, os.listdir(path.parent))
    except OSError:
        return f"There is no folder {path.parent} either."


def _interleave(fixed: Sequence[str], chosen: Sequence[str]) -> Iterator[str]:
    for before, number in zip(fixed, chosen, strict=False):
        yield from (before, number)
    yield fixed[-1]
