"""`python -m regionclip_cli` is `regionclip`."""

import sys

from regionclip_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
