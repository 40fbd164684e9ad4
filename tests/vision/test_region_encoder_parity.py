"""The official implementation's numbers, on stand-in weights: both ways of embedding regions reproduce them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from regionclip_cli.vision.backbones import build_backbone
from regionclip_cli.vision.region_encoder import RegionEncoder


def drawn_weights(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", ["rn50", "rn50x4"])
def test_trunk_and_region_embeddings_are_the_official_ones(size: str, fixtures: Path) -> None:
    folder = fixtures / "parity"
    weights = drawn_weights(folder)
    shapes = json.loads((folder / f"checkpoint_keys_{size}.json").read_text())
    state = {
        key.removeprefix("backbone."): torch.from_numpy(np.asarray(weights.tensor(key, tuple(shape))))
        for key, shape in shapes.items()
        if key.startswith("backbone.")
    }
    backbone = build_backbone(f"clip-{size}", empty=True).eval()
    result = backbone.visual.load_state_dict(state, strict=False, assign=True)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)

    official = np.load(folder / f"official_{size}.npz")
    pixels = torch.from_numpy(official["image"]).permute(2, 0, 1)[None].float()
    boxes = torch.from_numpy(official["boxes"]).float()
    with torch.no_grad():
        features = backbone.trunk(backbone.normalise(pixels))
        if size == "rn50":  # the only one whose trunk was printed
            np.testing.assert_allclose(features[0, ::32], official["res4"], rtol=1e-3, atol=1e-4)
        for encoder, copies in ((RegionEncoder(backbone, path="plain"), 1), (RegionEncoder(backbone), 3)):
            found = encoder(features, [boxes.repeat(copies, 1)])  # with three copies, layer4 is entered on the map
            expected = np.tile(official["region_embeddings"], (copies, 1))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
