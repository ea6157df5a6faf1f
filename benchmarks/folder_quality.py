"""What masks, kept detail, tiles and shared noise do, on the embedded base.

    python benchmarks/folder_quality.py               64 scenes and photographs, 2048 x 1536 pixels
    python benchmarks/folder_quality.py --count 8 --large 512
    python benchmarks/folder_quality.py --only noise --sheet docs/folders.png

masks: of drawn scenes with one thing, how near the inside of the truth's mask comes to the truth,
masked and not, and how far what `--mask auto` changes overlaps what should (intersection over
union). detail: gradient energy where a photograph was left alone, as a share of the source's.
tiles: gradient across tiles' borders, as a share of that elsewhere, and of that
between other latent pixels. noise: spread of the change of mean colour, and of direction in CLIP's
space, over crops of photographs, with one field of noise and with a seed for each. Writes
`benchmarks/results/folder_quality.json`; parts that are not measured anew stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from PIL import Image

from customize.drawing.contact_sheet import contact_sheet
from customize.editing import Editor
from customize.editing.edited_picture import Edited
from customize.editing.folders.items import Item
from customize.editing.folders.plan import How
from customize.editing.masks import Mask
from customize.editing.options import EditOptions
from customize.editing.tiles import starts
from customize.embedded.world.edits import DrawnEdit, EditKind, random_edit
from customize.embedded.world.photos import TEST_PHOTOS, photo, random_crop
from customize.scoring.networks.encoders import open_clip

RESULTS = Path(__file__).parent / "results"
PARTS = ("masks", "detail", "tiles", "noise")
SHOWN = 6
"""Rows of the sheet."""
CHANGED = 10
"""A pixel counts as changed when a channel moves by more than this, of 255."""


def main() -> None:
    """Measure all and write what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--large", type=int, default=2048, help="width of the large photograph")
    parser.add_argument("--tiled", type=int, default=512, help="width of the tiled photographs")
    parser.add_argument("--sheet", type=Path, help="file for some of the pictures of `noise`")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure anew")
    arguments = parser.parse_args()
    editor = Editor.from_base(arguments.base, device="cpu")
    path = RESULTS / "folder_quality.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part in arguments.only:
            match part:
                case "masks":
                    found[part] = masks(editor, arguments.count, place)
                case "detail":
                    found[part] = detail(editor, arguments.large, place)
                case "tiles":
                    found[part] = tiles(editor, arguments.tiled, place)
                case "noise":
                    found[part] = noise(editor, arguments.count, place, arguments.sheet)
    print(json.dumps(found, indent=2))
    path.write_text(json.dumps(found, indent=2) + "\n")


def edited(
    editor: Editor, items: Sequence[Item], how: How, **options: Unpack[EditOptions]
) -> list[np.ndarray]:
    """Edit items and return their answers' pixels, in order; none may fail."""
    answers: dict[Item, np.ndarray] = {}
    for item, answer in editor.edit_many(items, how, **options):
        assert isinstance(answer, Edited), str(answer)
        answers[item] = np.asarray(answer.image.convert("RGB")).astype(int)
    return [answers[item] for item in items]


def masks(editor: Editor, count: int, folder: Path) -> dict[str, float]:
    """Compare edits of one thing with the truth: plain, in the truth's mask, in the base's own."""
    side = editor.base.resolution
    drawn = one_thing_edits(count, side)
    items: dict[str, list[Item]] = {"plain": [], "given": [], "auto": []}
    changed: list[np.ndarray] = []
    for number, edit in enumerate(drawn):
        difference = np.abs(edit.source_HWC.astype(int) - edit.target_HWC).max(axis=2)
        changed.append(difference > CHANGED)
        image, mask = folder / f"{number}.png", folder / f"{number}.mask.png"
        Image.fromarray(edit.source_HWC).save(image)
        Image.fromarray((changed[-1] * 255).astype(np.uint8)).save(mask)
        for name, masks in (
            ("plain", ()),
            ("given", (Mask(file=mask),)),
            ("auto", (Mask(auto=True),)),
        ):
            items[name].append(
                Item(image, (edit.instruction,), f"{number}{name}", masks=masks, variant=name)
            )
    answers = {name: edited(editor, some, How()) for name, some in items.items()}

    def error(name: str) -> float:
        return float(
            np.mean(
                [
                    ((answer - edit.target_HWC)[inside] ** 2).mean()
                    for answer, edit, inside in zip(answers[name], drawn, changed, strict=True)
                ]
            )
        )

    outside = max(
        int(np.abs(answer - edit.source_HWC)[~inside].max(initial=0))
        for answer, edit, inside in zip(answers["given"], drawn, changed, strict=True)
    )
    overlaps = [
        overlap(np.abs(answer - edit.source_HWC).max(axis=2) > CHANGED, inside)
        for answer, edit, inside in zip(answers["auto"], drawn, changed, strict=True)
    ]
    return {
        "count": count,
        "outside_moved_by": outside,
        "inside_error_plain": error("plain"),
        "inside_error_masked": error("given"),
        "auto_overlap_mean": float(np.mean(overlaps)),
        "auto_overlap_median": float(np.median(overlaps)),
    }


