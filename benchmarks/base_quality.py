"""Measure the embedded base on held-out edits: `python benchmarks/base_quality.py [--base FOLDER]
[--edits 600]`.

Prints the tables of the model card and writes `benchmarks/results/base_quality.json` and a contact
sheet. Edits of things are told apart by how many things there are and by whether their combination
of words was ever drawn for training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image
from quality import Score, edit_all, own_way, percent, psnr, score, table
from transformers import CLIPModel

from customize.drawing.contact_sheet import contact_sheet
from customize.editing import Editor
from customize.embedded.fitting.autoencoder import to_unit
from customize.embedded.fitting.clip import to_clip
from customize.embedded.models import image_features, text_features
from customize.embedded.tokenizer import padded_ids
from customize.embedded.world.colors import nearest_name
from customize.embedded.world.edits import (
    GLOBAL_KINDS,
    LOCAL_KINDS,
    DrawnEdit,
    EditKind,
    random_edit,
)
from customize.embedded.world.photos import random_crop
from customize.embedded.world.scene_changes import NamedChange
from customize.embedded.world.wordings import KEEP
from customize.families.base import EMBEDDED

SEED = 77
RESULTS = Path(__file__).parent / "results"


KINDS = (*GLOBAL_KINDS, *LOCAL_KINDS)
CHAIN = 5


def held_out_edits(count: int, size: int, seed: int = SEED) -> list[DrawnEdit]:
    """Draw `count` unseen edits, the same number of each kind; every second change of a thing has
    several things to choose from.
    """
    drawn = [unseen_edit(KINDS[i % len(KINDS)], i, size, seed) for i in range(count)]
    return sorted(drawn, key=lambda edit: KINDS.index(edit.kind))


def unseen_edit(kind: EditKind, number: int, size: int, seed: int) -> DrawnEdit:
    """Draw one unseen edit; where it changes a thing, of one thing or of several by turns."""
    several = number // len(KINDS) % 2 == 1
    for attempt in range(100):
        edit = random_edit((seed, number, attempt), test=True, kind=kind, size=size)
        if not things_of(edit) or (things_of(edit) > 1) == several:
            return edit
    raise AssertionError(f"no {kind} of the wanted number of things in 100 draws")


def things_of(edit: DrawnEdit) -> int:
    """Count the things an instruction had to choose from; 0 where it names none."""
    return len(edit.change.before.things) if isinstance(edit.change, NamedChange) else 0


@torch.no_grad()
def autoencoder_quality(vae: Any, count: int = 128) -> dict[str, float]:
    """Mean PSNR of the autoencoder alone on unseen scenes and unseen photographs."""
    size = vae.config.sample_size
    scenes = [
        random_edit((SEED, 1, i), test=True, kind="recolor", size=size).source_HWC
        for i in range(count)
    ]
    photos = [random_crop(np.random.default_rng((SEED, 2, i)), True, size) for i in range(count)]
    figures = {}
    for name, pictures in (("scenes", scenes), ("photographs", photos)):
        decoded = vae.decode(vae.encode(to_unit(np.stack(pictures))).latent_dist.mode()).sample
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        figures[name] = float(np.mean([psnr(a, b) for a, b in zip(pictures, pixels, strict=True)]))
    return figures


def chain_quality(pipeline: Any, settings: dict[str, Any], count: int = 24) -> list[float]:
    """Ask five times for no change, each time of what came out before; mean PSNR after each."""
    size = pipeline.vae.config.sample_size
    first = [random_edit((SEED, 5, i), test=True, kind="keep", size=size) for i in range(count)]
    links = [replace(e, instruction=KEEP[i % len(KEEP)]) for i, e in enumerate(first)]
    kept = []
    for _ in range(CHAIN):
        outputs = edit_all(pipeline, links, **settings)
        links = [replace(e, source_HWC=o) for e, o in zip(links, outputs, strict=True)]
        pairs = zip(first, outputs, strict=True)
        kept.append(float(np.mean([psnr(e.source_HWC, o) for e, o in pairs])))
    return kept


def kept_in_a_chain(base: Path, size: int, count: int = 24) -> list[float]:
    """Ask for no change in five wordings, as one chain of `customize edit`; PSNR after each."""
    editor, kept = Editor.from_base(str(base), device="cpu"), list[list[float]]()
    for number in range(count):
        edit = random_edit((SEED, 5, number), test=True, kind="keep", size=size)
        asked = [KEEP[(number + link) % len(KEEP)] for link in range(CHAIN)]
        stages = editor.chain(Image.fromarray(edit.source_HWC), asked)
        kept.append([psnr(edit.source_HWC, np.asarray(stage.image)) for stage in stages])
    return np.mean(kept, axis=0).tolist()


@torch.no_grad()
def clip_quality(folder: Path, tokenizer: Any, count: int = 320) -> dict[str, float]:
    """Score the small CLIP: the caption among 16 distinct ones, and the true edit against a wrong
    one.
    """
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32)
    edits = [random_edit((SEED, 3, i), test=True) for i in range(count)]
    edits = [edit for edit in edits if edit.kind != "keep"]

    def images(pictures: list[np.ndarray]) -> torch.Tensor:
        return image_features(clip, to_clip(to_unit(np.stack(pictures))))

    def texts(captions: list[str]) -> torch.Tensor:
        ids = torch.from_numpy(padded_ids(tokenizer, captions))
        return text_features(clip, ids)

    target, source = images([e.target_HWC for e in edits]), images([e.source_HWC for e in edits])
    after, before = (
        texts([e.target_caption for e in edits]),
        texts([e.source_caption for e in edits]),
    )
    right = 0
    for index, edit in enumerate(edits):
        others = [j for j, o in enumerate(edits) if o.target_caption != edit.target_caption]
        captions = {
            edits[j].target_caption: j for j in np.random.default_rng(index).permutation(others)
        }
        choice = torch.cat((after[index, None], after[list(captions.values())[:15]]))
        right += int(F.cosine_similarity(target[index, None], choice).argmax() == 0)
    better = 0
    for index, edit in enumerate(edits):
        wrong = random_edit((SEED, 4, index), test=True, kind=edit.kind)
        wrong_change = images([wrong.target_HWC]) - images([wrong.source_HWC])
        asked = F.normalize(after[index, None], dim=-1) - F.normalize(before[index, None], dim=-1)
        made = F.normalize(target[index, None], dim=-1) - F.normalize(source[index, None], dim=-1)
        better += int(F.cosine_similarity(made, asked) > F.cosine_similarity(wrong_change, asked))
    return {"caption_of_16": right / len(edits), "true_edit_ahead": better / len(edits)}


Rows = list[tuple[DrawnEdit, Score]]


def by_kind(rows: Rows) -> dict[str, dict[str, float]]:
    """Average the scores by kind, over global and local kinds, and over all."""
    groups: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in KINDS}
    groups |= {"global": GLOBAL_KINDS, "local": LOCAL_KINDS, "all": KINDS}
    return {
        name: _means([(e, s) for e, s in rows if e.kind in kinds]) for name, kinds in groups.items()
    }


def _means(rows: Rows) -> dict[str, float]:
    colors = [
        nearest_name(score.color) == edit.color for edit, score in rows if score.color is not None
    ]
    return {
        "edits": len(rows),
        "output_db": float(np.mean([s.output_db for _, s in rows])),
        "copy_db": float(np.mean([s.copy_db for _, s in rows])),
        "right": float(np.mean([s.right for _, s in rows])),
        "strong": float(np.mean([s.strong for _, s in rows])),
        "unchanged_db": mean_unchanged_db([s for _, s in rows]),
        "color_right": float(np.mean(colors)) if colors else float("nan"),
    }


def mean_unchanged_db(scores: Sequence[Score]) -> float:
    """Average over the edits in which something should stay; NaN without any."""
    found = [s.unchanged_db for s in scores if s.unchanged_db is not None]
    return float(np.mean(found)) if found else float("nan")


def of_things(rows: Rows) -> list[dict[str, Any]]:
    """Count verdicts for each kind of change of a thing: by one, two and three things, and by seen
    and held-out combinations.
    """
    lines = []
    for kind in ("recolor", "remove", "replace"):
        for things in (1, 2, 3):
            for unseen in (False, True):
                chosen = [
                    s
                    for e, s in rows
                    if (e.kind, things_of(e), e.held_out) == (kind, things, unseen)
                ]
                verdicts = [s.verdict for s in chosen]
                lines.append(
                    {
                        "kind": kind,
                        "things": things,
                        "combination": "held out" if unseen else "seen",
                        "edits": len(chosen),
                        **{v: verdicts.count(v) for v in ("named", "other", "both", "nothing")},
                        "right": sum(s.right for s in chosen),
                        "strong": sum(s.strong for s in chosen),
                    }
                )
    return lines


def things_table(lines: list[dict[str, Any]]) -> str:
    """Lay the counts out as shares with intervals."""
    titles = ["edit", "things", "combination", "n", "named", "other", "both", "nothing"]
    rows = []
    for line in lines:
        if line["edits"]:
            shares = [
                percent([True] * line[name] + [False] * (line["edits"] - line[name]))
                for name in ("named", "other", "both", "nothing", "right", "strong")
            ]
            rows.append([line[n] for n in ("kind", "things", "combination", "edits")] + shares)
    return table(rows, [*titles, "right", "strong"])


def kinds_table(kinds: dict[str, dict[str, float]]) -> str:
    """Lay out the means of each kind."""
    names = list(kinds["all"])
    rows = [[kind, *(f"{means[name]:.2f}" for name in names)] for kind, means in kinds.items()]
    return table(rows, ["kind", *names])


def sheet(rows: Rows, outputs: np.ndarray) -> Image.Image:
    """Show the first four edits of every kind: source, instruction, output, target."""
    lines, seen = [], dict.fromkeys(KINDS, 0)
    for (edit, _), output in zip(rows, outputs, strict=True):
        seen[edit.kind] += 1
        if seen[edit.kind] <= 4:
            pictures = [Image.fromarray(p) for p in (edit.source_HWC, output, edit.target_HWC)]
            lines.append([pictures[0], edit.instruction, pictures[1], pictures[2]])
    return contact_sheet(lines, ["source", "instruction", "output", "target"], cell=128)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=EMBEDDED)
    parser.add_argument("--edits", type=int, default=600)
    parser.add_argument("--text-guidance", type=float)
    parser.add_argument("--image-guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--detail", choices=("scaled", "keep"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    settings = own_way(arguments.base)
    chosen = {name: getattr(arguments, name) for name in settings}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        arguments.base, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    size = pipeline.vae.config.sample_size
    edits = held_out_edits(arguments.edits, size)
    place = {"base": str(arguments.base)}
    outputs = edit_all(pipeline, edits, **place, **settings)
    alone = edit_all(pipeline, edits, **place, **{**settings, "detail": "scaled"})
    rows, alone_rows = (
        [(e, score(e, o)) for e, o in zip(edits, made, strict=True)] for made in (outputs, alone)
    )
    figures = {
        "settings": settings,
        "autoencoder_db": autoencoder_quality(pipeline.vae),
        "clip": clip_quality(arguments.base, pipeline.tokenizer),
        "kept_after_each_of_five_db": chain_quality(pipeline, {**settings, **place}),
        "kept_in_a_chain_of_five_db": kept_in_a_chain(arguments.base, size),
        "edits": by_kind(rows),
        "things": of_things(rows),
        "edits_by_the_pipeline_alone": by_kind(alone_rows),
        "things_by_the_pipeline_alone": of_things(alone_rows),
    }
    apart = [name for name in figures if name.startswith(("edits", "things"))]
    print(json.dumps({n: f for n, f in figures.items() if n not in apart}, indent=2))
    for name in apart:
        print(f"\n{name}")
        found = figures[name]
        print(things_table(found) if name.startswith("things") else kinds_table(found))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "base_quality.json").write_text(json.dumps(figures, indent=2) + "\n")
    sheet(rows, outputs).save(arguments.out / "base_quality.png")


if __name__ == "__main__":
    main()
