"""The only code that prints to a terminal or reads from one.

`Console` is what commands use; `report` tells a user what an exception means.
"""

from regionclip_cli.console.boundary import Failure, explain, report
from regionclip_cli.console.terminal import Console

__all__ = ["Console", "Failure", "explain", "report"]
