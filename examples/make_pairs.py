"""Draw the pairs that the recipes learn from, and others never trained on, into `examples/data`.

python examples/make_pairs.py      writes my_dog, brand_style, my_mark and *_unseen
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from customize.embedded.world.concepts import CONCEPT_NAMES, concept_pairs
from customize.embedded.world.edits import DrawnEdit

DATA = Path(__file__).resolve().parent / "data"
COUNT = 4


def main() -> None:
    """Write four pairs of every concept to learn from, and four to judge by."""
    for name in CONCEPT_NAMES:
        write_pairs(DATA / name, concept_pairs(name, COUNT))
        write_pairs(DATA / f"{name}_unseen", concept_pairs(name, COUNT, test=True))


def write_pairs(folder: Path, edits: Sequence[DrawnEdit]) -> None:
    """Write pictures and the `pairs.jsonl` that says which belongs to which and why."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for number, edit in enumerate(edits, start=1):
        before, after = f"{number}_before.png", f"{number}_after.png"
        Image.fromarray(edit.source_HWC).save(folder / before)
        Image.fromarray(edit.target_HWC).save(folder / after)
        row = {
            "source": before,
            "instruction": edit.instruction,
            "edited": after,
            "source_caption": edit.source_caption,
            "edited_caption": edit.target_caption,
        }
        rows.append(json.dumps(row) + "\n")
    (folder / "pairs.jsonl").write_text("".join(rows), encoding="utf-8")
    print(f"{len(rows)} pairs in {folder}")


if __name__ == "__main__":
    main()
