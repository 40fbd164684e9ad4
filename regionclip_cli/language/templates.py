"""Prompt templates: the sentences that a class name is put into before the text encoder reads it.

The embedding of a name is the mean over T sentences (RegionCLIP section 3.1, after CLIP's prompt ensembling). More
sentences are steadier and cost proportionally more time; each model's card says which set it works best with.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Sequence

from regionclip_cli.environment import package_folder
from regionclip_cli.errors import MissingError, UsageError, did_you_mean

_OWN = {
    "plain": ("a {}",),
    "few": ("a {}", "a photo of a {}.", "a photo of the {}.", "a cropped photo of a {}."),
}

SETS = ("plain", "few", "clip-80", "clip-81")


@functools.cache
def templates(name: str) -> tuple[str, ...]:
    """Return the T templates of a set; `{}` in each stands for the phrase.

    Args:
        name: `plain` ("a {}"), `few` (four sentences), `clip-80` (CLIP's ImageNet sentences, as open_clip lists them),
            or `clip-81` (the official RegionCLIP set: the bare phrase with a full stop, then those 80).

    Raises:
        UsageError: There is no such set.
    """
    if name in _OWN:
        return _OWN[name]
    if name not in SETS:
        near = did_you_mean(name, SETS)
        raise UsageError(f"There is no template set {name!r}.", f"{near} The sets are {', '.join(SETS)}.".strip())
    eighty = tuple(str(sentence("{}")) for sentence in _imagenet_templates())
    return eighty if name == "clip-80" else ("{}.", *eighty)


def _imagenet_templates() -> Sequence[Callable[[str], str]]:
    """Return open_clip's sentences from their own file, since importing open_clip would import torch."""
    path = package_folder("open_clip") / "zero_shot_metadata.py"
    spec = importlib.util.spec_from_file_location("regionclip_cli_open_clip_templates", path)
    if spec is None or spec.loader is None:
        raise MissingError(f"The prompt templates of open_clip are not in {path}.", "Reinstall open_clip_torch.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sentences: Sequence[Callable[[str], str]] = module.OPENAI_IMAGENET_TEMPLATES
    return sentences


def fill(template: str, phrase: str) -> str:
    """Return the sentence for a phrase; commas vanish and `+` becomes a space, as in the official code.

    >>> fill("a photo of a {}.", "salt+pepper, ground")
    'a photo of a salt pepper ground.'
    """
    return template.replace("{}", phrase.replace(",", "").replace("+", " "))


@functools.cache
def content_hash(name: str) -> str:
    """Return 12 hex digits that change when the sentences of the set `name` change; caches are keyed by them."""
    return hashlib.sha256("\n".join(templates(name)).encode()).hexdigest()[:12]
