"""Images of a data set by the names that other files give them: their path, or the end of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from regionclip_cli.errors import InputError


class ImageNames:
    """Finds the image that a name means.

    Args:
        names: Paths of the images, with forward slashes.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = [PurePosixPath(name.replace("\\", "/")).parts for name in names]
        self._places: dict[str, list[int]] = {}
        for place, parts in enumerate(self._names):
            if parts:
                self._places.setdefault(parts[-1], []).append(place)

    def find(self, name: str) -> int | None:
        """Return the index of an image, None if there is none; the longest common end of both paths decides.

        Raises:
            InputError: Several images match equally well.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        matching: dict[int, int] = {}
        for place in self._places.get(parts[-1] if parts else "", ()):
            own = self._names[place]
            shared = min(len(own), len(parts))
            if own[-shared:] == parts[-shared:]:
                matching[place] = shared
        longest = max(matching.values(), default=0)
        best = [place for place, shared in matching.items() if shared == longest]
        if len(best) > 1:
            raise InputError(f"{name!r} matches {len(best)} images of the set.", "Use paths as names.")
        return best[0] if best else None
