"""Does a LoRA teach a toy FLUX.2 klein an edit that it applies to unseen pictures?

    python benchmarks/klein_toy.py [--work FOLDER] [--steps 200]

First all weights of a toy transformer (124,000) are fitted to drawn edits, "make it red" and the
like, so that it reads text and pictures, as random weights do not; the text encoder stays random
and the autoencoder is exact (`exact_autoencoder`). Then `customize train` teaches it the new words
"make it festive" (left half red, right half blue) by a LoRA and four pairs. Told are the loss on
these pairs, on fixed noise, before and after, and how many of 24 unseen pictures have both
colours right and the rest untouched. Takes four minutes of one core; writes results/klein_toy.json.
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
from drawn_squares import CELLS, COLORS, PARTS, SQUARE, TILE, Drawn, drawn, known_edit, latents
from exact_autoencoder import exact_autoencoder
from klein_geometry import SIZES, klein_pipeline
from PIL import Image

from customize import families
from customize.editing import Editor
from customize.families.base import Base, resolve_base
from customize.families.flow_matching import FlowMatching
from customize.families.flux2.flux2_klein import Flux2Klein, open_encoder
from customize.families.loading.quiet import hush, quiet_loading
from customize.recipe import Recipe
from customize.shapes import Example
from customize.training.run import run_recipe

RESULT = Path(__file__).parent / "results" / "klein_toy.json"
WORDS = ("make", "it", "the", "left", "right", "half", "festive", *COLORS, " ")
NEW, LEFT, RIGHT = "make it festive", "red", "blue"
PHASES = ((1200, 32, 24, 3e-3), (80, 8, 512, 1e-3))
"""Steps, batch, tokens of text, rate: texts are short, and the padding is learned at the end."""
UNSEEN, NEAR = 24, 16


def write_base(folder: Path) -> Base:
    """Write a toy base with random weights and the exact autoencoder."""
    hush()
    torch.manual_seed(0)
    pipeline = klein_pipeline(SIZES["toy_klein"])
    pipeline.register_modules(vae=exact_autoencoder())
    tokenizer, text_encoder = pipeline.tokenizer, pipeline.text_encoder
    tokenizer.add_tokens([*WORDS])
    tokenizer.chat_template = "{{ messages[0].content }}"
    text_encoder.resize_token_embeddings(len(tokenizer))
    for module in text_encoder.modules():  # usual starts are so small that texts hardly differ
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    kind: Any = type(pipeline.transformer)
    config = {k: v for k, v in pipeline.transformer.config.items() if not k.startswith("_")}
    pipeline.register_modules(transformer=kind(**config | {"in_channels": 16}))
    with quiet_loading():
        pipeline.save_pretrained(folder)
    return resolve_base(str(folder))


def fit(base: Base, seed: int = 1) -> list[float]:
    """Fit the transformer to known edits and save it; return the loss of every hundredth step."""
    family: Any = families.open_family(base)
    transformer, random = family.denoiser.train(), np.random.default_rng(seed)
    family = replace(family, denoiser=transformer.requires_grad_(True))
    encoder, generator = open_encoder(base, "cpu", (), True), torch.Generator().manual_seed(seed)
    texts = {
        f"make {part} {color}": encoder.text(f"make {part} {color}", as_tokens=False)["text"]
        for part in PARTS
        for color in COLORS
    }
    told, average = list[float](), 0.0
    for steps, batch, length, rate in PHASES:
        optimizer = torch.optim.AdamW(transformer.parameters(), rate, (0.9, 0.99), weight_decay=0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=steps, pct_start=0.1
        )
        for step in range(steps):
            loss = _fit_loss(
                family, texts, [known_edit(random) for _ in range(batch)], length, generator
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average = 0.98 * average + 0.02 * float(loss.detach())
            if step % 100 == 99:
                told.append(round(average, 4))
                print(f"fit, {length} tokens, step {step + 1}: {average:.4f}", flush=True)
    transformer.eval().save_pretrained(base.folder / "transformer")
    return told


def _fit_loss(
    family: Flux2Klein,
    texts: dict[str, torch.Tensor],
    edits: Sequence[tuple[np.ndarray, str, np.ndarray]],
    length: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Flow matching's loss, changed cells counting five times."""
    source_BChw = latents([source for source, _, _ in edits])
    target_BChw = latents([target for _, _, target in edits])
    text_BLD = torch.stack([texts[text][:length] for _, text, _ in edits])
    level_B = family.objective.sample_levels(target_BChw.shape, generator)
    noise_BChw = torch.randn(target_BChw.shape, generator=generator)
    noisy_BChw = family.objective.corrupt(target_BChw, noise_BChw, level_B)
    answer_BChw = family.predict(noisy_BChw, level_B, {"source": source_BChw, "text": text_BLD})
    error_BChw = (answer_BChw - (noise_BChw - target_BChw)) ** 2
    return (error_BChw * (1 + 4 * (source_BChw - target_BChw).ne(0))).mean()


def write_pairs(folder: Path) -> list[Drawn]:
    """Write the four pairs that teach the new words."""
    folder.mkdir(parents=True, exist_ok=True)
    random, scenes, rows = np.random.default_rng(7), list[Drawn](), list[str]()
    for number in range(4):
        scenes.append(scene := drawn(random))
        row = {"source": f"{number}_s.png", "instruction": NEW, "edited": f"{number}_t.png"}
        Image.fromarray(scene.picture()).save(folder / row["source"])
        Image.fromarray(_festive(scene)).save(folder / row["edited"])
        rows.append(json.dumps(row))
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return scenes


