"""Names of classes across files: which of a set's classes a name means, and LVIS names as words."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.language import vocabularies


def match_classes(wanted: Iterable[str], known: Sequence[str], where: str) -> tuple[int, ...]:
    """Return which of the `known` classes each wanted name is; capitals, spaces and underscores do not matter.

    Args:
        wanted: Names as people or other files write them.
        known: The C classes of a set, in label order.
        where: What knows them, for the message: "instances_val2017.json".

    Raises:
        UsageError: A name is of no class, or two of them are the same class; the hint tells the nearest ones.
    """
    exact = {name: index for index, name in enumerate(known)}
    loose: dict[str, int] = {}
    for index, name in enumerate(known):
        loose.setdefault(folded(name), index)
    found: dict[int, str] = {}
    for name in wanted:
        index = exact.get(name, loose.get(folded(name), -1))
        if index < 0:
            raise unknown_class(name, known, where)
        if index in found:
            raise UsageError(f"The class {name!r} is wanted twice (as {found[index]!r} too).", "Take one out.")
        found[index] = name
    return tuple(found)


def unknown_class(name: str, known: Sequence[str], where: str) -> UsageError:
    """Return the error for a name that is no class, with the nearest ones."""
    near = did_you_mean(name, known) or did_you_mean(folded(name), [folded(each) for each in known])
    some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else ".")
    return UsageError(f"{where} has no class {name!r}.", near or f"Its {len(known)} classes are: {some}")


def respelt(wanted: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """Return the wanted names that are no class and look like one that nobody wants, {wanted name: class}."""
    names = list(dict.fromkeys(wanted))
    asked, classes = {folded(name) for name in names}, {folded(name): name for name in known}
    free = [each for each in classes if each not in asked]
    near = {
        name: difflib.get_close_matches(folded(name), free, n=1, cutoff=0.8)
        for name in names
        if folded(name) not in classes
    }
    return {name: classes[found[0]] for name, found in near.items() if found}


def perhaps(near: Mapping[str, str]) -> str:
    """Return a question about names that `respelt` found, to be put behind a sentence; empty where there are none."""
    pairs = [f"{name!r} is {own!r}" for name, own in list(near.items())[:3]]
    return f" Perhaps {', '.join(pairs)} there?" if pairs else ""


def folded(name: str) -> str:
    """Return a name without what does not tell classes apart: capitals, underscores, spaces in a row."""
    return " ".join(name.replace("_", " ").split()).casefold()


def lvis_words(names: Sequence[str]) -> tuple[str, ...]:
    """Return LVIS names (`bus_(vehicle)`) as the labels of `@lvis` (`bus`).

    Names that LVIS v1 does not have lose underscores, and the qualifier where they stay unique among `names`.
    """
    known = vocabularies.lvis_labels()
    bare = [known.get(name, name.partition("_(")[0].replace("_", " ").strip()) for name in names]
    times = Counter(word.casefold() for word in bare)
    return tuple(
        word if name in known or times[word.casefold()] == 1 else name.replace("_", " ").strip()
        for name, word in zip(names, bare, strict=True)
    )
