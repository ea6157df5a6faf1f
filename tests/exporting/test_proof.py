"""Reading back: every target by every reader at toy width, and what happens when one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.bases import in_two_steps, shake, toy_base, toy_header, toy_xl_base
from safetensors.torch import load_file, save_file
from torch import Tensor

from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.file import AdapterFile
from customize.adapters.header import Taught
from customize.errors import BaseModelError, ExportError
from customize.exporting import export
from customize.exporting.proof.compare_weights import TITLES, rows
from customize.exporting.proof.prove import OwnEdits, edits_of_adapter, prove, verify
from customize.exporting.targets import ExportOptions, FilePrecision, Target, Written
from customize.families import open_family
from customize.families.base import Base, resolve_base
from customize.families.words import Word

WORD = Word("<my-dog>", initializer="dog", vectors=2)
LAYERS = 20
READERS: dict[Target, tuple[str, ...]] = {
    "kohya": ("customize", "diffusers"),
    "diffusers": ("customize", "diffusers"),
    "comfyui": ("customize",),
    "a1111": ("customize",),
    "invokeai": ("customize",),
    "peft": ("customize", "peft"),
    "custom-diffusion": ("customize", "diffusers"),
    "full-model": ("customize", "diffusers, single file", "diffusers, folder"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return resolve_base(str(in_two_steps(toy_base(tmp_path_factory.mktemp("base")))))


def adapter_of(base: Base, method: Method, *words: Word) -> AdapterFile:
    attached = attach(open_family(base, learns_text=True), method, words)
    shake(attached)
    low = method if isinstance(method, LowRank) else None
    header = toy_header(
        family=base.family,
        base_fingerprint=base.fingerprint,
        method="low_rank" if low else "cross_attention_kv",
        rank=low.rank if low else None,
        alpha=low.alpha if low else None,
        decompose=bool(low and low.decompose),
        concepts=(Taught("dog", words[0].text if words else None, instructions=("make it red",)),),
    )
    return AdapterFile(header, attached.state())


@pytest.fixture(scope="module")
def taught(base: Base) -> AdapterFile:
    return adapter_of(base, CrossAttentionKV(), WORD)


@pytest.fixture(scope="module")
def own(base: Base, taught: AdapterFile) -> OwnEdits:
    return edits_of_adapter(taught, base)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("target", READERS)
def test_every_reader_finds_the_adapter(
    base: Base,
    taught: AdapterFile,
    own: OwnEdits,
    target: Target,
    dtype: FilePrecision,
    tmp_path: Path,
) -> None:
    # Of this name, a folder's files were all taken for words.
    written = export(taught, base, target, tmp_path / "embeddings", ExportOptions(dtype=dtype))
    proof = verify(written, taught, base, own)
    assert proof.change is None, "nothing was cut"
    verdicts = proof.verdicts
    assert tuple(verdict.reader for verdict in verdicts) == READERS[target]
    for verdict in verdicts:
        assert verdict.matched == verdict.expected == LAYERS
        assert verdict.error <= {"float16": 1e-3, "bfloat16": 8e-3}[dtype]
        assert verdict.pixels is not None
        assert verdict.pixels <= {"float16": 2, "bfloat16": 16}[dtype]
    assert len(rows(verdicts)[0]) == len(TITLES)
    assert all(path.exists() for path in written.files)


@pytest.mark.parametrize("target", ["kohya", "diffusers", "peft", "full-model"])
@pytest.mark.parametrize(
    "method",
    [
        LowRank(rank=2, alpha=1.0, targets=("attention", "convolutions"), text_encoder_rank=2),
        LowRank(rank=2, decompose=True),
    ],
    ids=["LoRA and text", "DoRA"],
)
def test_low_rank_adapters_come_back(
    base: Base, method: Method, target: Target, tmp_path: Path
) -> None:
    adapter = adapter_of(base, method)
    written = export(adapter, base, target, tmp_path, ExportOptions())
    verdicts = verify(written, adapter, base).verdicts
    assert len(verdicts) == len(READERS[target])
    assert all(verdict.matched == verdict.expected > LAYERS for verdict in verdicts)


@pytest.mark.parametrize("target", ["diffusers", "peft"])
def test_dora_of_some_layers_is_baked(base: Base, target: Target, tmp_path: Path) -> None:
    """Both layouts say for a whole model whether it is DoRA."""
    whole = adapter_of(base, LowRank(rank=2, decompose=True))
    norms = sorted(name for name in whole.tensors if name.endswith(".magnitude"))
    tensors = {name: t for name, t in whole.tensors.items() if name not in norms[::2]}
    adapter = AdapterFile(whole.header, tensors)
    written = export(adapter, base, target, tmp_path, ExportOptions())
    for verdict in verify(written, adapter, base).verdicts:
        assert verdict.matched == verdict.expected == len(norms)


@pytest.fixture(scope="module")
def xl_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return resolve_base(str(in_two_steps(toy_xl_base(tmp_path_factory.mktemp("xl")))))


@pytest.mark.parametrize("target", READERS)
def test_sdxl_adapters_come_back_with_both_encoders_words(
    xl_base: Base, target: Target, tmp_path: Path
) -> None:
    low = LowRank(rank=2, alpha=1.0, text_encoder_rank=2)
    adapter = adapter_of(xl_base, CrossAttentionKV() if target == "custom-diffusion" else low, WORD)
    assert "words.text_encoder_2.<my-dog>" in adapter.tensors
    written = export(adapter, xl_base, target, tmp_path / "out", ExportOptions())
    if target != "full-model":
        assert "the same with clip_g" in written.notes[-1]
    verdicts = verify(written, adapter, xl_base, edits_of_adapter(adapter, xl_base)).verdicts
    assert tuple(verdict.reader for verdict in verdicts) == READERS[target]
    for verdict in verdicts:
        assert verdict.matched == verdict.expected > LAYERS
        assert verdict.error <= 1e-3
        assert verdict.pixels is not None
        assert verdict.pixels <= 2 or target == "full-model"  # whose weights are all half precision


def test_a_cut_rank_is_held_to_the_error_it_announced(
    base: Base, taught: AdapterFile, tmp_path: Path
) -> None:
    written = export(taught, base, "kohya", tmp_path, ExportOptions(rank=1))
    (ours, theirs) = verify(written, taught, base).verdicts
    assert ours.error == pytest.approx(written.largest_error, rel=1e-2)
    assert theirs.error == pytest.approx(written.largest_error, rel=1e-2)
    hiding = replace(written, errors=dict.fromkeys(written.errors, 0.0))
    with pytest.raises(ExportError, match=f"of {LAYERS} layers came back"):
        verify(hiding, taught, base)


def damage(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def lose_a_layer(tensors: dict[str, Tensor]) -> None:
    first = min(tensors).partition(".")[0]
    for name in [name for name in tensors if name.startswith(first)]:
        del tensors[name]


def change_a_stranger(tensors: dict[str, Tensor]) -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors[f"{name}.lora_down.weight"] = torch.ones(1, 16)
    tensors[f"{name}.lora_up.weight"] = torch.ones(16, 1)


def halve(tensors: dict[str, Tensor]) -> None:
    """Do what a forgotten alpha does."""
    for name in tensors:
        if name.endswith(".lora_up.weight"):
            tensors[name] = tensors[name] / 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose_a_layer, "only 19 of 20 layers came back"),
        (change_a_stranger, "1 other layers changed, such as denoiser.mid_block"),
        (halve, "only 0 of 20 layers came back"),
        (lambda tensors: tensors.clear(), "reading the written files back failed"),
    ],
    ids=["a layer lost", "a layer too many", "alpha forgotten", "empty"],
)
def test_a_file_that_is_wrong_is_removed(
    base: Base,
    taught: AdapterFile,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], None],
    said: str,
) -> None:
    written = export(taught, base, "kohya", tmp_path / "out", ExportOptions())
    damage(written.files[0], change)
    with pytest.raises(ExportError, match=said):
        verify(written, taught, base)
    assert not (tmp_path / "out").exists()


def test_a_wrong_word_shows_in_the_pixels(base: Base, taught: AdapterFile, tmp_path: Path) -> None:
    header = replace(
        taught.header, concepts=(Taught("dog", "<my-dog>", instructions=("add <my-dog>",)),)
    )
    adapter = AdapterFile(header, taught.tensors)
    written: Written = export(adapter, base, "kohya", tmp_path, ExportOptions())
    (word,) = (path for path in written.files if path.parent.name == "embeddings")
    damage(word, lambda tensors: tensors.update({"emb_params": 9 * tensors["emb_params"]}))
    with pytest.raises(ExportError, match="an edit differs by"):
        verify(written, adapter, base, edits_of_adapter(adapter, base))
    assert not any(path.exists() for path in written.files)


@pytest.mark.parametrize("method", [CrossAttentionKV(), LowRank(rank=2, decompose=True)])
def test_without_its_base_an_export_is_still_compared(
    base: Base, method: Method, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise BaseModelError("no tokenizer", "save one")

    monkeypatch.setattr("customize.families.open_pipeline", closed)
    adapter = adapter_of(base, method, WORD)
    targets: tuple[Target, ...] = ("kohya", "comfyui", "diffusers", "peft")
    targets += ("custom-diffusion",) * isinstance(method, CrossAttentionKV)
    written = [export(adapter, base, target, tmp_path / target) for target in targets]
    proofs = prove(written, adapter, base)
    assert (proofs.unproven, proofs.failed) == ("no tokenizer; save one", {})
    damage(written[0].files[0], halve)
    damage(written[1].files[0], lose_a_layer)
    failed = prove(written, adapter, base).failed
    assert sorted(failed) == ["comfyui", "kohya"]
    assert "layers came back as they are" in failed["kohya"]
    assert [one.files[0].exists() for one in written[:3]] == [False, False, True]


def test_words_alone_come_back(base: Base, taught: AdapterFile, tmp_path: Path) -> None:
    words = {name: t for name, t in taught.tensors.items() if name.startswith("words.")}
    adapter = AdapterFile(taught.header, words)
    own = edits_of_adapter(adapter, base)
    for target in ("kohya", "comfyui", "diffusers"):
        written = export(adapter, base, target, tmp_path / target)
        (path,) = (path for path in written.files if path.suffix == ".safetensors")
        assert path.name == "my-dog.safetensors"
        assert "words and no weights" in written.notes[0]
        for verdict in verify(written, adapter, base, own).verdicts:
            assert verdict.pixels is not None
            assert verdict.pixels <= 2
    for target in ("peft", "custom-diffusion"):
        with pytest.raises(ExportError, match="holds words and no weights"):
            export(adapter, base, target, tmp_path / target)
        assert not (tmp_path / target).exists()
