"""From a name to networks: CLIP models and backbones, with random weights and without any network access."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import open_clip
import torch

from regionclip_cli import plugins
from regionclip_cli.errors import PluginError, UsageError
from regionclip_cli.specs import BackboneSpec
from regionclip_cli.vision.backbones.base import BATCH_NORMS, Backbone

_ARGUMENTS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "nonscalar_logit_scale")
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


def clip_config(spec: BackboneSpec) -> dict[str, Any]:
    """Return the open_clip model config of a backbone, as a fresh dict that can be changed.

    Raises:
        PluginError: The spec names a config that the installed open_clip does not have.
    """
    if not isinstance(spec.open_clip, str):
        return copy.deepcopy(dict(spec.open_clip))
    config = open_clip.get_model_config(spec.open_clip)
    if config is None:
        raise PluginError(f"Backbone {spec.name!r} names an open_clip model {spec.open_clip!r} that is not installed.")
    return copy.deepcopy(config)


def build_clip(config: Mapping[str, Any], *, empty: bool = False) -> open_clip.CLIP:
    """Build both towers of a CLIP model from an open_clip config (`embed_dim`, `vision_cfg`, `text_cfg`, ...).

    Args:
        config: What `open_clip.get_model_config` returns, or the same by hand. Pretrained parts are never fetched.
        empty: Give parameters a shape but no memory (device "meta"), which takes milliseconds instead of seconds. They
            must then be filled with `load_state_dict(state, assign=True)`. Batch norms' statistics and the text mask
            are real from the start.

    Raises:
        UsageError: The config is of a kind of model with other parts (a Hugging Face text tower, CoCa) or is malformed.
    """
    text, vision = dict(config.get("text_cfg") or {}), dict(config.get("vision_cfg") or {})
    if text.get("hf_model_name") or config.get("multimodal_cfg") or config.get("custom_text"):
        raise UsageError(
            "This config describes a model with another text tower than CLIP's own, which is not supported."
        )
    vision["timm_model_pretrained"] = False
    arguments = {key: config[key] for key in _ARGUMENTS if key in config} | {"text_cfg": text, "vision_cfg": vision}
    try:
        if not empty:
            return open_clip.CLIP(**arguments)
        with torch.device("meta"):
            clip = open_clip.CLIP(**arguments)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as err:
        raise UsageError(f"This open_clip model config cannot be built: {err}") from err
    _fill_buffers(clip)
    return clip


def build_backbone(
    name: str, clip: Mapping[str, Any] | None = None, pool_size: int | None = None, *, empty: bool = False
) -> Backbone:
    """Build the image tower of a backbone.

    Args:
        name: Name of a built-in backbone or of a plugin's.
        clip: An open_clip config to use instead of the spec's own, for example a smaller one of the same family.
        pool_size: Side P of the RoIAlign grid, where the family leaves a choice.
        empty: See `build_clip`.

    Raises:
        PluginError: The spec's numbers are not those of its network, or its package cannot be imported.
        UsageError: There is no such backbone, or the config or the pool size does not suit its family.
    """
    spec = plugins.find("backbones", name)
    config = clip_config(spec) if clip is None else dict(clip)
    for key in ("custom_text", "multimodal_cfg"):
        config.pop(key, None)
    visual = build_clip(config | {"text_cfg": _NO_TEXT}, empty=empty).visual
    if pool_size is None and clip is None:
        pool_size = spec.pool_size
    options = {key: value for key, value in spec.network.items() if key != "type"}
    backbone = _network(spec)(visual=visual, mean=spec.mean, std=spec.std, pool_size=pool_size, **options)
    if clip is None:
        _check_promises(spec, backbone)
    return backbone


def _network(spec: BackboneSpec) -> Callable[..., Backbone]:
    """Import the class that a spec names by dotted path.

    Raises:
        PluginError: There is no such class, or it is no `Backbone`.
    """
    path = spec.network.get("type")
    try:
        network = pkgutil.resolve_name(str(path))
    except (ImportError, AttributeError, ValueError) as err:
        raise PluginError(f"Backbone {spec.name!r} names a network {path!r} that cannot be imported: {err}") from err
    if not (isinstance(network, type) and issubclass(network, Backbone)):
        raise PluginError(f"Backbone {spec.name!r} names {path!r}, which is not a Backbone class.")
    return network


def _check_promises(spec: BackboneSpec, backbone: Backbone) -> None:
    """Refuse a spec whose numbers are not those of the network it builds."""
    for field in ("channels", "stride", "embed_dim"):
        promised, found = getattr(spec, field), getattr(backbone, field)
        if promised != found:
            raise PluginError(f"Backbone {spec.name!r} promises {field} {promised}, but its network has {found}.")


def _fill_buffers(clip: open_clip.CLIP) -> None:
    """Give real memory to what a state dict need not hold: batch norm statistics and the causal mask of the text tower.

    Raises:
        UsageError: The model has a buffer that is neither, so that it cannot be built empty.
    """
    for module in clip.modules():
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None:
            module.running_mean = torch.zeros_like(module.running_mean, device="cpu")
            module.running_var = torch.ones_like(module.running_mean)
            module.num_batches_tracked = torch.tensor(0)
    if clip.attn_mask is not None:
        clip.attn_mask = torch.full(clip.attn_mask.shape, float("-inf")).triu_(1)
    left = [name for name, buffer in clip.named_buffers() if buffer.is_meta]
    if left:
        raise UsageError(f"This model cannot be built without initialising it: {', '.join(left)}.")
