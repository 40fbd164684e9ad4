"""All that is decided before the first image is read: which images, concepts, networks and shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from regionclip_cli.data.boxes import BoxFile, read_boxes
from regionclip_cli.data.captions import PairSet, open_pairs
from regionclip_cli.data.region_labels.format import LabelManifest
from regionclip_cli.data.region_labels.store import is_there, is_whole
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.model_card import ModelCard, fingerprint, read_card
from regionclip_cli.hub.store import resolve
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.recipe.schema import PseudolabelSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress
from regionclip_cli.runs.sharding import Share

_ELSEWHERE = {"shard_size", "concepts", "boxes", "top_k"}
"""Settings that a manifest keeps in fields of their own."""


@dataclass(frozen=True, eq=False)
class Plan:
    """One job of labelling, checked.

    Attributes:
        recipe: Where it comes from.
        settings: Its section `pseudolabel`.
        pairs: The images.
        bank: The concepts, in the teacher's space.
        teacher: File of the model that names regions.
        proposals: File of the model that finds them, or None where no network does.
        boxes: Given regions, or None.
        folder: Where the labels go.
        share: Which shards are this process's.
        manifest: What the labels are of.
    """

    recipe: Recipe
    settings: PseudolabelSection
    pairs: PairSet
    bank: ConceptBank
    teacher: Path
    proposals: Path | None
    boxes: BoxFile | None
    folder: Path
    share: Share
    manifest: LabelManifest

    @property
    def shards(self) -> range:
        """Return the numbers of this share's shards."""
        return self.share.of(self.manifest.shards)

    def left(self) -> list[int]:
        """Return which of them are not there as a whole yet."""
        return [shard for shard in self.shards if not is_whole(self.folder, shard, len(self.manifest.rows_of(shard)))]

    def begun(self) -> list[int]:
        """Return which of them are there, be they whole or damaged."""
        return [shard for shard in self.shards if is_there(self.folder, shard)]

    def finished(self) -> bool:
        """Say whether all shards, of all shares, are whole."""
        whole = replace(self, share=Share())
        return not whole.left()


def make_plan(recipe: Recipe, share: Share, progress: Progress) -> Plan:
    """Check everything that a job of labelling needs, without loading a network.

    Raises:
        MissingError: Captions, a model, its text encoder or proposal network, or the concept bank is not there.
        UsageError: The recipe has no such section, or what it names does not fit together.
    """
    settings = recipe.pseudolabel
    if settings is None:
        raise UsageError("The recipe has no section `pseudolabel`.", "Add `pseudolabel: {}` to use the defaults.")
    if (settings.source == "given") != (settings.boxes is not None):
        raise UsageError(
            "`pseudolabel.boxes` requires `pseudolabel.source: given`, and the reverse.", "Set both or neither."
        )
    folder = RunFolder(Path(recipe.out))
    teacher = resolve(recipe.model.teacher or recipe.model.start)
    bank = _bank(recipe, settings, teacher, folder, progress)
    proposals = resolve(recipe.model.proposals or recipe.model.start) if settings.source == "network" else None
    if proposals is not None and read_card(proposals).proposals is None:
        raise MissingError(
            f"{proposals.name} has no proposal network.",
            "Set `model.proposals` to a model that has one, or set `pseudolabel.source` to random, grid or given.",
        )
    boxes = None if settings.boxes is None else read_boxes(Path(settings.boxes))
    pairs = open_pairs(recipe.data.caption_sources())
    own = settings.model_dump(mode="json", exclude=_ELSEWHERE)
    own |= {"boxes": hashlib.sha256(boxes.path.read_bytes()).hexdigest()[:16]} if boxes else {}
    own |= {"seed": recipe.seed} if settings.source == "random" else {}
    manifest = LabelManifest(
        images=len(pairs),
        shard_size=settings.shard_size,
        names=bank.names,
        kept=min(settings.top_k, len(bank.names)),
        data=pairs.fingerprint,
        bank={"model": bank.model, "templates": bank.templates, "fingerprint": bank.fingerprint},
        teacher=_identity(teacher),
        proposals=_identity(proposals) if proposals else {},
        settings=own,
    )
    return Plan(recipe, settings, pairs, bank, teacher, proposals, boxes, folder.labels, share, manifest)


def _bank(
    recipe: Recipe, settings: PseudolabelSection, teacher: Path, folder: RunFolder, progress: Progress
) -> ConceptBank:
    """Load the concepts in the teacher's space.

    The recipe's own bank is in the space of the model that training starts from. Where the teacher is another model,
    its own text encoder embeds the same names with the same templates, as the paper's code asks for a second file of
    embeddings then; concept ids mean the same in both.
    """
    path = folder.bank if settings.concept_bank is None else Path(settings.concept_bank)
    if not path.is_file():
        hint = "Run `regionclip concepts RECIPE` first, or name a bank in `pseudolabel.concept_bank`."
        raise MissingError(f"The concept bank {path} does not exist.", hint)
    bank, encoder = ConceptBank.load(path), TextEncoder(teacher)
    start = _card(recipe.model.start)
    foreign = settings.concept_bank is None and start is not None and bank.model == start.text_model != encoder.model
    if foreign:
        progress.start(f"Embedding concepts with {encoder.model}", len(bank.names), "concepts")
        try:
            embeddings = encoder.encode(bank.names, bank.templates or None, progress.advance)
        finally:
            progress.finish()
        bank = ConceptBank(bank.names, embeddings, encoder.model, bank.templates)
    bank.check(encoder.model, encoder.dim)
    return bank


def _card(model: str) -> ModelCard | None:
    try:
        return read_card(resolve(model))
    except MissingError:
        return None


def _identity(path: Path) -> dict[str, str]:
    return {"name": read_card(path).name, "fingerprint": fingerprint(path)}
