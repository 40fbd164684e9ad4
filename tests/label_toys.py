"""A toy job of labelling: photos of shapes with captions, a toy model, and a bank of random concepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from photos import write_photos
from toys import DIM

from regionclip_cli.data.region_labels.store import shard_path
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.stages.pseudolabel import Estimate, PseudolabelResult

NAMES = ("red thing", "green thing", "blue thing", "sky", "table", "猫")
SECTION = {"regions": 12, "top_k": 3, "min_score": 0.2, "short_side": 64, "max_side": 96, "shard_size": 3, "batch": 2}


def write_captions(folder: Path, count: int = 7) -> Path:
    """Write photos of two sizes and a caption file that names them."""
    photos = [f"photos/{number}.png" for number in range(count)]
    write_photos(folder, tuple(photos))
    lines = [json.dumps({"image": name, "captions": [f"picture {name}", "<b>shapes</b>"]}) for name in photos]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "captions.jsonl"


def write_bank(path: Path, model: str = "toy", dim: int = DIM, names: tuple[str, ...] = NAMES, seed: int = 1) -> Path:
    """Write a bank of random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    ConceptBank(names, torch.randn(len(names), dim, generator=generator), model, "plain").save(path)
    return path


def labelling(model: Path, out: str = "run", captions: str = "captions.jsonl", **section: Any) -> Recipe:
    """Return a recipe that labels the photos with a toy model; `section` are settings of `pseudolabel`."""
    return fields.checked(
        Recipe,
        name="toy",
        out=out,
        device="cpu",
        model={"start": str(model)},
        data={"captions": {"dataset": "jsonl", "path": captions}},
        pseudolabel={**SECTION, "concept_bank": "bank.safetensors", **section},
    )


def shards(out: str = "run") -> dict[str, bytes]:
    """Return the bytes of all shards and indexes of a run."""
    return {path.name: path.read_bytes() for path in sorted(Path(out, "labels").glob("labels-*"))}


def rows(out: str = "run") -> list[dict[str, Any]]:
    """Return the rows of all shards."""
    found: list[dict[str, Any]] = []
    shard = 0
    while (path := shard_path(Path(out, "labels"), shard)).exists():
        found += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        shard += 1
    return found


def done(result: PseudolabelResult | Estimate) -> PseudolabelResult:
    """Return what a run did, which was no dry run."""
    assert isinstance(result, PseudolabelResult)
    return result
