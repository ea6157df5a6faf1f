"""Measure the embedded base on held-out edits: `python benchmarks/base_quality.py [--base FOLDER]
[--edits 300]`.

Prints the table of the model card and writes `benchmarks/results/base_quality.json` and a contact
sheet.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image
from quality import Score, edit_all, psnr, score, table
from transformers import CLIPModel

from customize.drawing.contact_sheet import contact_sheet
from customize.embedded.fitting.autoencoder import to_unit
from customize.embedded.fitting.clip import to_clip
from customize.embedded.models import image_features, text_features
from customize.embedded.tokenizer import token_ids
from customize.embedded.world.colors import nearest_name
from customize.embedded.world.edits import GLOBAL_KINDS, LOCAL_KINDS, DrawnEdit, random_edit
from customize.embedded.world.photos import random_crop
from customize.families.base import EMBEDDED

SEED = 77
RESULTS = Path(__file__).parent / "results"


def held_out_edits(count: int) -> list[DrawnEdit]:
    """Draw `count` unseen edits, the same number of each kind but a few "keep"."""
    kinds = (*GLOBAL_KINDS, *LOCAL_KINDS)
    edits = [random_edit((SEED, i), test=True, kind=kinds[i % len(kinds)]) for i in range(count)]
    return sorted(edits, key=lambda edit: kinds.index(edit.kind))


@torch.no_grad()
def autoencoder_quality(vae: Any, count: int = 128) -> dict[str, float]:
    """Mean PSNR of the autoencoder alone on unseen scenes and unseen photographs."""
    scenes = [random_edit((SEED, 1, i), test=True, kind="recolor").source_HWC for i in range(count)]
    photos = [random_crop(np.random.default_rng((SEED, 2, i)), test=True) for i in range(count)]
    figures = {}
    for name, pictures in (("scenes", scenes), ("photographs", photos)):
        decoded = vae.decode(vae.encode(to_unit(np.stack(pictures))).latent_dist.mode()).sample
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        figures[name] = float(np.mean([psnr(a, b) for a, b in zip(pictures, pixels, strict=True)]))
    return figures


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
        ids = torch.from_numpy(token_ids(tokenizer, captions))
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


def summary(edits: list[DrawnEdit], scores: list[Score]) -> dict[str, dict[str, float]]:
    """Average the scores by kind, over global and local kinds, and over all."""
    groups: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in (*GLOBAL_KINDS, *LOCAL_KINDS)}
    groups |= {"global": GLOBAL_KINDS, "local": LOCAL_KINDS, "all": (*GLOBAL_KINDS, *LOCAL_KINDS)}
    return {
        name: _means([(e, s) for e, s in zip(edits, scores, strict=True) if e.kind in kinds])
        for name, kinds in groups.items()
    }


def _means(rows: list[tuple[DrawnEdit, Score]]) -> dict[str, float]:
    right = [
        (edit.held_out, nearest_name(score.color) == edit.color)
        for edit, score in rows
        if score.color is not None
    ]
    unseen = [hit for held_out, hit in right if held_out]
    return {
        "edits": len(rows),
        "output_db": float(np.mean([s.output_db for _, s in rows])),
        "copy_db": float(np.mean([s.copy_db for _, s in rows])),
        "strong": float(np.mean([s.strong for _, s in rows])),
        "unchanged_db": float(np.mean([s.unchanged_db for _, s in rows if s.unchanged_db < 60])),
        "color_right": float(np.mean([hit for _, hit in right])) if right else float("nan"),
        "color_right_held_out": float(np.mean(unseen)) if unseen else float("nan"),
    }


def sheet(edits: list[DrawnEdit], outputs: np.ndarray) -> Image.Image:
    """Show the first three edits of every kind: source, instruction, output, target."""
    rows, seen = [], dict.fromkeys((*GLOBAL_KINDS, *LOCAL_KINDS), 0)
    for edit, output in zip(edits, outputs, strict=True):
        seen[edit.kind] += 1
        if seen[edit.kind] <= 3:
            pictures = [Image.fromarray(p) for p in (edit.source_HWC, output, edit.target_HWC)]
            rows.append([pictures[0], edit.instruction, pictures[1], pictures[2]])
    return contact_sheet(rows, ["source", "instruction", "output", "target"], cell=128)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=EMBEDDED)
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--text-guidance", type=float)
    parser.add_argument("--image-guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    settings = json.loads((arguments.base / "customize.json").read_text())["edit"]
    chosen = {name: getattr(arguments, name) for name in settings}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        arguments.base, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    edits = held_out_edits(arguments.edits)
    outputs = edit_all(pipeline, edits, **settings)
    figures = {
        "settings": settings,
        "autoencoder_db": autoencoder_quality(pipeline.vae),
        "clip": clip_quality(arguments.base, pipeline.tokenizer),
        "edits": summary(edits, [score(e, o) for e, o in zip(edits, outputs, strict=True)]),
    }
    names = list(figures["edits"]["all"])
    rows = [
        [kind, *(f"{means[name]:.2f}" for name in names)]
        for kind, means in figures["edits"].items()
    ]
    print(
        json.dumps(
            {name: figures[name] for name in ("settings", "autoencoder_db", "clip")}, indent=2
        )
    )
    print(table(rows, ["kind", *names]))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "base_quality.json").write_text(json.dumps(figures, indent=2) + "\n")
    sheet(edits, outputs).save(arguments.out / "base_quality.png")


if __name__ == "__main__":
    main()
