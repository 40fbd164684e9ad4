"""RegionCLIP: find objects by name, from the command line or from Python.

>>> from regionclip_cli import Detector                                          # doctest: +SKIP
>>> Detector("regionclip-tiny").set_classes(["cat", "kettle"]).detect("cat.jpg")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regionclip_cli.inference.detector import Detector

__version__ = "0.1.0"
__all__ = ["Detector", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public classes when they are first used, so that `import regionclip_cli` stays light."""
    if name == "Detector":
        from regionclip_cli.inference.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
