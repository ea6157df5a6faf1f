"""`python -m customize` is the `customize` command."""

import sys

from customize.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
