"""Prove each written file: read it back, and compare weights and one edit with the adapter.

A layer matches when the relative error of its change (Frobenius) is what writing it announced; a
layer the adapter leaves alone must come back bit for bit. The edit is seeded and the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from customize.errors import ExportError
from customize.exporting import Written
from customize.exporting.readbacks import ReadBack, read_back
from customize.exporting.sidecars import examples

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.bases import Base
    from customize.families.weights import BaseWeights

TITLES = ("target", "read by", "modules matched", "largest relative error", "largest pixel change")
TOLERANCE = 1e-3
"""Relative error of a change beyond what writing announced: half precision, and adding it up."""

PIXELS = 2.0
"""How far one edit's pixels (0..255) may be from the adapter's own where nothing was cut off."""

_STEPS, _SIDE = 12, 256


@dataclass(frozen=True)
class Verdict:
    """What one reader found in one target's files.

    `error` is the largest relative error of a layer (for full models against the weight itself,
    which is what their precision rounds), `pixels` the largest difference of the edit, 0..255, None
    when no edit was made; `strangers` are layers that changed and should not have.
    """

    target: str
    reader: str
    matched: int
    expected: int
    error: float
    pixels: float | None
    strangers: tuple[str, ...] = ()


def verify(
    written: Sequence[Written], adapter: AdapterFile, base: Base, *, pixels: bool = True
) -> list[Verdict]:
    """Read every file back and compare; `pixels` False leaves the edits out.

    Raises ExportError for the first target that is not what the adapter is, after removing its
    files.
    """
    from tqdm import tqdm

    from customize.families.quiet import errors_only

    reference = _native_edit(adapter, base) if pixels else None
    verdicts: list[Verdict] = []
    for one in tqdm(written, desc="verify", unit="target", disable=None, leave=False):
        try:
            with errors_only():
                verdicts += _verdicts(one, adapter, base, reference)
        except ExportError:
            _remove(one)
            raise
        except Exception as error:  # a library may refuse a file in any way it likes
            _remove(one)
            first = (str(error).splitlines() or [""])[0]
            raise ExportError(
                f"{one.target}: reading the written files back failed ({type(error).__name__}: "
                f"{first}); expected them to load; they were removed; export to another target"
            ) from error
    return verdicts


def rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """Make rows of a table under `TITLES`."""
    return [
        [
            verdict.target,
            verdict.reader,
            f"{verdict.matched} of {verdict.expected}",
            f"{verdict.error:.1e}",
            "-" if verdict.pixels is None else f"{verdict.pixels:.2f} of 255",
        ]
        for verdict in verdicts
    ]


def _verdicts(
    written: Written, adapter: AdapterFile, base: Base, reference: np.ndarray | None
) -> Iterator[Verdict]:
    for found in read_back(written, adapter, base):
        verdict = _judge(found, written, adapter, base, reference)
        _check(verdict, written)
        yield verdict


def _judge(
    found: ReadBack,
    written: Written,
    adapter: AdapterFile,
    base: Base,
    reference: np.ndarray | None,
) -> Verdict:
    """Compare what a reader made of the files with the adapter."""
    from customize.adapters.deltas import layers
    from customize.families.weights import BaseWeights

    weights, changed = BaseWeights(base), layers(adapter)
    errors = {layer: _error(found, written, adapter, layer, weights) for layer in changed}
    matched = sum(error <= _allowed(written, layer) for layer, error in errors.items())
    pixels = None
    if reference is not None:
        edited = sample_edit(found.pipeline, base, _instruction(adapter))
        pixels = float(np.abs(edited - reference).max() * 255)
    return Verdict(
        target=written.target,
        reader=found.reader,
        matched=matched,
        expected=len(changed),
        error=max(errors.values(), default=0.0),
        pixels=pixels,
        strangers=tuple(_strangers(found, written, set(changed), weights)),
    )


def _error(
    found: ReadBack, written: Written, adapter: AdapterFile, layer: str, weights: BaseWeights
) -> float:
    from customize.adapters.deltas import weight_delta

    before = weights[layer].float()
    exact = weight_delta(adapter, layer, before)
    off = (found.weight_of(layer).float() - before - exact).norm()
    whole = before + exact if written.target == "full-model" else exact
    return float(off / whole.norm()) if whole.any() else float(off)


def _allowed(written: Written, layer: str) -> float:
    return 1.05 * written.errors.get(layer, 0.0) + TOLERANCE


def _strangers(
    found: ReadBack, written: Written, changed: set[str], weights: BaseWeights
) -> Iterator[str]:
    """Name layers that came back changed though the adapter leaves them alone."""
    for layer in weights.layers():
        if layer in changed:
            continue
        before = weights[layer].float()
        # Words only add rows to the embedding table.
        after = found.weight_of(layer).float()[: len(before)]
        off = float((after - before).norm())
        rounding = TOLERANCE if written.target == "full-model" else 0.0
        if after.shape != before.shape or off > rounding * float(before.norm()):
            yield layer


def _check(verdict: Verdict, written: Written) -> None:
    """Raise ExportError for a verdict that does not prove the files."""
    if verdict.strangers:
        found = f"{len(verdict.strangers)} other layers changed, such as {verdict.strangers[0]}"
    elif verdict.matched < verdict.expected:
        found = (
            f"only {verdict.matched} of {verdict.expected} layers came back as they are (largest "
            f"relative error {verdict.error:.1e})"
        )
    elif verdict.pixels is not None and verdict.pixels > _pixels_allowed(written):
        found = f"an edit differs by {verdict.pixels:.1f} of 255"
    else:
        return
    raise ExportError(
        f"{written.target}: read back by {verdict.reader}, {found}; expected the adapter's own "
        "change; the files were removed; try --dtype float32, or another target"
    )


def _pixels_allowed(written: Written) -> float:
    """Hold only files that lost nothing to the adapter's own pixels."""
    lossless = written.largest_error <= TOLERANCE and written.target != "full-model"
    return PIXELS if lossless else float("inf")


