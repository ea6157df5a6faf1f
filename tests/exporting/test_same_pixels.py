"""One seeded edit on the embedded base: plain diffusers with the exported file, and our adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import shake, toy_header

from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.apply import apply_adapters
from customize.adapters.file import read_adapter, save_adapter
from customize.adapters.header import Taught
from customize.editing.sample import Request
from customize.exporting import export
from customize.exporting.proof.compare_weights import PIXELS
from customize.exporting.proof.sample_edits import SampleEdit, drawn_picture, edited
from customize.exporting.targets import ExportOptions, Target
from customize.families import open_family, open_pipeline
from customize.families.base import Base, resolve_base
from customize.families.words import Word
from customize.merging.merge_files import merge
from customize.merging.methods import Linear

WORD = Word("<my-dog>", initializer="dog", vectors=2)
INSTRUCTION = "turn the dog into <my-dog>"
METHODS: dict[str, tuple[Method, tuple[Word, ...]]] = {
    "K/V with a word": (CrossAttentionKV(), (WORD,)),
    "LoRA": (LowRank(rank=4, alpha=2.0, targets=("attention", "convolutions")), ()),
    "DoRA": (LowRank(rank=4, decompose=True), ()),
    "text encoder": (LowRank(rank=4, text_encoder_rank=2), ()),
}
SIZES = {"K/V with a word": 0.04, "LoRA": 0.06, "DoRA": 0.15, "text encoder": 0.15}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base() -> Base:
    return resolve_base("embedded")


@pytest.fixture(scope="module")
def pipeline(base: Base) -> Any:
    pipeline = open_pipeline(base, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def adapters(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a shaken adapter of every method, and a merge of the first two."""
    folder, files = tmp_path_factory.mktemp("adapters"), {}
    for name, (method, words) in METHODS.items():
        attached = attach(open_family(base, learns_text=True), method, words)
        shake(attached, seed=len(files), size=SIZES[name])
        low = method if isinstance(method, LowRank) else None
        header = toy_header(
            base_name=base.name,
            base_fingerprint=base.fingerprint,
            method="low_rank" if low else "cross_attention_kv",
            rank=low.rank if low else None,
            alpha=low.alpha if low else None,
            decompose=bool(low and low.decompose),
            concepts=(Taught(name, WORD.text if words else None, vectors=WORD.vectors),),
        )
        files[name] = save_adapter(folder / f"{len(files)}.safetensors", header, attached.state())
    two = [files["K/V with a word"], files["LoRA"]]
    return files | {"merge of two": merge(two, folder / "merged.safetensors", Linear()).path}


@pytest.fixture(scope="module")
def untouched(pipeline: Any, base: Base) -> np.ndarray:
    return edit(pipeline, base)


@pytest.mark.parametrize("target", ["kohya", "diffusers"])
@pytest.mark.parametrize("name", [*METHODS, "merge of two"])
def test_plain_diffusers_gives_the_adapters_own_pixels(
    name: str,
    target: Target,
    base: Base,
    pipeline: Any,
    untouched: np.ndarray,
    adapters: dict[str, Path],
    tmp_path: Path,
) -> None:
    adapter = read_adapter(adapters[name])
    applied = apply_adapters(pipeline, [(adapter, 1.0)])
    own = edit(pipeline, base)
    applied.remove()
    assert largest(own - untouched) > 10, "the adapter changes next to nothing"
    written = export(adapter, base, target, tmp_path, ExportOptions())
    with loaded(pipeline, written.files):
        assert largest(edit(pipeline, base) - own) <= PIXELS


@contextmanager
def loaded(pipeline: Any, files: tuple[Path, ...]) -> Iterator[None]:
    """Load files as diffusers' users do, and take them off again."""
    weights = [path for path in files if path.suffix == ".safetensors"]
    for path in weights:
        if path.parent.name == "embeddings":
            pipeline.load_textual_inversion(path, token=WORD.text)
        else:
            pipeline.load_lora_weights(path.parent, weight_name=path.name)
    try:
        yield
    finally:
        pipeline.unload_lora_weights()
        pipeline.unload_textual_inversion()


def edit(pipeline: Any, base: Base) -> np.ndarray:
    asked = Request(drawn_picture(base.resolution, 3), INSTRUCTION, seed=3)
    return edited(pipeline, base, (SampleEdit(asked, INSTRUCTION),))


def largest(difference_BHWC: np.ndarray) -> float:
    return float(np.abs(difference_BHWC).max() * 255)
