"""Pairs that no caption file holds: drawn scenes, and the datasets that other packages add."""

from __future__ import annotations

import io
import pkgutil
import struct
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli import plugins
from regionclip_cli.data.captions.base import (
    PackedTexts,
    Pair,
    PairSet,
    fingerprint,
    key_hash,
    read_image_file,
    read_part,
)
from regionclip_cli.data.captions.jsonl import captions_of
from regionclip_cli.data.scenes import draw_scene
from regionclip_cli.errors import InputError, PluginError, UsageError, did_you_mean
from regionclip_cli.recipe.schema import CaptionData

SCENE_OPTIONS: Mapping[str, int] = {"count": 64, "size": 128, "seed": 0}
"""Options of the dataset `scenes` with their defaults: how many, width and height in pixels, which ones."""


class ScenePairs(PairSet):
    """Drawn scenes with their captions; nothing is kept but the options.

    Raises:
        UsageError: An option is unknown or no whole number, or the size cannot be drawn.
    """

    def __init__(self, data: CaptionData) -> None:
        options = scene_options(data.options)
        self.count = min(options["count"], data.limit or options["count"])
        self.size, self.seed = options["size"], options["seed"]
        draw_scene(0, self.seed, self.size)
        self.fingerprint = fingerprint((), "scenes", self.count, self.size, self.seed)

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.count

    def key(self, index: int) -> str:
        """Return `scene-SEED-NUMBER`."""
        return f"scene-{self.seed}-{index:06}"

    def pair(self, index: int) -> Pair:
        """Return a scene as PNG."""
        captions = draw_scene(index, self.seed, self.size).captions
        return Pair(self.key(index), captions, partial(_scene_file, index, self.seed, self.size))

    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64."""
        return np.array([key_hash(self.key(index)) for index in range(self.count)], np.uint64)


class RecordPairs(PairSet):
    """The records of a plugin's dataset, in which a picture has captions.

    What the loader returns is used in place where it can be asked for any record by number. What can only be read
    from its beginning is read once, and its pictures are kept in a temporary file that goes with this set.

    Raises:
        UsageError: There is no such dataset, or it has no record.
        PluginError: Its package is broken, or a record is not what `DatasetSpec` says.
    """

    def __init__(self, data: CaptionData) -> None:
        self._name, self._entry = data.dataset, plugins.lookup("datasets", data.dataset)
        records = load_records(data)
        self._records: Sequence[Mapping[str, Any]] | _Spool
        with plugins.blame(self._entry):
            if hasattr(records, "__getitem__") and hasattr(records, "__len__"):
                self._records, length = records, len(records)
            else:
                self._records = _Spool(islice(records, data.limit), data.dataset)
                length = len(self._records)
            self._length = min(length, data.limit or length)
            keys = (self._key(self._records[index], index) for index in range(self._length))
            self._hashes = np.array([key_hash(key) for key in keys], np.uint64)
        if not self._length:
            raise UsageError(f"The dataset {data.dataset!r} has no record.")
        options = sorted(data.options.items())
        self.fingerprint = fingerprint((), data.dataset, self._entry.version, options, self._length)

    def __len__(self) -> int:
        """Return the number of records."""
        return self._length

    def key(self, index: int) -> str:
        """Return the record's own key, else the dataset's name and the number."""
        with plugins.blame(self._entry):
            return self._key(self._records[index], index)

    def pair(self, index: int) -> Pair:
        """Return a record."""
        with plugins.blame(self._entry):
            record = self._records[index]
            key = self._key(record, index)
            captions = record_captions(record, self._name, index)
            if "image" not in record:
                raise PluginError(f"Record {index} of the dataset {self._name!r} has no 'image'.")
            return Pair(key, captions, partial(image_bytes, record["image"], key))

    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64."""
        return self._hashes

    def _key(self, record: Any, index: int) -> str:
        if not isinstance(record, Mapping):
            raise PluginError(f"Record {index} of the dataset {self._name!r} is no mapping.")
        key = record.get("key")
        return f"{self._name}-{index:06}" if key is None else str(key)