def _native_edit(adapter: AdapterFile, base: Base) -> np.ndarray:
    from customize.adapters.apply import apply_adapters
    from customize.exporting.readbacks import open_plain

    pipeline = open_plain(base)
    apply_adapters(pipeline, [(adapter, 1.0)])
    return sample_edit(pipeline, base, _instruction(adapter))


def sample_edit(pipeline: Any, base: Base, instruction: str, seed: int = 0) -> np.ndarray:
    """Edit a drawn picture with any pipeline of the base; (H, W, 3) from 0 to 1.

    At most 12 steps and 256 pixels: enough to tell weights apart, on a CPU too.
    """
    import torch

    from customize.families.sampling import sampling_of, size_told

    side, own = min(base.resolution, _SIDE), sampling_of(base.folder)
    answer_BHWC = pipeline(
        instruction,
        image=drawn_picture(side, seed),
        num_inference_steps=min(own.steps, _STEPS),
        guidance_scale=own.text_guidance,
        image_guidance_scale=own.image_guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **size_told(pipeline, side, side),
    ).images
    return answer_BHWC[0]


def drawn_picture(side: int, seed: int = 0) -> Image.Image:
    """Draw soft random colours, `side` pixels wide and high."""
    coarse_HWC = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse_HWC).resize((side, side), Image.Resampling.BICUBIC)


def _instruction(adapter: AdapterFile) -> str:
    """Take an instruction the adapter was taught with, else one that names its words."""
    from customize.adapters.deltas import words

    return next(examples(adapter.header), " ".join(["make it", *words(adapter)]))


def _remove(written: Written) -> None:
    """Remove a target's files, and folders that are empty without them."""
    for path in written.files:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in written.files}, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
