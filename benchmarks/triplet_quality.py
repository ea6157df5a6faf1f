"""Check triplets of the drawn world: `python benchmarks/triplet_quality.py FOLDER...`.

Each FOLDER is an output of `customize synthesize` with the grammar as writer. A picture is
explained by a caption as well as the best drawing of that caption comes near it, over places, sizes
and sides. A triplet shows its change when the second picture is explained best by the edited
caption, among the first caption and other edits of it, and the first picture better by the first
than by the edited one. `--true 40` measures the check itself on drawings whose captions are true.
`--curve BASE` draws the same edits with more and more shared attention.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from quality import percent, table

from customize.embedded.world.colors import PALETTE
from customize.embedded.world.edits import random_edit
from customize.embedded.world.looks import COLORED_LOOKS, PLAIN_LOOKS, Look, apply_look
from customize.embedded.world.scenes import CENTERS, Scene, Thing, draw_scene
from customize.synthesis.writing.drawn_world import DrawnWorldWriter, drawn_captions, scene_of
from customize.synthesis.writing.rewrite import Rewrite

SIDE = 64
SIZES = (0.28, 0.36, 0.44, 0.56, 0.66)
SHIFTS = (-0.09, -0.03, 0.03, 0.09)
OTHERS = 4
"""Other edits of the same caption that the second picture could show."""


def known_looks() -> dict[str, Look]:
    """List every look by its phrase."""
    names = list(PALETTE)
    looks = [Look(name) for name in PLAIN_LOOKS]
    looks += [Look(n, (c,)) for n in COLORED_LOOKS if n != "duotone" for c in names]
    looks += [Look("duotone", (a, b)) for a in names for b in names if a != b]
    return {look.phrase: look for look in looks}


LOOKS = known_looks()


def error_of(picture_HWC: np.ndarray, caption: str) -> float:
    """Return the mean squared error of the best drawing of a caption; infinite if it is none."""
    plain, look = caption, None
    scene = scene_of(plain, np.random.default_rng(0))
    if scene is None:
        phrase = next((p for p in LOOKS if caption.endswith(f" {p}")), None)
        if phrase is None:
            return float("inf")
        plain, look = caption.removesuffix(f" {phrase}"), LOOKS[phrase]
        scene = scene_of(plain, np.random.default_rng(0))
    if scene is None:
        return float("inf")
    return fitted(picture_HWC, scene, look)


def fitted(picture_HWC: np.ndarray, scene: Scene, look: Look | None) -> float:
    """Move, scale and mirror one thing after another to where the drawing comes nearest."""
    if scene.background is None and look is None and not scene.night:
        band = picture_HWC[2:10].reshape(-1, 3)
        scene = replace(scene, rgb=_rgb(np.median(band, axis=0)))
    best, least = scene, _error(picture_HWC, scene, look)
    for _ in range(2):
        for index in range(len(scene.things)):
            for thing in _variants(picture_HWC, best.things[index], len(scene.things)):
                things = list(best.things)
                things[index] = thing
                tried = replace(best, things=tuple(things))
                error = _error(picture_HWC, tried, look)
                if error < least:
                    best, least = tried, error
    return least


def _variants(picture_HWC: np.ndarray, thing: Thing, count: int) -> list[Thing]:
    slots = tuple(CENTERS) if count == 1 else (thing.slot,)
    found = []
    for slot in slots:
        for size in SIZES:
            for dx in SHIFTS:
                for mirrored in (False, True):
                    moved = replace(thing, slot=slot, size=size, dx=dx, mirrored=mirrored)
                    if thing.color is None:
                        x = int((CENTERS[slot] + dx) * SIDE)
                        y = int((0.88 - 0.4 * size) * SIDE)
                        patch = picture_HWC[y - 2 : y + 3, max(0, x - 2) : x + 3].reshape(-1, 3)
                        moved = replace(moved, rgb=_rgb(np.median(patch, axis=0)))
                    found.append(moved)
    return found


def _error(picture_HWC: np.ndarray, scene: Scene, look: Look | None) -> float:
    drawn = draw_scene(scene, SIDE)
    drawn = apply_look(drawn, look) if look else drawn
    return float(np.mean((drawn.astype(np.float32) - picture_HWC) ** 2))


def _rgb(values: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (round(float(value)) for value in values)
    return red, green, blue


def small(picture: Image.Image) -> np.ndarray:
    """Scale a picture to the side the check works at."""
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def shows_change(first: np.ndarray, second: np.ndarray, before: str, after: str) -> bool:
    """Tell whether two pictures show what lies between two captions."""
    others = DrawnWorldWriter().write([before] * OTHERS, range(100, 100 + OTHERS))
    rivals = {before} | {o.edited_caption for o in others if isinstance(o, Rewrite)} - {after}
    told = error_of(second, after)
    if any(error_of(second, rival) <= told for rival in rivals):
        return False
    return error_of(first, before) < error_of(first, after)


def kind_of(instruction: str, before: str, after: str) -> str:
    """Name the kind of an edit by its captions."""
    if after.startswith(before) and "night" not in after[len(before) :]:
        return "look"
    if ("night" in before) != ("night" in after):
        return "time"
    grounds = [caption.partition(" on ")[2] for caption in (before, after)]
    if grounds[0] != grounds[1]:
        return "background"
    counts = [caption.partition(" on ")[0].count(" and ") for caption in (before, after)]
    if counts[0] != counts[1]:
        return "add" if counts[1] > counts[0] else "remove"
    nouns = [
        sorted(p.split()[-1] for p in c.partition(" on ")[0].split(" and "))
        for c in (before, after)
    ]
    return "recolor" if nouns[0] == nouns[1] else "replace"


def check_folder(folder: Path) -> dict[str, list[bool]]:
    """Check every triplet of a synthesis, by kind."""
    found = defaultdict[str, list[bool]](list)
    for line in (folder / "pairs.jsonl").read_text().splitlines():
        row = json.loads(line)
        first, second = (small(Image.open(folder / row[role])) for role in ("source", "edited"))
        before, after = row["source_caption"], row["edited_caption"]
        kind = kind_of(row["instruction"], before, after)
        found[kind].append(shows_change(first, second, before, after))
    return found


def check_true(count: int) -> dict[str, list[bool]]:
    """Check drawings of the world itself: what the check says of them should be yes."""
    found = defaultdict[str, list[bool]](list)
    for kind in ("recolor", "replace", "remove", "add", "background", "texture", "time"):
        for number in range(count):
            edit = random_edit((88, number), kind=kind, size=128)
            first, second = (small(Image.fromarray(p)) for p in (edit.source_HWC, edit.target_HWC))
            before, after = edit.source_caption, edit.target_caption
            if edit.change is not None and before != after:
                found[kind].append(shows_change(first, second, before, after))
    return found


def curve(base_name: str, count: int) -> str:
    """Draw the same edits with attention shared for more and more of the steps."""
    from customize.families.stable_diffusion.text_to_image import (
        open_text_to_image,
        resolve_text_to_image,
    )
    from customize.scoring.networks.encoders import open_clip
    from customize.synthesis.filtering.similarities import similarities
    from customize.synthesis.pictures.draw_pairs import PairSettings, draw_pairs

    base, drawing = resolve_text_to_image(base_name)
    pipeline, clip = open_text_to_image(base), open_clip()
    pipeline.set_progress_bar_config(disable=True)
    answers = DrawnWorldWriter().write(drawn_captions(count, 5), range(count))
    edits = [answer for answer in answers if isinstance(answer, Rewrite)]
    side, guidance = base.resolution, float(np.mean(drawing.guidance))
    rows = []
    for until in (0.0, 0.25, 0.5, 0.75, 1.0):
        for cross in (0.0, 0.8):
            settings = [PairSettings(n, guidance, until, cross) for n in range(len(edits))]
            found = []
            for start in range(0, len(edits), 8):
                wanted = list(zip(edits, settings, strict=True))[start : start + 8]
                pairs = draw_pairs(pipeline, wanted, steps=drawing.steps, size=(side, side))
                found += similarities(clip, pairs)[0]
            means = [
                np.mean([getattr(f, name) for f in found]) for name in ("pictures", "direction")
            ]
            rows.append([until, cross, *(f"{mean:.3f}" for mean in means)])
    return table(rows, ["self until", "cross until", "pictures alike", "direction"])


def shares(found: dict[str, list[bool]]) -> list[list[str]]:
    """Lay shares out by kind, all of them last."""
    rows = [[kind, str(len(hits)), percent(hits)] for kind, hits in sorted(found.items())]
    every = [hit for hits in found.values() for hit in hits]
    return [*rows, ["all", str(len(every)), percent(every)]]


def main() -> None:
    """Check what is named and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--true", type=int, default=0, metavar="COUNT")
    parser.add_argument("--curve", metavar="BASE")
    parser.add_argument("--edits", type=int, default=64, help="edits of the curve")
    arguments = parser.parse_args()
    if arguments.true:
        print("true drawings\n" + table(shares(check_true(arguments.true)), ["edit", "n", "shown"]))
    for folder in arguments.folders:
        print(f"{folder}\n" + table(shares(check_folder(folder)), ["edit", "n", "shown"]))
    if arguments.curve:
        print(curve(arguments.curve, arguments.edits))


if __name__ == "__main__":
    main()