def one_thing_edits(count: int, side: int) -> list[DrawnEdit]:
    """Draw unseen changes of scenes with one thing."""
    kinds: tuple[EditKind, ...] = ("recolor", "remove", "replace")
    found, number = list[DrawnEdit](), 0
    while len(found) < count:
        edit = random_edit((9, number), test=True, kind=kinds[len(found) % 3], size=side)
        number += 1
        if edit.change is not None and len(edit.change.before.things) == 1:
            found.append(edit)
    return found


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return intersection over union of two areas."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def detail(editor: Editor, width: int, folder: Path) -> dict[str, float]:
    """Edit a large photograph with and without its own detail."""
    source = photo(TEST_PHOTOS[0]).resize((width, width * 3 // 4), Image.Resampling.LANCZOS)
    rough = np.random.default_rng(0).normal(0, 8, (source.height, source.width, 1))
    source = Image.fromarray((np.asarray(source) + rough).clip(0, 255).astype(np.uint8))
    path = folder / "large.png"
    source.save(path)
    item = Item(path, ("give it navy bars",), "large")
    before = np.asarray(source).astype(int)
    answers = {name: edited(editor, [item], How(), detail=name)[0] for name in ("keep", "scaled")}
    middle = np.zeros(before.shape[:2], bool)
    middle[source.height * 2 // 5 : source.height * 3 // 5, width // 5 : width * 4 // 5] = True
    return {
        name: energy(answer)[middle].mean() / energy(before)[middle].mean()
        for name, answer in answers.items()
    }


def energy(pixels_HWC: np.ndarray) -> np.ndarray:
    """Return the squared gradient of grey values, (H, W)."""
    down_HW, right_HW = np.gradient(pixels_HWC.mean(axis=2))
    return down_HW**2 + right_HW**2


def tiles(editor: Editor, width: int, folder: Path) -> dict[str, float]:
    """Edit photographs in tiles and look for a seam where they begin and end.

    Every border lies between two latent pixels, where a decoder leaves a grid in any picture:
    `border_to_grid` compares with the other columns of that grid, `border_to_elsewhere` with all.
    """
    step, side = editor.pipeline.vae_scale_factor, editor.base.resolution
    grown = -(-width // editor.base.multiple) * editor.base.multiple
    begins = [x * step for x in starts(grown // step, side // step)]
    border, columns = np.zeros(width - 1, bool), np.arange(1, width)  # column x lies before pixel x
    border[[x - 1 for begin in begins for x in (begin, begin + side) if 1 < x < width - 1]] = True
    shares: dict[str, list[float]] = {"border_to_elsewhere": [], "border_to_grid": []}
    for number, name in enumerate(TEST_PHOTOS):
        source = photo(name).resize((width, width * 3 // 4), Image.Resampling.LANCZOS)
        path = folder / f"tiled{number}.png"
        source.save(path)
        item = Item(path, ("turn it into a sepia picture",), f"tiled{number}")
        (answer,) = edited(editor, [item], How(tiles=True))
        across = np.abs(np.diff(answer.mean(axis=2), axis=1)).mean(axis=0)
        own = np.abs(np.diff(np.asarray(source).mean(axis=2), axis=1)).mean(axis=0)
        relative = across / np.maximum(own, 0.1)  # a picture's own edges are no seams
        at_border, grid = relative[border].mean(), (columns % step == 0) & ~border
        shares["border_to_elsewhere"].append(at_border / relative[~border].mean())
        shares["border_to_grid"].append(at_border / relative[grid].mean())
    return {name: float(np.mean(found)) for name, found in shares.items()}


def noise(editor: Editor, count: int, folder: Path, sheet: Path | None) -> dict[str, float]:
    """Edit crops of photographs alike, and measure how far their changes are apart."""
    rng, items = np.random.default_rng(4), list[Item]()
    sources: list[np.ndarray] = []
    for number in range(count):
        crop = random_crop(rng, test=True, size=editor.base.resolution)
        Image.fromarray(crop).save(folder / f"crop{number}.png")
        sources.append(crop.astype(int))
        items.append(Item(folder / f"crop{number}.png", ("give it a blue tint",), f"crop{number}"))
    clip, found = open_clip(), {"count": float(count)}
    columns = [[Image.fromarray(source.astype(np.uint8)) for source in sources]]
    before_BD = clip.image_BD(columns[0])
    for seeds in ("shared", "each"):
        answers = edited(editor, items, How(seeds=seeds))
        columns.append([Image.fromarray(answer.astype(np.uint8)) for answer in answers])
        change_BC = np.array(
            [(a - s).mean(axis=(0, 1)) for a, s in zip(answers, sources, strict=True)]
        )
        after_BD = clip.image_BD(columns[-1])
        direction_BD = torch.nn.functional.normalize(after_BD - before_BD, dim=1).cpu().numpy()
        found[f"{seeds}_color"] = spread(change_BC)
        found[f"{seeds}_direction"] = spread(direction_BD)
    if sheet is not None:
        rows = list(zip(*columns, strict=True))[:SHOWN]
        titles = ["photograph", "one field of noise", "a seed each"]
        contact_sheet(rows, titles, cell=128).save(sheet)
    return found


def spread(vectors_BD: np.ndarray) -> float:
    """Return the mean distance of vectors from their mean."""
    return float(np.linalg.norm(vectors_BD - vectors_BD.mean(axis=0), axis=1).mean())


if __name__ == "__main__":
    main()
