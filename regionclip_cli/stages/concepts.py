"""`concepts`: build the concept pool and its embeddings from captions (RegionCLIP section 3.2).

Captions are streamed once; only noun counts stay in memory, whatever the size of the corpus.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionclip_cli.data.captions import stream_captions
from regionclip_cli.data.captions.base import expand
from regionclip_cli.errors import UsageError, pluralize
from regionclip_cli.files import check_folder
from regionclip_cli.hub.store import resolve
from regionclip_cli.language.nouns.pool import (
    PAPER_MIN_COUNT,
    PAPER_POOL,
    ConceptPool,
    choose_concepts,
    count_nouns,
    resolve_add_drop,
)
from regionclip_cli.language.templates import templates
from regionclip_cli.recipe.schema import ConceptsSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress, Silent

if TYPE_CHECKING:  # --names-only must not import torch
    from regionclip_cli.language.concept_bank import ConceptBank
    from regionclip_cli.language.text_encoder import TextEncoder

SHOWN = 10


@dataclass(frozen=True)
class ConceptsResult:
    """Outcome of a run.

    Attributes:
        captions: Number of captions read.
        distinct: Number of distinct nouns in them.
        concepts: Number of concepts in the pool.
        min_count: Minimum count of a concept.
        most: Most frequent concepts with their counts.
        nouns: CSV file of the concepts, one `noun,count` per line.
        bank: Concept bank; None with `names_only`.
    """

    captions: int
    distinct: int
    concepts: int
    min_count: int
    most: tuple[tuple[str, int], ...]
    nouns: Path
    bank: Path | None

    def summary(self) -> str:
        """Return a summary for the terminal."""
        found = (
            f"{self.concepts:,} concepts from {self.distinct:,} distinct nouns in {self.captions:,} captions, "
            f"with a minimum count of {self.min_count:,} (the paper's pool: {PAPER_POOL:,} from COCO, with "
            f"{PAPER_MIN_COUNT})."
        )
        return f"{found} Names are in {self.nouns}" + (f", embeddings in {self.bank}." if self.bank else ".")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"nouns": str(self.nouns), "bank": None if self.bank is None else str(self.bank)}


@dataclass(frozen=True)
class ConceptsPlan:
    """Outcome of a dry run.

    Attributes:
        sources: Format and files of each caption source.
        bytes: Total size of the caption files.
        parser: Noun parser.
        min_count: Minimum count of a concept.
        model: Model of the text encoder; None with `names_only`.
        prompts: Number of prompts per concept.
        writes: Files that would be written.
    """

    sources: tuple[str, ...]
    bytes: int
    parser: str
    min_count: int
    model: str | None
    prompts: int
    writes: tuple[Path, ...]

    def summary(self) -> str:
        """Return a summary for the terminal."""
        embedded = f"{self.model} would embed them ({pluralize(self.prompts, 'prompts')} each). " if self.model else ""
        return (
            f"Would read {'; '.join(self.sources)} ({self.bytes / 1e6:,.1f} MB), count nouns with {self.parser} "
            f"and keep those that occur at least {self.min_count:,} times. {embedded}"
            f"Would write {', '.join(map(str, self.writes))}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"writes": [str(path) for path in self.writes], "dry_run": True}


def run(
    recipe: Recipe, progress: Progress | None = None, *, resume: bool = False, dry_run: bool = False
) -> ConceptsResult | ConceptsPlan:
    """Build the concept bank of a recipe in its run folder.

    Args:
        recipe: Uses the sections `data.captions`, `model` and `concepts`.
        progress: Receives progress and messages.
        resume: Repeat an unfinished run; embeddings that it computed come from the cache.
        dry_run: Return the plan without writing anything.

    Raises:
        MissingError: Captions, the model or the parser is missing.
        OutputError: The results cannot be written.
        UsageError: The recipe is inconsistent, the folder already contains concepts, or no noun is frequent enough.
    """
    folder = RunFolder(Path(recipe.out))
    section = _section(recipe)
    bank = None if section.names_only else folder.bank
    plan, encoder = _prepare(recipe, section, folder.nouns, bank)
    if dry_run:
        return plan
    with folder.opened(recipe, "concepts", resume=resume) as record:
        result = _mine(recipe, section, encoder, folder.nouns, bank, progress or Silent())
        record.count(captions=result.captions, distinct=result.distinct, concepts=result.concepts)
    return result


def mine_files(
    recipe: Recipe, out: Path, progress: Progress | None = None, *, resume: bool = False, dry_run: bool = False
) -> ConceptsResult | ConceptsPlan:
    """Build a concept bank without a run folder: the bank is written to `out`, and `nouns.csv` to the same folder.

    Args:
        recipe: As for `run`; its `out` is ignored.
        out: A .safetensors file, or a .csv file for the names with `names_only`.
        progress: Receives progress and messages.
        resume: Continue if the names are written and the bank is not; the names must be the same.
        dry_run: Return the plan without writing anything.

    Raises:
        MissingError, OutputError, UsageError: As `run`.
    """
    section = _section(recipe)
    nouns = out if section.names_only and out.suffix == ".csv" else out.with_name("nouns.csv")
    bank = None if section.names_only else out
    if out.suffix not in (".safetensors", ".csv") or (out.suffix == ".csv" and not section.names_only):
        wants = "a .csv or .safetensors file" if section.names_only else "a .safetensors file"
        raise UsageError(
            f"{out} has the wrong file type for a concept bank.", f"--out requires {wants}, e.g. concepts.safetensors."
        )
    check_folder(out.parent)
    taken = next((path for path in (bank, nouns) if path is not None and path.exists()), None)
    if taken is not None and (taken == bank or not resume):
        hint = "Choose another --out" + ("." if taken == bank else ", or continue the interrupted run with --resume.")
        raise UsageError(f"{taken} already exists.", hint)
    plan, encoder = _prepare(recipe, section, nouns, bank)
    if dry_run:
        return plan
    return _mine(recipe, section, encoder, nouns, bank, progress or Silent(), same=taken is not None)


def _section(recipe: Recipe) -> ConceptsSection:
    if recipe.concepts is None:
        raise UsageError(
            f"The recipe {recipe.name} has no section `concepts`.", "Add `concepts: {}` to use the defaults."
        )
    if not recipe.data.caption_sources():
        raise UsageError(f"The recipe {recipe.name} has no captions.", "Set data.captions.")
    return recipe.concepts


def _prepare(
    recipe: Recipe, section: ConceptsSection, nouns: Path, bank: Path | None
) -> tuple[ConceptsPlan, TextEncoder | None]:
    """Check all inputs before the long computation starts."""
    sources = recipe.data.caption_sources()
    stream_captions(sources)
    files = [path for data in sources if data.path for path in expand(data.paths())]
    names = tuple(f"{data.dataset} {', '.join(data.paths())}".strip() for data in sources)
    resolve_add_drop(section.max_concepts, section.add, section.drop)
    encoder, prompts = None, 0
    if bank is not None:
        from regionclip_cli.inference.device import choose_device
        from regionclip_cli.language.phrase_encoder import require_text
        from regionclip_cli.language.text_encoder import TextEncoder

        encoder = TextEncoder(resolve(recipe.model.start), choose_device(recipe.device))
        require_text(encoder.card)
        prompts = len(templates(section.templates or encoder.card.templates))
    size = sum(path.stat().st_size for path in files)
    writes = (nouns,) if bank is None else (nouns, bank)
    model = None if encoder is None else encoder.model
    return ConceptsPlan(names, size, section.parser, section.min_count, model, prompts, writes), encoder


def _mine(
    recipe: Recipe,
    section: ConceptsSection,
    encoder: TextEncoder | None,
    nouns: Path,
    bank: Path | None,
    progress: Progress,
    same: bool = False,
) -> ConceptsResult:
    """Count nouns, select concepts, write the names, embed them and write the bank.

    With `same`, the names already exist and must be identical.
    """
    progress.start("Reading captions", None, "captions")
    counts = count_nouns(
        stream_captions(recipe.data.caption_sources()), section.parser, section.workers, progress.advance
    )
    progress.finish()
    pool = choose_concepts(counts.nouns, section.min_count, section.max_concepts, section.add, section.drop)
    if pool.not_found:
        progress.note(f"Cannot drop concepts that are not in the captions: {', '.join(pool.not_found[:SHOWN])}.")
    if same and nouns.read_text(encoding="utf-8") != pool.text():
        raise UsageError(
            f"{nouns} contains other concepts than these captions and settings yield.", "Choose another --out."
        )
    pool.write(nouns)
    if bank is not None and encoder is not None:
        _embed(pool, section.templates, encoder, progress).save(bank)
    most = pool.counted[:SHOWN]
    return ConceptsResult(counts.captions, len(counts.nouns), len(pool.counted), section.min_count, most, nouns, bank)


def _embed(pool: ConceptPool, chosen: str | None, encoder: TextEncoder, progress: Progress) -> ConceptBank:
    from regionclip_cli.language.concept_bank import ConceptBank

    progress.start("Embedding concepts", len(pool.names), "concepts")
    embeddings = encoder.encode(pool.names, chosen, progress.advance)
    progress.finish()
    return ConceptBank(pool.names, embeddings, encoder.model, chosen or encoder.card.templates)
