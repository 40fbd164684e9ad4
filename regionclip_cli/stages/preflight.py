"""What can be seen to fail before a long run begins, of stages that come late in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import user_path
from regionclip_cli.recipe.schema import DetectionData, Recipe


def foresee(recipe: Recipe, stages: Collection[str]) -> None:
    """Check that the stages of a recipe fit together, and that the boxes which late ones read are there.

    Args:
        recipe: What is to be run.
        stages: Those of its stages that are to be run.

    Raises:
        MissingError: An annotation file or a folder of images is not there.
        UsageError: One stage could not go on from what another one makes.
    """
    along = "finetune" in stages and recipe.finetune is not None and recipe.finetune.train_proposals
    if along and recipe.proposals is not None and not recipe.proposals.on_trunk:
        raise UsageError(
            f"finetune.train_proposals trains no network of the kind {recipe.proposals.network} along, as "
            "`proposals` makes.",
            "Set finetune.train_proposals: false, or proposals.network: rpn-trunk or fpn-trunk.",
        )
    for key, data in _boxes(recipe, stages):
        for what, text in (("annotations", data.annotations), ("images", data.images)):
            if text is not None and not user_path(text).exists():
                raise MissingError(f"{text} does not exist ({key}.{what}).", "Check the path.")


def _boxes(recipe: Recipe, stages: Collection[str]) -> Iterator[tuple[str, DetectionData]]:
    """Yield the sets of images with boxes that the stages read, with the key of each."""
    if {"proposals", "finetune"} & set(stages):
        yield from ((f"data.{key}", data) for key in ("train", "val") if (data := getattr(recipe.data, key)))
    if "evaluate" in stages:
        yield from ((f"evaluate.{number}", each) for number, each in enumerate(recipe.evaluate))
