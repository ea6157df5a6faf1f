"""InstructPix2Pix's two stages in miniature: `python benchmarks/two_stages.py`.

The base's text-to-image twin draws triplets, gets four zeroed input channels, and learns to edit
from them alone. Rows differ in the pairs learned from: true ones of the drawn world, synthesized
and filtered ones, unfiltered ones, and a tenth of the filtered ones; all else is the same. Held-out
edits score each. A stopped call goes on: synthesis and fitting both do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from base_quality import RESULTS, held_out_edits
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image
from quality import edit_all, own_way, percent, score, table

from customize.embedded.world.edits import EditKind, random_edit
from customize.families.stable_diffusion.text_to_image import resolve_text_to_image
from customize.recipe.editing_base import EditingBaseRecipe
from customize.recipe.synthesis import load_synthesis_recipe
from customize.synthesis.run import synthesize
from customize.training.base_fitting.fit_base import fit_editing_base

KINDS: tuple[EditKind, ...] = (
    "recolor", "replace", "remove", "add", "background", "texture", "time", "scene look",
)  # fmt: skip
"""The kinds of edit that the grammar writes: what all rows could learn."""
SEED = 3
RECIPES = Path(__file__).parents[1] / "recipes"
RECIPE, TRIPLETS = (
    RECIPES / name for name in ("base/two_stages_embedded.yaml", "synthesize_embedded.yaml")
)


def make_true(out: Path, count: int, size: int) -> Path:
    """Write true pairs of the same kinds."""
    folder = out / "true"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        edit = random_edit((SEED, number), kind=KINDS[number % len(KINDS)], size=size)
        names = [f"{number:05}_{role}.png" for role in ("source", "edited")]
        for name, pixels in zip(names, (edit.source_HWC, edit.target_HWC), strict=True):
            Image.fromarray(pixels).save(folder / name)
        rows.append({"source": names[0], "instruction": edit.instruction, "edited": names[1]})
    table_file = folder / "pairs.jsonl"
    table_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table_file


def make_synthesized(base_name: str, out: Path, count: int, *, filtered: bool) -> Path:
    """Synthesize pairs as the shipped recipe does, with its filter or with none."""
    output = out / ("filtered" if filtered else "unfiltered")
    overrides = [
        f"drawn_captions={2 * count}",
        f"triplets={count}",
        f"pictures.base={base_name}",
        f"output={output}",
    ]
    if not filtered:
        nothing = "pictures: -1, first: -1, second: -1, direction: -1"
        overrides.append(f"filter={{{nothing}, keep: 4, most: 4, alike: 1}}")
    return synthesize(load_synthesis_recipe(TRIPLETS, overrides)).pairs


def fit(name: str, base_name: str, pairs: Path, out: Path, samples: int, size: int) -> Path:
    """Fit one row's editor, all rows alike: as the recipe says, from pairs of its own."""
    output = out / f"editor_{name}"
    if (output / "model").exists():
        return output / "model"
    changed = {
        "start": base_name,
        "pairs": str(pairs),
        "output": str(output),
        "samples": samples,
        "resolution": size,
    }
    recipe = EditingBaseRecipe.model_validate({**yaml.safe_load(RECIPE.read_text()), **changed})
    folder = fit_editing_base(recipe)
    if folder is None:
        raise SystemExit("stopped; the same command goes on")
    return folder


def quality(folder: Path, edits: int, size: int) -> dict[str, Any]:
    """Score an editor by held-out edits of the kinds that were learned."""
    kind: Any = StableDiffusionInstructPix2PixPipeline
    pipeline = kind.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    chosen = [edit for edit in held_out_edits(2 * edits, size) if edit.kind in KINDS][:edits]
    outputs = edit_all(pipeline, chosen, **own_way(detail="scaled"))
    rows = [(e, score(e, o)) for e, o in zip(chosen, outputs, strict=True)]
    return {
        "output_db": float(np.mean([s.output_db for _, s in rows])),
        "copy_db": float(np.mean([s.copy_db for _, s in rows])),
        "right": percent([s.right for _, s in rows]),
        "strong": percent([s.strong for _, s in rows]),
    }


def main() -> None:
    """Run all stages that are not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--out", type=Path, default=Path("runs/two_stages"))
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=24_000)
    parser.add_argument("--edits", type=int, default=240)
    arguments = parser.parse_args()
    out, size = arguments.out, resolve_text_to_image(arguments.base)[0].resolution
    filtered = make_synthesized(arguments.base, out, arguments.pairs, filtered=True)
    tenth = filtered.with_name("tenth.jsonl")
    lines = filtered.read_text().splitlines(keepends=True)
    tenth.write_text("".join(lines[: max(1, len(lines) // 10)]))
    sets = {
        "true": make_true(out, arguments.pairs, size),
        "filtered": filtered,
        "unfiltered": make_synthesized(arguments.base, out, arguments.pairs, filtered=False),
        "tenth": tenth,
    }
    found = {}
    for name, pairs in sets.items():
        editor = fit(name, arguments.base, pairs, out, arguments.samples, size)
        found[name] = quality(editor, arguments.edits, size)
    (RESULTS / "two_stages.json").write_text(json.dumps(found, indent=2) + "\n")
    titles = ["output_db", "copy_db", "right", "strong"]
    rows = [
        [name, *(f"{f[t]:.1f}" if isinstance(f[t], float) else f[t] for t in titles)]
        for name, f in found.items()
    ]
    print(table(rows, ["pairs", "dB", "dB of a copy", "right", "strong"]))


if __name__ == "__main__":
    main()
