"""Captions, with images or without, in every form they come in.

`open_pairs` gives images by number with their captions, for pseudo labels and pretraining; `stream_captions` gives
captions alone, once through, for mining concepts. Neither holds more of a source in memory than a few numbers an image.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from regionclip_cli import plugins
from regionclip_cli.data.captions.base import JoinedPairs, Pair, PairSet
from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.recipe.schema import CaptionData

__all__ = ["FORMS", "Pair", "PairSet", "open_pairs", "stream_captions"]

_HERE = "regionclip_cli.data.captions"
FORMS: dict[str, tuple[str | None, str]] = {
    "jsonl": (f"{_HERE}.jsonl:JsonLinesPairs", f"{_HERE}.jsonl:stream_json_lines"),
    "coco-captions": (f"{_HERE}.coco:CocoPairs", f"{_HERE}.coco:stream_coco"),
    "tsv": (f"{_HERE}.tsv:TsvPairs", f"{_HERE}.tsv:stream_tsv"),
    "webdataset": (f"{_HERE}.webdataset:ShardPairs", f"{_HERE}.webdataset:stream_shards"),
    "text": (None, f"{_HERE}.jsonl:stream_text"),
    "scenes": (f"{_HERE}.synthetic:ScenePairs", f"{_HERE}.synthetic:stream_scenes"),
}
"""Where the code of each form is: what opens its pairs (None: it has no images), and what streams its captions."""
_PLUGIN = (f"{_HERE}.synthetic:RecordPairs", f"{_HERE}.synthetic:stream_records")


def open_pairs(sources: Sequence[CaptionData]) -> PairSet:
    """Open sources of images with captions as one set, in the order they are named.

    Images of one source that share a name are one image in JSON lines, which may spread captions over lines; elsewhere,
    and over several sources, the key of a later one gets `~2`, `~3` and so on at its end.

    Raises:
        UsageError: There is no source, a form is unknown or has no images, or what is there is not of that form.
        MissingError: A file or folder is not there.
        PluginError: A plugin's dataset is broken.
    """
    if not sources:
        raise UsageError("No captions with images are named.", "Set data.captions in the recipe.")
    parts = []
    for data in sources:
        opener, _ = _form(data.dataset)
        if opener is None:
            raise UsageError(
                f"A source of the form {data.dataset!r} has captions and no images.", "Only `concepts` reads it."
            )
        parts.append(_load(opener)(data))
    digest = hashlib.sha256("\n".join(part.fingerprint for part in parts).encode())
    return JoinedPairs(parts, digest.hexdigest()[:16])


def stream_captions(sources: Sequence[CaptionData]) -> Iterator[str]:
    """Yield every caption of the sources, one after the other, none of them empty. Forms are checked at the call.

    Raises:
        UsageError: There is no source, a form is unknown, or what is there is not of that form.
        MissingError: A file is not there.
        PluginError: A plugin's dataset is broken.
    """
    if not sources:
        raise UsageError("No captions are named.", "Set data.captions in the recipe, or name files after --captions.")
    streams = [(_load(_form(data.dataset)[1]), data) for data in sources]
    return (caption for stream, data in streams for caption in stream(data))


def _form(dataset: str) -> tuple[str | None, str]:
    """Return where the code of a form is; a plugin's dataset has ours."""
    if dataset in FORMS:
        return FORMS[dataset]
    known = plugins.names("datasets")
    if dataset not in known:
        forms = [*FORMS, *known]
        hint = did_you_mean(dataset, forms) or f"There are {', '.join(forms)}."
        raise UsageError(f"There is no form of captions called {dataset!r}.", hint)
    return _PLUGIN


def _load(location: str) -> Callable[..., Any]:
    module, _, name = location.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
