"""What `pretrain.py` trains on and with: images, labels, models of random weights, all in a temporary folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain import Configuration

HERE = Path(__file__).resolve().parent.parent
PHOTOS = {
    "cat.jpg": "a cat with long whiskers and a pink nose looks to the side",
    "coffee.jpg": "a red cup of coffee on a saucer with a spoon",
}
CONCEPTS = 4764
"""As many as the paper mines from the captions of COCO."""
SIDES = {"tiny": (160, 2.0), "cc3m": (800, 1333 / 800)}
"""Shorter image side of a recipe, and how many times as long the longest side may be."""


def overrides(chosen: Configuration, folder: Path) -> list[str]:
    """Return what is said anew of a recipe, as `key=value`."""
    side, ratio = SIDES[chosen.recipe]
    side = chosen.short_side or side
    images = json.dumps({"dataset": "jsonl", "path": str(images_of(chosen, folder) / "captions.jsonl")})
    settings: dict[str, Any] = {
        "out": folder / images_of(chosen, folder).name / chosen.recipe,
        "device": chosen.device,
        "data.captions": images,
        "pseudolabel.concept_bank": bank_of(chosen, folder),
        "pseudolabel.short_side": side,
        "pseudolabel.max_side": int(side * ratio),
        "pretrain.concept_bank": bank_of(chosen, folder),
        "pretrain.short_side": side,
        "pretrain.max_side": int(side * ratio),
        "pretrain.teacher_mode": chosen.teacher,
        "pretrain.amp": chosen.amp,
        "pretrain.channels_last": str(chosen.channels_last).lower(),
        "pretrain.batch_size": chosen.batch,
        "pretrain.workers": chosen.workers,
        "pretrain.steps": chosen.steps,
    }
    if chosen.recipe == "cc3m":
        settings |= {"model.start": folder / "rn50.safetensors", "model.teacher": folder / "rn50.safetensors"}
        settings |= {"model.proposals": folder / "proposals.safetensors", "pretrain.min_score": 0.0}
    return [f"{key}={value}" for key, value in settings.items()]


def images_of(chosen: Configuration, folder: Path) -> Path:
    """Return the folder of a configuration's images."""
    return folder / f"images-{chosen.short_side or SIDES[chosen.recipe][0]}-{chosen.batch}"


def bank_of(chosen: Configuration, folder: Path) -> Path:
    """Return the file of a configuration's concepts."""
    return folder / f"{chosen.recipe}-concepts.safetensors"


def prepare(chosen: Configuration, folder: Path) -> dict[str, Any]:
    """Make what a configuration needs and is not there yet; return nothing, or why it has to be left out."""
    import torch

    from regionclip_cli.errors import MissingError
    from regionclip_cli.vision.library_log import redirect_mmengine_logs

    redirect_mmengine_logs()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    write_images(images_of(chosen, folder), chosen.short_side or SIDES[chosen.recipe][0], chosen.batch)
    try:
        if chosen.recipe == "cc3m":
            write_networks(folder, bank_of(chosen, folder))
        else:
            write_labels(chosen, folder)
    except MissingError as err:
        return {"left out": str(err)}
    return {}


def write_images(folder: Path, side: int, count: int) -> None:
    """Write so many images with captions: first the two photos, then scenes of that width and height, as JPEG."""
    from PIL import Image

    from regionclip_cli.data.scenes import draw_scene

    if folder.exists():
        return
    folder.mkdir()
    lines = []
    for index in range(count):
        if index < len(PHOTOS):
            name, caption = list(PHOTOS.items())[index]
            shutil.copyfile(HERE / "docs" / "photos" / name, folder / name)
        else:
            scene = draw_scene(index, size=side)
            name, caption = f"scene-{index}.jpg", scene.captions[-1]
            Image.fromarray(scene.pixels).save(folder / name, quality=90)
        lines.append(json.dumps({"image": name, "captions": [caption]}) + "\n")
    (folder / "captions.jsonl").write_text("".join(lines), encoding="utf-8")


def write_labels(chosen: Configuration, folder: Path) -> None:
    """Run the stages before pretraining: the concepts of the recipe as it is shipped, and labels where they are used.

    Raises:
        MissingError: The package came without its model.
    """
    from regionclip_cli.recipe.loader import load_recipe
    from regionclip_cli.runs.folder import RunFolder
    from regionclip_cli.stages import concepts, pseudolabel

    if not bank_of(chosen, folder).exists():
        shipped = load_recipe(chosen.recipe, [f"out={folder / 'shipped'}"])
        concepts.run(shipped)
        RunFolder(Path(shipped.out)).bank.rename(bank_of(chosen, folder))
    if chosen.teacher == "labels":
        pseudolabel.run(load_recipe(chosen.recipe, overrides(chosen, folder)))


def write_networks(folder: Path, bank: Path) -> None:
    """Write CLIP's ResNet-50, a proposal network, and concepts, all of random numbers, the same every time."""
    import torch

    from regionclip_cli.hub.backbones import BACKBONES
    from regionclip_cli.hub.model_card import ModelCard
    from regionclip_cli.hub.model_file import write_model
    from regionclip_cli.language.concept_bank import ConceptBank
    from regionclip_cli.vision.backbones.build import build_clip, clip_config
    from regionclip_cli.vision.proposals.build import build_proposals

    if bank.exists():
        return
    torch.manual_seed(0)
    spec = BACKBONES["clip-rn50"]
    clip = {f"clip.{key}": value for key, value in build_clip(clip_config(spec)).state_dict().items()}
    for key, value in clip.items():
        if key.endswith("bn3.weight"):  # zero at the start of a training, which would leave the shortcuts only
            value.fill_(0.3)
    card = ModelCard(name="random-rn50", backbone=spec.name, parts=("visual", "text"))
    write_model(folder / "rn50.safetensors", card, clip)
    kind = {"type": "rpn-fpn"}
    network = {f"proposals.{key}": value for key, value in build_proposals(kind).state_dict().items()}
    card = ModelCard(name="random-rpn", kind="proposals", parts=("proposals",), proposals=kind)
    write_model(folder / "proposals.safetensors", card, network)
    names = tuple(f"concept {number}" for number in range(CONCEPTS))
    ConceptBank(names, torch.randn(CONCEPTS, spec.embed_dim), "random-rn50", "clip-81").save(bank)
