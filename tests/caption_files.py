"""Small caption files of every form."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regionclip_cli.data.captions import PairSet, open_pairs, stream_captions
from regionclip_cli.recipe.schema import CaptionData

RECORDS: Mapping[str, tuple[str, ...]] = {
    "a/1.jpg": ("a dog on a couch", "a brown dog"),
    "a/2.jpg": ("two buses at a stop",),
    "b/1.jpg": ("ein Hund für zwei Mädchen",),
}


def image_of(key: str) -> bytes:
    """Return what stands for the encoded image of a key in these tests."""
    return f"image of {key}".encode()


def write_images(folder: Path, keys: Iterable[str] = RECORDS) -> Path:
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(image_of(key))
    return folder


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]] | None = None) -> Path:
    chosen = [{"image": key, "captions": captions} for key, captions in RECORDS.items()] if records is None else records
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in chosen), encoding="utf-8")
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_tsv(folder: Path, records: Mapping[str, tuple[str, ...]] = RECORDS, index: bool = True) -> Path:
    """Write `images.tsv` and `text.tsv`, with their `.lineidx` if wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "images": [f"{key}\t{base64.b64encode(image_of(key)).decode()}\n".encode() for key in records],
        "text": [f"{key}\t{json.dumps({'captions': texts})}\n".encode() for key, texts in records.items()],
    }
    for name, lines in rows.items():
        (folder / f"{name}.tsv").write_bytes(b"".join(lines))
        if index:
            starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
            (folder / f"{name}.lineidx").write_text("".join(f"{start}\n" for start in starts))
    return folder


def source(dataset: str, path: Any = (), **more: Any) -> CaptionData:
    paths = tuple(str(each) for each in path) if isinstance(path, list | tuple) else str(path)
    return CaptionData(dataset=dataset, path=paths, **{k: str(v) if k == "images" else v for k, v in more.items()})


def pairs_of(dataset: str, path: Any = (), **more: Any) -> PairSet:
    return open_pairs([source(dataset, path, **more)])


def captions_of(dataset: str, path: Any = (), **more: Any) -> list[str]:
    return list(stream_captions([source(dataset, path, **more)]))


def contents(pairs: PairSet) -> dict[str, tuple[str, ...]]:
    """Return {key: captions}, after a look at every image."""
    for pair in pairs:
        assert pair.read() == image_of(pair.key)
    return {pair.key: pair.captions for pair in pairs}