class _Spool:
    """Records that came one after the other, to be had by number: their pictures in one temporary file."""

    def __init__(self, records: Iterable[Mapping[str, Any]], name: str) -> None:
        handle, path = tempfile.mkstemp(prefix="regionclip-records-")
        self._path = Path(path)
        self._remove = weakref.finalize(self, self._path.unlink, missing_ok=True)
        ends, keys, captions = array("q", [0]), [], []
        with open(handle, "wb") as file:
            for index, record in enumerate(records):
                if not isinstance(record, Mapping) or "image" not in record:
                    raise PluginError(f"Record {index} of the dataset {name!r} has no 'image'.")
                key = str(record.get("key") or f"{name}-{index:06}")
                ends.append(ends[-1] + file.write(image_bytes(record["image"], key)))
                keys.append(key)
                captions.append("\n".join(record_captions(record, name, index)))
        self._ends, self._keys, self._captions = np.array(ends), PackedTexts(keys), PackedTexts(captions)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        start, end = int(self._ends[index]), int(self._ends[index + 1])
        read = _LazyImage(self._path, start, end - start, self._keys[index])
        return {"key": self._keys[index], "captions": self._captions[index].split("\n"), "image": read}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the file to whoever made it."""
        return {name: value for name, value in vars(self).items() if name != "_remove"}


class _LazyImage:
    """A picture that lies in a part of a file."""

    def __init__(self, path: Path, start: int, size: int, key: str) -> None:
        self._where = (path, start, size, key)

    def read(self) -> bytes:
        return read_part(*self._where)


def stream_scenes(data: CaptionData) -> Iterator[str]:
    """Yield the captions of drawn scenes."""
    for pair in ScenePairs(data):
        yield from pair.captions


def stream_records(data: CaptionData) -> Iterator[str]:
    """Yield the captions of a plugin's dataset; its pictures are not looked at."""
    found = False
    with plugins.blame(plugins.lookup("datasets", data.dataset)):
        for index, record in enumerate(islice(load_records(data), data.limit)):
            found = True
            yield from record_captions(record, data.dataset, index)
    if not found:
        raise UsageError(f"The dataset {data.dataset!r} has no record.")


def load_records(data: CaptionData) -> Any:
    """Call the loader of a plugin's dataset with its options and those of the source.

    Raises:
        UsageError: There is no such dataset, or it takes no such option.
        PluginError: Its package is broken.
    """
    spec = plugins.find("datasets", data.dataset)
    unknown = [name for name in data.options if spec.options and name not in spec.options]
    if unknown:
        known = ", ".join(spec.options)
        near = did_you_mean(unknown[0], spec.options)
        raise UsageError(f"The dataset {spec.name!r} takes no option {unknown[0]!r}.", near or f"It takes {known}.")
    with plugins.blame(plugins.lookup("datasets", data.dataset)):
        return pkgutil.resolve_name(spec.loader)(**{**spec.options, **data.options})


def record_captions(record: Mapping[str, Any], name: str, index: int) -> tuple[str, ...]:
    """Return the captions of a plugin's record.

    Raises:
        PluginError: It has none.
    """
    where = f"Record {index} of the dataset {name!r}"
    try:
        captions = captions_of(dict(record), where)
    except (UsageError, TypeError, ValueError) as err:
        raise PluginError(f"{where} has no captions.", "Does it have boxes only? Then it is for `finetune`.") from err
    if not captions:
        raise PluginError(f"{where} has no captions.")
    return captions


def scene_options(options: Mapping[str, Any]) -> dict[str, int]:
    """Return all options of `scenes`.

    Raises:
        UsageError: One is unknown, or no whole number that makes sense.
    """
    for name, value in options.items():
        if name not in SCENE_OPTIONS:
            hint = did_you_mean(name, SCENE_OPTIONS) or f"They take {', '.join(SCENE_OPTIONS)}."
            raise UsageError(f"Scenes take no option {name!r}.", hint)
        if not isinstance(value, int) or isinstance(value, bool) or value < (0 if name == "seed" else 1):
            raise UsageError(f"The option {name} of scenes is a whole number, not {value!r}.")
    return {**SCENE_OPTIONS, **options}


def image_bytes(image: Any, key: str) -> bytes:
    """Return the encoded image of a record: bytes as they are, the contents of a path, a Pillow image as PNG.

    Raises:
        InputError: The file cannot be read, or it is none of these.
    """
    from PIL.Image import Image

    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        return read_image_file(Path(image), key)
    if isinstance(image, _LazyImage):
        return image.read()
    if isinstance(image, Image):
        file = io.BytesIO()
        (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")).save(
            file, "png"
        )
        return file.getvalue()
    raise InputError(f"The image {key} is a {type(image).__name__}, not bytes, a path or a Pillow image.")


def encode_png(pixels: np.ndarray) -> bytes:
    """Return RGB uint8 (H, W, 3) as a PNG file, the same bytes wherever zlib is the same."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _scene_file(index: int, seed: int, size: int) -> bytes:
    return encode_png(draw_scene(index, seed, size).pixels)
