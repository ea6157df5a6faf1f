"""Edit pictures the adapter has never seen, and put before and after side by side.

python examples/edit_from_python.py runs/my_dog/adapter.safetensors examples/data/my_dog_unseen
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from customize.adapters.file import read_header
from customize.drawing.contact_sheet import contact_sheet
from customize.editing import Editor
from customize.editing.edited_picture import Edited
from customize.editing.folders.items import Item
from customize.editing.folders.plan import How
from customize.pairs.decode import load_picture
from customize.pairs.find import find_pairs
from customize.shapes import Pair

TITLES = ("before", "instruction", "base alone", "with the adapter", "wanted")


def main() -> None:
    """Edit every source of a folder of pairs, by the base alone and with the adapter."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="sheet (before_after.png by the adapter)")
    parser.add_argument("--base", default="embedded")
    arguments = parser.parse_args()
    output = arguments.output or arguments.adapter.with_name("before_after.png")
    sheet = before_after(arguments.base, arguments.adapter, arguments.pairs)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output)
    print(f"before and after: {output}")


def before_after(base: str, adapter: Path, folder: Path) -> Image.Image:
    """Return a sheet with one row for each pair in `folder`."""
    pairs = find_pairs(folder).pairs
    editor = Editor.from_base(base)
    plain = edits(editor, pairs, lambda instruction: plainly(instruction, adapter))
    editor.load(adapter, strength=1.0)
    taught = edits(editor, pairs, str)
    rows = [
        (load_picture(pair.source), pair.instruction, before, after, load_picture(pair.target))
        for pair, before, after in zip(pairs, plain, taught, strict=True)
    ]
    return contact_sheet(rows, TITLES)


def edits(
    editor: Editor, pairs: Sequence[Pair], wording: Callable[[str], str]
) -> list[Image.Image]:
    """Edit every source from the noise of seed 0; those of one size are edited together.

    Exits with the reason where one cannot be edited.
    """
    items = [Item(pair.source, (wording(pair.instruction),), pair.place, seed=0) for pair in pairs]
    made = dict(editor.edit_many(items, How(seeds="each")))
    images = list[Image.Image]()
    for item in items:
        one = made[item]
        if not isinstance(one, Edited):
            raise SystemExit(str(one))
        images.append(one.image)
    return images


def plainly(instruction: str, adapter: Path) -> str:
    """Say the concepts' words as the base knows them: by the words that they started from."""
    for concept in read_header(adapter).concepts:
        if concept.word and concept.initializer:
            instruction = instruction.replace(concept.word, concept.initializer)
    return instruction


if __name__ == "__main__":
    main()
