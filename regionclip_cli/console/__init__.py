"""The only code that prints to a terminal or reads from one.

`Console` is what commands use; `explain` turns an exception into what a user is told.
"""

from regionclip_cli.console.boundary import Failure, explain
from regionclip_cli.console.terminal import Console

__all__ = ["Console", "Failure", "explain"]
