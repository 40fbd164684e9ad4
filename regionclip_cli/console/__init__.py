"""Terminal input and output: no other package prints or reads from the terminal.

Commands use `Console`; `report` explains an exception to the user.
"""

from regionclip_cli.console.boundary import Failure, explain, report
from regionclip_cli.console.terminal import Console

__all__ = ["Console", "Failure", "explain", "report"]
