"""Where boxes come from: networks that find things without naming them, or boxes that someone else chose."""

from regionclip_cli.vision.proposals.base import Proposals, ProposalSource
from regionclip_cli.vision.proposals.build import build_proposals

__all__ = ["ProposalSource", "Proposals", "build_proposals"]
