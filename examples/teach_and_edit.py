"""Teach the example dog and edit pictures it has not seen: what `make demo` runs, in one process.

python examples/teach_and_edit.py

The libraries take longer to import than four edits to make: once for all is worth it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edit_from_python import before_after
from make_pairs import DATA
from make_pairs import main as draw_pairs

from customize.cli.main import main as customize

RECIPE, RUN = "recipes/my_dog.yaml", Path("runs/my_dog")


def main() -> int:
    """Draw the pairs, train where that was not done yet, and put edits side by side."""
    draw_pairs()
    adapter, sheet = RUN / "adapter.safetensors", RUN / "before_after.png"
    if not adapter.exists():
        print(f"customize train {RECIPE}")
        if code := customize(["train", RECIPE]):
            return code
    before_after("embedded", adapter, DATA / "my_dog_unseen").save(sheet)
    print(f"before and after: {sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
