"""Sources of proposals by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.vision.proposals.base import ProposalSource
from regionclip_cli.vision.proposals.own_trunk import HEADS, OwnTrunk
from regionclip_cli.vision.proposals.pixel_rpn import C4Rpn, FpnRpn, LsjRpn
from regionclip_cli.vision.proposals.static import GivenBoxes, GridBoxes, RandomBoxes

SOURCES: dict[str, type[ProposalSource]] = {
    "rpn-fpn": FpnRpn,
    "rpn-fpn-lsj": LsjRpn,
    "rpn-c4": C4Rpn,
    **HEADS,
    "own-trunk": OwnTrunk,
    "given": GivenBoxes,
    "random": RandomBoxes,
    "grid": GridBoxes,
}
"""What `type` may say in a proposals config."""


def build_proposals(cfg: Mapping[str, Any]) -> ProposalSource:
    """Build a source of proposals, with random weights where it has any.

    Args:
        cfg: `type`, one of `SOURCES`, and the options of that class.

    Raises:
        UsageError: No type, an unknown type, or options that it does not take or lacks.
    """
    options = dict(cfg)
    kind = options.pop("type", None)
    if kind not in SOURCES:
        raise UsageError(
            f"There is no source of proposals called {kind!r}.",
            f"{did_you_mean(str(kind), SOURCES)} Known are {', '.join(SOURCES)}.".strip(),
        )
    source = SOURCES[kind]
    signature = inspect.signature(source)
    try:
        signature.bind(**options)
    except TypeError as err:
        raise UsageError(
            f"The options of proposals {kind!r} do not fit: {err}.",
            f"It takes {', '.join(signature.parameters) or 'no options'}.",
        ) from err
    return source(**options)
