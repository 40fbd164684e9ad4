"""mmcv's compiled operators, answered by torchvision where mmcv was installed without them.

mmdet needs `mmcv.ops`, and `mmcv.ops` needs the compiled module `mmcv._ext`. The `mmcv-lite` wheel has no such module,
and building mmcv from source takes a compiler and a quarter of an hour. What a detector of this package runs is NMS and
RoIAlign, and torchvision carries both: `install` puts a module under the name `mmcv._ext` that forwards to them. A real
compiled module always wins.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

from regionclip_cli.errors import MissingError
from regionclip_cli.vision.mmcv_ops import operators

NAME = "mmcv._ext"
"""Where mmcv looks for its compiled operators."""

HINT = "Install full mmcv with compiled operators: https://mmcv.readthedocs.io/en/latest/get_started/build.html"


class StandInModule(ModuleType):
    """A module that has every operator: the ones of `operators.OPERATORS` work, any other explains itself when called.

    mmcv checks at import time that all of its operators exist, so they must all be there to be asked for.
    """

    def __init__(self) -> None:
        super().__init__(NAME, "mmcv's operators on torchvision.")
        # `find_spec("mmcv._ext")` reads `__spec__` of a loaded module and raises ValueError where it is None. A spec
        # without a loader keeps mmengine's `mmcv_full_available()` truthful: it answers False.
        self.__spec__ = ModuleSpec(NAME, loader=None)
        for name, operator in operators.OPERATORS.items():
            setattr(self, name, operator)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent(name)


def _absent(name: str) -> Callable[..., NoReturn]:
    """Return a function that refuses to be the operator called `name`."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise MissingError(f"The operator {name!r} is not in this installation of mmcv.", HINT)

    refuse.__name__ = name
    return refuse


def install() -> bool:
    """Make `mmcv._ext` importable; call it before anything imports `mmcv.ops` or mmdet.

    Calling it again changes nothing.

    Returns:
        True when the stand-in answers for mmcv's operators, False when the compiled module is there and does.
    """
    if NAME in sys.modules:
        return isinstance(sys.modules[NAME], StandInModule)
    if importlib.util.find_spec(NAME) is not None:
        return False
    stand_in = StandInModule()
    sys.modules[NAME] = stand_in
    # The import system would set the submodule on its package; so that `mmcv._ext` reads as it does when compiled.
    setattr(importlib.import_module("mmcv"), "_ext", stand_in)  # noqa: B010
    return True
