"""How fast many pictures are edited, against a plain loop of diffusers' pipeline.

    python benchmarks/edit_speed.py                         the embedded base, 64 pictures, on a CPU
    python benchmarks/edit_speed.py --device cuda --geometry sd15 --count 16 --steps 20 --rounds 1

Same base, steps, pictures and noise; plain, exact and fast in turn, the round repeated, in one
process; `--geometry` takes random weights of a published base's size (`geometry.py`). Seconds are
of the wall and, on a CPU, of the process too, which other processes do not lengthen. Likeness is
PSNR at the working size: of exact to plain in levels of 255, of fast to exact in dB (median).
Prints a table and writes `benchmarks/results/edit_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from geometry import SIDES, write_base
from PIL import Image

from customize.drawing.table import table
from customize.editing import Editor
from customize.editing.controlled import Work, ready_for_many, sample_controlled
from customize.editing.edited_picture import Settings
from customize.editing.folders.plan import pictures_at_once
from customize.editing.options import EditOptions
from customize.editing.shared_noise import noise_field
from customize.embedded.world.edits import random_edit

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure all three ways and write what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="sampling steps (the base's own)")
    parser.add_argument("--geometry", choices=list(SIDES), help="instead of a base")
    parser.add_argument("--work", type=Path, default=Path("/tmp/customize_edit_speed"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    base = arguments.base
    if arguments.geometry:
        base = str(write_base(arguments.work / arguments.geometry, arguments.geometry))
    editor = Editor.from_base(base, device=arguments.device)
    works, settings = asked(editor, arguments.count, arguments.steps)
    at_once = pictures_at_once(editor)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "plain": lambda: plain(editor.pipeline, works, settings),
        "exact": lambda: ours(editor, works, settings, at_once),
        "fast": lambda: ours(editor, works, replace(settings, fast=True), at_once),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, np.ndarray] = {}
    for name in ways:
        warm_up(editor, name, works[:at_once], settings, at_once)
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.perf_counter(), time.process_time()
            answers[name] = way()
            wall[name].append(time.perf_counter() - start[0])
            used[name].append(time.process_time() - start[1])
    found = {
        "base": arguments.geometry or arguments.base,
        "device": arguments.device,
        "count": arguments.count,
        "threads": arguments.threads,
        "at_once": at_once,
        "size": [settings.width, settings.height],
        "steps": settings.steps,
        "wall_seconds": {name: median(seconds) for name, seconds in wall.items()},
        "process_seconds": {name: median(seconds) for name, seconds in used.items()},
        "exact_to_plain_levels": float(np.abs(answers["exact"] - answers["plain"]).max() * 255),
        "fast_to_exact_db": decibels(answers["fast"], answers["exact"]),
    }
    told(found, arguments.results)


def warm_up(
    editor: Editor, name: str, works: Sequence[Work], settings: Settings, at_once: int
) -> None:
    """Run a way once on a few pictures, so that nothing is timed that is done once."""
    if name == "plain":
        plain(editor.pipeline, works[:1], settings)
    else:
        ours(editor, works, replace(settings, fast=name == "fast"), at_once)


def asked(editor: Editor, count: int, steps: int | None) -> tuple[list[Work], Settings]:
    """Draw unseen pictures of the embedded base's world at the base's size, each with its edit."""
    side = editor.base.resolution
    drawn = [random_edit((31, number), test=True, size=64) for number in range(count)]
    pictures = [Image.fromarray(edit.source_HWC).resize((side, side)) for edit in drawn]
    works = [
        Work(picture, edit.instruction, seed=0)
        for picture, edit in zip(pictures, drawn, strict=True)
    ]
    options: EditOptions = {} if steps is None else {"steps": steps}
    editor.prepare([work.instruction for work in works], options)
    return works, replace(editor.settings((side, side), options), noise="field")


def plain(pipeline: Any, works: Sequence[Work], settings: Settings) -> np.ndarray:
    """Edit one picture after another as a user of diffusers does, from the same noise."""
    scale = pipeline.vae_scale_factor
    channels = pipeline.vae.config.latent_channels
    noise_Chw = noise_field(0, channels, settings.height // scale, settings.width // scale)
    size = (
        {"width": settings.width, "height": settings.height}
        if hasattr(pipeline, "text_encoder_2")
        else {}
    )
    return np.stack(
        [
            pipeline(
                work.instruction,
                image=work.source,
                num_inference_steps=settings.steps,
                guidance_scale=settings.text_guidance,
                image_guidance_scale=settings.image_guidance,
                latents=noise_Chw[None].to(pipeline.device, pipeline.unet.dtype),
                output_type="np",
                **size,
            ).images[0]
            for work in works
        ]
    )


def ours(editor: Editor, works: Sequence[Work], settings: Settings, at_once: int) -> np.ndarray:
    """Edit as a folder's run does; the network's memory order is put back afterwards."""
    pipeline, made = editor.pipeline, list[np.ndarray]()
    with ready_for_many(pipeline):
        for start in range(0, len(works), at_once):
            some = works[start : start + at_once]
            made += sample_controlled(pipeline, some, settings, tile=editor.base.resolution)
    for network in (pipeline.unet, pipeline.vae):
        network.to(memory_format=torch.contiguous_format)
    return np.stack(made)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    """Return the median PSNR of pictures, (B, H, W, 3) in 0..1, in dB."""
    error_B = ((one.clip(0, 1) - other.clip(0, 1)) ** 2).mean(axis=(1, 2, 3))
    return float(np.median(-10 * np.log10(np.maximum(error_B, 1e-6))))


def told(found: dict[str, Any], results: Path) -> None:
    """Print the table and write the file."""
    rows = [
        [
            name,
            f"{found['wall_seconds'][name]:.1f}",
            f"{found['process_seconds'][name]:.1f}",
            f"{found['wall_seconds']['plain'] / found['wall_seconds'][name]:.2f}",
            f"{found['process_seconds']['plain'] / found['process_seconds'][name]:.2f}",
        ]
        for name in ("plain", "exact", "fast")
    ]
    print(table(rows, ["way", "wall s", "process s", "times (wall)", "times (process)"], 100))
    print(
        f"exact to plain: {found['exact_to_plain_levels']:.3f} of 255 at most; "
        f"fast to exact: {found['fast_to_exact_db']:.1f} dB"
    )
    suffix = "" if found["device"] == "cpu" else f"_{found['device']}"
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"edit_speed{suffix}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
