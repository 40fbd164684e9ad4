"""The text half of a CLIP model: built by open_clip, filled from a model file, run on no more tokens than needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.func import functional_call

from regionclip_cli import plugins
from regionclip_cli.errors import PluginError, UsageError
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.language.phrase_encoder import require_text

_NO_VISION = {"layers": 1, "width": 8, "head_width": 8, "patch_size": 1, "image_size": 1}
_IMAGE_SIDE = ("clip.visual.", "clip.logit_scale", "clip.logit_bias")


class TextTower(nn.Module):
    """Token embedding, transformer and projection of a CLIP model (512-wide with 12 layers for RegionCLIP's RN50).

    Args:
        config: An open_clip model config: `embed_dim`, `text_cfg`, `quick_gelu`. Its image tower is left out.
        state: {open_clip key: tensor} of the text keys.

    Raises:
        UsageError: The config is of another kind of text tower, or `state` does not fit it.
    """

    def __init__(self, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        super().__init__()
        text = dict(config.get("text_cfg") or {})
        foreign = {"hf_model_name", "hf_tokenizer_name", "tokenizer_mode"} & {key for key in text if text[key]}
        if foreign or config.get("custom_text") or config.get("multimodal_cfg"):
            raise UsageError("Only CLIP models with CLIP's own text tower and tokenizer are supported.")
        try:
            with torch.device("meta"):
                clip = open_clip.CLIP(
                    config["embed_dim"], _NO_VISION, text, quick_gelu=bool(config.get("quick_gelu", False))
                )
            del clip.visual, clip.logit_scale
            clip.load_state_dict(dict(state), assign=True)
        except (AssertionError, KeyError, TypeError, RuntimeError) as err:
            first = " ".join(str(err).split())[:300]
            raise UsageError(f"The text encoder does not fit its open_clip config: {first}") from err
        self.clip: Any = clip
        self.context_length: int = clip.context_length
        if clip.attn_mask is not None:
            length = self.context_length
            clip.attn_mask = torch.full((length, length), float("-inf")).triu_(1)
        options = text.get("tokenizer_kwargs") or {}
        self._tokenizer: Callable[..., Tensor] = open_clip.SimpleTokenizer(**options) if options else open_clip.tokenize
        self.requires_grad_(False).eval()

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens (P, L) int64 of P texts, L the context length (77): start, words, end, zeros.

        A text of more tokens is cut to L with the end token last, which is where the feature is read. The official code
        cuts the end token off and then reads some word instead; texts that fit are the same in both.
        """
        return self._tokenizer(list(texts), context_length=self.context_length)

    def lengths(self, tokens: Tensor, step: int) -> Tensor:
        """Return how many tokens of each prompt (P, L) must be computed, rounded up to a multiple of `step`, (P,) long.

        The mask is causal and the feature is read at the end token, so what follows it changes nothing: a prompt has
        about 10 tokens, not 77. Towers with another mask or pooling need all L tokens.
        """
        total = tokens.shape[1]
        if self.clip.attn_mask is None or self.clip.text_pool_type != "argmax":
            return torch.full((len(tokens),), total)
        ends = tokens.argmax(dim=1).cpu() + 1  # the end token has the highest number
        return ((ends + step - 1) // step * step).clamp(max=total)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features (P, D), not normalised, of tokens (P, l), all of them computed; l is at most L."""
        encode, mask = _Encode(self.clip), self.clip.attn_mask
        length = tokens.shape[1]
        shorter = {"clip.positional_embedding": self.clip.positional_embedding[:length]}
        if mask is not None:
            shorter["clip.attn_mask"] = mask[:length, :length]
        features: Tensor = functional_call(encode, shorter, (tokens,))
        return features


class _Encode(nn.Module):
    """`CLIP.encode_text` as a module, so that its positions and mask can be replaced for one call."""

    def __init__(self, clip: open_clip.CLIP) -> None:
        super().__init__()
        self.clip: Any = clip

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.clip.encode_text(tokens)
        return features


def clip_config(card: ModelCard) -> dict[str, Any]:
    """Return the open_clip config of a model: the card's own, else its backbone's.

    Raises:
        UsageError: No backbone of that name is installed.
        PluginError: The backbone names an open_clip config that is not installed.
    """
    if card.clip is not None:
        return dict(card.clip)
    spec = plugins.find("backbones", card.backbone or "")
    if not isinstance(spec.open_clip, str):
        return dict(spec.open_clip)
    config = open_clip.get_model_config(spec.open_clip)
    if config is None:
        raise PluginError(f"Backbone {spec.name!r} names an open_clip model {spec.open_clip!r} that is not installed.")
    return dict(config)


def load_text_tower(path: Path, card: ModelCard) -> TextTower:
    """Read the text keys, and no others, of a model file.

    Raises:
        MissingError: The model has no text encoder.
        UsageError: What is there does not fit the model's config.
    """
    require_text(card)
    with safe_open(path, framework="pt", device="cpu") as file:
        keys = [key for key in sorted(file.keys()) if key.startswith("clip.") and not key.startswith(_IMAGE_SIDE)]
        state = {key.removeprefix("clip."): file.get_tensor(key).float() for key in keys}
    return TextTower(clip_config(card), state)
