"""Registries of this package, children of mmengine's, so that configs can name our modules as `regionclip_cli.X`.

Nothing is imported when a registry is made: `locations` are imported when something is first built from it.
"""

from __future__ import annotations

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

SCOPE = "regionclip_cli"

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=[
        "regionclip_cli.vision.backbones",
        "regionclip_cli.vision.proposals",
        "regionclip_cli.vision.classifier",
        "regionclip_cli.vision.detector",
    ],
)
