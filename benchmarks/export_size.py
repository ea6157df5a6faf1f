"""Size against error of a K/V adapter of Stable Diffusion 1.5's size, stored as low rank.

    python benchmarks/export_size.py [K/V adapter.safetensors of the embedded base]

The changes of 32 layers (19.17 M weights) are synthetic: random singular vectors, and singular
values that fall as k^-p. K/V adapters trained on the embedded base fall with p near 1 (from the
first value to the middle one), so that is the case to look at; p = 0.5 and p = 2 show what slower
and faster ones give. Two rows are written with `export` and measured from the file.

With the file of a trained adapter only that one is measured: its table in parts of its full
change's size, its layers being smaller, and for some rows how far its edits and their scores move.
Writes results/export_size.json, where what is not measured keeps its last outcome.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from geometry import unet_config
from torch import Tensor

from customize.adapters.deltas import layers
from customize.adapters.file import AdapterFile, read_adapter
from customize.adapters.header import Header
from customize.drawing.table import table
from customize.exporting import export
from customize.exporting.proof.prove import prove
from customize.exporting.targets import ExportOptions
from customize.families.base import Base, resolve_base
from customize.scoring import open_models

RESULTS = Path(__file__).resolve().parent / "results" / "export_size.json"
POWERS = (0.5, 1.0, 2.0)
ERRORS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)
ENERGY = 0.6  # Custom Diffusion's own compression (arXiv 2212.04488, section 4.2)
SIZE_MB = 15.0
HALF = 2  # bytes of a number in float16
# Rows of the trained adapter that edits are made for.
EDITED = {
    "error 0.01": ExportOptions(error=0.01),
    "error 0.05": ExportOptions(error=0.05),
    "error 0.2": ExportOptions(error=0.2),
    f"energy {ENERGY:g}": ExportOptions(energy=ENERGY),
}
TITLES = ("asked for", "ranks", "size, MB", "relative error", "worst layer")


def shapes() -> dict[str, tuple[int, int]]:
    """List the text-reading keys and values of Stable Diffusion 1.5 with their shapes."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config("sd15"))
    found = {
        f"denoiser.{name.removesuffix('.weight')}": tuple(weight.shape)
        for name, weight in unet.state_dict().items()
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    assert sum(out * width for out, width in found.values()) == 19_169_280
    return found


def synthetic(out: int, width: int, power: float, generator: torch.Generator) -> Tensor:
    """Draw a change of norm 1 whose singular values fall as k^-power."""
    rank = min(out, width)
    left_OR, _ = torch.linalg.qr(torch.randn(out, rank, generator=generator))
    right_IR, _ = torch.linalg.qr(torch.randn(width, rank, generator=generator))
    values_R = torch.arange(1, rank + 1).float() ** -power
    return (left_OR * (values_R / values_R.norm())) @ right_IR.T


def spectra_rows(spectra: Mapping[str, Tensor], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Work out ranks, size and error for every limit; `sizes` are O + I of each layer.

    Errors are relative Frobenius norms; the whole adapter's weighs layers by what they change.
    """
    rows = [_row(f"error {e:g}", spectra, sizes, lambda s, e=e: _at_error(s, e)) for e in ERRORS]
    rows.append(_row(f"energy {ENERGY:g}", spectra, sizes, lambda s: _at_energy(s, ENERGY)))
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        row = _row("", spectra, sizes, lambda s, m=middle: _at_energy(s, m))
        low, high = (middle, high) if row["size_mb"] <= SIZE_MB else (low, middle)
    rows.append(_row(f"size {SIZE_MB:g} MB", spectra, sizes, lambda s: _at_energy(s, low)))
    return rows


def _row(label: str, spectra: Mapping[str, Tensor], sizes: Mapping[str, int], rank_of: Any) -> Any:
    ranks = {layer: rank_of(values) for layer, values in spectra.items()}
    missing = {layer: float(values[ranks[layer] :].norm()) for layer, values in spectra.items()}
    whole = {layer: float(values.norm()) for layer, values in spectra.items()}
    lost, there = (sum(x**2 for x in norms.values()) ** 0.5 for norms in (missing, whole))
    return {
        "asked": label,
        "ranks": [min(ranks.values()), max(ranks.values())],
        "size_mb": sum(ranks[layer] * sizes[layer] for layer in ranks) * HALF / 1e6,
        "error": lost / there,
        "worst_layer": max(missing[layer] / whole[layer] for layer in ranks),
    }


def _at_error(values_R: Tensor, error: float) -> int:
    """Return the least rank within the relative error."""
    tails_R = values_R.square().flip(0).cumsum(0).flip(0).sqrt()
    return max(1, int((tails_R > error * values_R.norm()).sum()))


def _at_energy(values_R: Tensor, energy: float) -> int:
    """Return the least rank with this share of the summed singular values."""
    return int((values_R.cumsum(0) < energy * values_R.sum() * (1 - 1e-9)).sum()) + 1


def exported(deltas: Mapping[str, Tensor], options: ExportOptions) -> dict[str, float]:
    """Write the adapter for kohya's layout and measure the file."""
    header = Header("instruct_pix2pix", "synthetic", "0" * 64, "cross_attention_kv")
    adapter = AdapterFile(header, {f"{layer}.delta": delta for layer, delta in deltas.items()})
    base = Base("synthetic", Path("/nowhere"), "instruct_pix2pix", "0" * 64, 512, 64, 8)
    with tempfile.TemporaryDirectory() as folder:
        written = export(adapter, base, "kohya", Path(folder), options)
        size = written.files[0].stat().st_size / 1e6
    return {"size_mb": size, "worst_layer": written.largest_error}


def trained(path: Path) -> dict[str, Any]:
    """Work out the rows of a K/V adapter that was trained, sizes as parts of its full change's."""
    adapter = read_adapter(path)
    deltas = {layer: adapter.tensors[f"{layer}.delta"].float() for layer in layers(adapter)}
    spectra = {layer: torch.linalg.svdvals(delta) for layer, delta in deltas.items()}
    full = sum(delta.numel() for delta in deltas.values()) * HALF / 1e6
    rows = spectra_rows(spectra, {layer: sum(delta.shape) for layer, delta in deltas.items()})
    for row in rows[:-1]:
        row["part_of_full"] = row["size_mb"] / full
    for row in rows[:-1]:
        if row["asked"] in EDITED:
            row["edits"] = edits_of(adapter, EDITED[row["asked"]])
            print(row["asked"], row["edits"])
    powers = [_power(values) for values in spectra.values()]
    return {
        "steps": adapter.header.training.get("steps"),
        "concepts": [concept.name for concept in adapter.header.concepts],
        "powers": [min(powers), sum(powers) / len(powers), max(powers)],
        "full_mb": full,
        "rows": rows[:-1],
    }


def edits_of(adapter: AdapterFile, options: ExportOptions) -> dict[str, Any]:
    """Write the adapter cut for kohya's layout, and compare edits as `export` does."""
    base, models = resolve_base("embedded"), open_models("embedded")
    with tempfile.TemporaryDirectory() as folder:
        written = export(adapter, base, "kohya", Path(folder), options)
        proofs = prove([written], adapter, base, models=models)
    change = proofs.proved["kohya"].change
    assert change is not None
    return asdict(change)


def _power(values_R: Tensor) -> float:
    """Return how quickly singular values fall, from the first to the middle one: p of k^-p."""
    middle = len(values_R) // 2
    return float(torch.log(values_R[0] / values_R[middle]) / math.log(middle + 1))


def shown(rows: list[dict[str, Any]]) -> str:
    """Print rows as a table."""
    cells = [
        [
            row["asked"],
            "{}-{}".format(*row["ranks"]),
            f"{row['size_mb']:.2f}",
            f"{row['error']:.4f}",
            f"{row['worst_layer']:.4f}",
        ]
        for row in rows
    ]
    return table(cells, list(TITLES))


def main() -> None:
    """Measure the synthetic spectra, or the adapter that is named."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if len(sys.argv) > 1:
        found = results["trained, embedded base"] = trained(Path(sys.argv[1]))
        print(f"\ntrained\n{shown(found['rows'])}")
        least, mean, most = found["powers"]
        print(f"values fall as k^-p, p from {least:.2f} to {most:.2f}, {mean:.2f} on average")
    else:
        results |= synthetic_results()
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def synthetic_results() -> dict[str, Any]:
    """Work out every spectrum at the true size, and write two files."""
    sizes = shapes()
    results: dict[str, Any] = {"weights": 19_169_280, "full_float16_mb": 19_169_280 * HALF / 1e6}
    for power in POWERS:
        ranks = {layer: torch.arange(1, min(s) + 1).float() ** -power for layer, s in sizes.items()}
        rows = spectra_rows(ranks, {layer: sum(shape) for layer, shape in sizes.items()})
        results[f"k^-{power:g}"] = rows
        print(f"\nsingular values k^-{power:g}\n{shown(rows)}")
    generator = torch.Generator().manual_seed(0)
    deltas = {layer: synthetic(*shape, 1.0, generator) for layer, shape in sizes.items()}
    results["written, k^-1"] = {
        "error 0.01": exported(deltas, ExportOptions(error=0.01)),
        "size 15 MB": exported(deltas, ExportOptions(size_mb=SIZE_MB)),
    }
    print(json.dumps(results["written, k^-1"], indent=2))
    return results


if __name__ == "__main__":
    main()
