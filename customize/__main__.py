"""`python -m customize` is the `customize` command."""

import sys

from customize.cli import main

if __name__ == "__main__":
    sys.exit(main())
