"""Weights of others in and out: what a file is, and how its tensors are called in a model file of this tool.

`convert` recognises a file and returns a card and tensors; `export` writes an open_clip state dict.
"""

from regionclip_cli.training.checkpoints.clip_weights import export_open_clip, open_clip_state
from regionclip_cli.training.checkpoints.convert import Converted, convert

__all__ = ["Converted", "convert", "export_open_clip", "open_clip_state"]