def _festive(scene: Drawn) -> np.ndarray:
    return scene.picture(np.array(COLORS[LEFT]), np.array(COLORS[RIGHT]))


def train(base: Base, work: Path, steps: int) -> Path:
    """Teach the new words by the project's own training; return the adapter."""
    recipe = Recipe.model_validate(
        {
            "base": {"name": str(base.folder)},
            "concepts": [{"name": "festive", "pairs": str(work / "pairs")}],
            "adapter": {"method": "low_rank", "rank": 8, "targets": ["all"]},
            "train": {"steps": steps, "batch": 4, "learning_rate": 5e-3, "precision": "no"},
            "conditioning_dropout": {"text": 0.0, "image": 0.0, "both": 0.0},
            "preservation": {"share": 0.3, "instructions": [f"make it {name}" for name in COLORS]},
            "preview": {"every": None},
            "output": str(work / "run"),
        }
    )
    run_recipe(recipe, overwrite=True, log=print, progress=False)
    return work / "run" / "adapter.safetensors"


@torch.no_grad()
def loss_on(editor: Editor, scenes: Sequence[Drawn], times: int = 32) -> float:
    """Take the loss on pairs over fixed noise and levels spread evenly."""
    family: Any = families.open_family(editor.base)
    family = replace(family, denoiser=editor.pipeline.transformer)
    encoder, generator = (
        open_encoder(editor.base, "cpu", (), True),
        torch.Generator().manual_seed(3),
    )
    losses, objective = list[float](), FlowMatching()
    for scene in scenes:
        encoded = encoder.encode(Example(scene.picture(), _festive(scene), NEW), as_tokens=False)
        clean_BChw = encoded.target_mean_Chw[None].expand(times, -1, -1, -1)
        noise_BChw = torch.randn(clean_BChw.shape, generator=generator)
        level_B = (torch.arange(times) + 0.5) / times
        given = {
            name: value[None].expand(times, *value.shape)
            for name, value in encoded.conditions.items()
        }
        noisy_BChw = objective.corrupt(clean_BChw, noise_BChw, level_B)
        answer_BChw = family.predict(noisy_BChw, level_B, given)
        target_BChw = objective.target(clean_BChw, noise_BChw, level_B)
        losses.append(float((answer_BChw - target_BChw).square().mean()))
    return float(np.mean(losses))


def right_on(
    editor: Editor, scenes: Sequence[Drawn], instruction: str, halves: Sequence[str]
) -> int:
    """Count edits whose halves are nearest to the colours asked for, the ground untouched."""
    right = 0
    for number, scene in enumerate(scenes):
        asked: dict[str, Any] = {"steps": 10, "text_guidance": 1.0, "seed": number}
        edited = editor.edit(Image.fromarray(scene.picture()), instruction, **asked).image
        cells = np.array(edited).reshape(CELLS, TILE, CELLS, TILE, 3).mean((1, 3))
        middle, rows = scene.x + SQUARE // 2, slice(scene.y, scene.y + SQUARE)
        found = [
            _nearest(cells[rows, scene.x : middle]),
            _nearest(cells[rows, middle : scene.x + SQUARE]),
        ]
        outside = np.ones((CELLS, CELLS), bool)
        outside[rows, scene.x : scene.x + SQUARE] = False
        kept = np.abs(cells[outside] - scene.ground).mean() < NEAR
        right += found == [*halves] and bool(kept)
    return right


def _nearest(cells: np.ndarray) -> str:
    color = np.median(cells.reshape(-1, 3), axis=0)
    return min(COLORS, key=lambda name: float(((color - COLORS[name]) ** 2).sum()))


def main() -> None:
    """Fit, teach, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/customize_klein_toy"))
    parser.add_argument("--steps", type=int, default=200, help="of the LoRA")
    parser.add_argument("--fitted", action="store_true", help="take the base that lies in --work")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.work / "base"
    base = resolve_base(str(folder)) if options.fitted else write_base(folder)
    fit_losses = [] if options.fitted else fit(base)
    base = resolve_base(str(folder))
    unseen = [drawn(np.random.default_rng((11, number))) for number in range(UNSEEN)]
    scenes = write_pairs(options.work / "pairs")
    editor = Editor.from_base(str(folder), device="cpu")
    found: dict[str, Any] = {
        "unseen": UNSEEN,
        "base: make it green": right_on(editor, unseen, "make it green", ("green", "green")),
        "base: new words": right_on(editor, unseen, NEW, (LEFT, RIGHT)),
        "loss before": loss_on(editor, scenes),
    }
    print(json.dumps(found), flush=True)
    adapter = train(base, options.work, options.steps)
    editor = Editor.from_base(str(folder), device="cpu").load(adapter)
    found |= {
        "adapter: new words": right_on(editor, unseen, NEW, (LEFT, RIGHT)),
        "adapter: make it green": right_on(editor, unseen, "make it green", ("green", "green")),
        "loss after": loss_on(editor, scenes),
        "steps": options.steps,
        "fit losses": fit_losses,
    }
    print(json.dumps(found), flush=True)
    if not options.fitted:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
