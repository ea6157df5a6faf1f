"""Adapters of FLUX.2 klein reach other programs whole, under the names that each of them reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import in_two_steps, shake, toy_header
from builders.klein import toy_klein
from diffusers import Flux2Transformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from customize import families
from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.file import AdapterFile
from customize.errors import AdapterFileError, ExportError
from customize.exporting import ExportOptions, export, export_all
from customize.exporting.changes import Changes, Decomposed, Full, delta_of
from customize.exporting.changes import LowRankChange as Pair
from customize.exporting.foreign.import_adapter import import_adapter
from customize.exporting.foreign.read import read
from customize.exporting.formats.makers_names import PARTS, fused, split
from customize.exporting.proof.prove import verify
from customize.exporting.targets import Target
from customize.families import profile_of
from customize.families.base import Base, resolve_base

TARGETS: tuple[Target, ...] = ("kohya", "diffusers", "comfyui", "invokeai", "peft")
TELLING = "single_transformer_blocks.0.attn.to_qkv_mlp_proj"
_transformer: Any = Flux2Transformer2DModel


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return resolve_base(str(in_two_steps(toy_klein(tmp_path_factory.mktemp("klein")))))


def _adapter(base: Base, method: Method) -> AdapterFile:
    attached = attach(families.open_family(base), method, seed=1)
    shake(attached, seed=2, size=0.3)
    low_rank = method if isinstance(method, LowRank) else None
    header = toy_header(
        family="flux2_klein",
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        method="low_rank" if low_rank else "cross_attention_kv",
        rank=low_rank.rank if low_rank else None,
        alpha=low_rank.alpha if low_rank else None,
        decompose=bool(low_rank and low_rank.decompose),
    )
    return AdapterFile(header, attached.state())


METHODS: Mapping[str, Method] = {
    "all": LowRank(rank=2, alpha=3.0, targets=("all",)),
    "DoRA": LowRank(rank=2, decompose=True, targets=("attention",)),
    "keys and values": CrossAttentionKV(),
}


@pytest.mark.parametrize("kind", METHODS)
def test_every_target_is_read_back_by_diffusers_too(base: Base, kind: str, tmp_path: Path) -> None:
    adapter = _adapter(base, METHODS[kind])
    exports = export_all(adapter, base, tmp_path / "out", ExportOptions(dtype="float32"))
    assert exports.proofs is not None
    assert tuple(one.target for one in exports.written) == TARGETS
    assert exports.refused.keys() == {"a1111", "custom-diffusion", "full-model"}
    assert "not written for FLUX.2 klein; expected one of kohya" in exports.refused["a1111"]
    for target, proof in exports.proofs.proved.items():
        readers = {verdict.reader for verdict in proof.verdicts}
        assert readers == {"customize", "peft" if target == "peft" else "diffusers"}
        assert max(verdict.error for verdict in proof.verdicts) < 1e-5
    assert "a model of the kind FLUX.2 klein" in exports.guide.read_text()


def test_an_exported_layout_predicts_as_the_adapter_to_1e_6(base: Base, tmp_path: Path) -> None:
    adapter = _adapter(base, METHODS["all"])
    generator = torch.Generator().manual_seed(0)
    conditions = {
        "source": torch.randn(1, 16, 4, 4, generator=generator),
        "text": torch.randn(1, 20, 96, generator=generator),
    }
    noisy = torch.randn(1, 16, 4, 4, generator=generator)

    @torch.no_grad()
    def predicted(pipeline: Any) -> Tensor:
        family: Any = replace(families.open_family(base), denoiser=pipeline.transformer)
        return family.predict(noisy, torch.tensor([0.5]), conditions)

    from customize.adapters.apply import apply_adapters

    own = families.open_pipeline(base)
    apply_adapters(own, [(adapter, 1.0)])
    exact = predicted(own)
    for target in ("kohya", "diffusers", "comfyui", "invokeai"):
        written = export(adapter, base, target, tmp_path / target, ExportOptions(dtype="float32"))
        pipeline = families.open_pipeline(base)
        (path,) = (path for path in written.files if path.suffix == ".safetensors")
        pipeline.load_lora_weights(path.parent, weight_name=path.name)
        found = predicted(pipeline)
        assert (found - exact).abs().max() <= 1e-6 * exact.abs().max() + 1e-6, target


@pytest.mark.parametrize("target", TARGETS)
def test_a_partial_file_still_tells_its_family(base: Base, target: Target, tmp_path: Path) -> None:
    """InvokeAI 6.14 takes klein's files for FLUX.1's without this layer, being as wide."""
    adapter = _adapter(base, CrossAttentionKV())
    written = export(adapter, base, target, tmp_path)
    (path,) = (path for path in written.files if path.suffix == ".safetensors")
    keys = load_file(path).keys()
    names = {
        "kohya": "lora_unet_single_blocks_0_linear1.lora_down.weight",
        "comfyui": "diffusion_model.single_blocks.0.linear1.lora_A.weight",
        "peft": f"base_model.model.{TELLING}.lora_A.weight",
    }
    assert names.get(target, f"transformer.{TELLING}.lora_A.weight") in keys
    if target == "invokeai":  # any other ending, and it is of no format that InvokeAI knows
        assert all(key.endswith(("lora_A.weight", "lora_B.weight")) for key in keys)
    verify(written, adapter, base)
    with safe_open(path, framework="pt") as file:
        if target != "peft":
            assert "FLUX.2 klein" in file.metadata()["ss_training_comment"]


# --- names at true size


@pytest.fixture(scope="module", params=["4B", "9B"])
def true_size(request: pytest.FixtureRequest) -> nn.Module:
    sizes = {"4B": (5, 20, 24, 7680), "9B": (8, 24, 32, 12288)}
    double, single, heads, text = sizes[request.param]
    with torch.device("meta"):
        return _transformer(
            num_layers=double,
            num_single_layers=single,
            num_attention_heads=heads,
            joint_attention_dim=text,
            guidance_embeds=False,
        )


def test_layers_of_the_true_models_have_names_by_their_makers(true_size: nn.Module) -> None:
    linear = {name for name, m in true_size.named_modules() if isinstance(m, nn.Linear)}
    known = {part for parts in PARTS.values() for part in parts}
    assert linear - known == {"norm_out.linear"}  # whose halves the makers have in another order
    groups = profile_of("flux2_klein").layers.groups
    blocks = {name for name in linear if "transformer_blocks" in name}
    assert len(blocks) == 12 * len(true_size.transformer_blocks) + 2 * len(  # type: ignore[arg-type]
        true_size.single_transformer_blocks  # type: ignore[arg-type]
    )
    import re

    assert {name for name in linear if re.fullmatch(groups["all"], name)} == blocks


def test_names_by_the_makers_are_those_that_diffusers_converts(true_size: nn.Module) -> None:
    """Every layer at rank 1, named by us, is converted by diffusers to the layer it was."""
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_flux2_lora_to_diffusers as convert,
    )

    from customize.exporting.formats.comfyui import to_comfyui

    layers = {
        name: m
        for name, m in true_size.named_modules()
        if isinstance(m, nn.Linear) and name != "norm_out.linear"
    }
    changes = Changes(
        {
            f"denoiser.{n}": Pair(torch.ones(1, m.in_features), torch.ones(m.out_features, 1))
            for n, m in layers.items()
        }
    )
    found = convert(to_comfyui(fused(changes)))
    assert {name.removesuffix(".lora_B.weight") for name in found if "lora_B" in name} == {
        f"transformer.{name}" for name in layers
    }
    for name, layer in layers.items():
        down, up = (found[f"transformer.{name}.lora_{factor}.weight"] for factor in "AB")
        assert (len(up), down.shape[1]) == (layer.out_features, layer.in_features)


# --- files of others


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FOREIGN: Mapping[str, tuple[dict[str, Tensor], str, float]] = {
    "ai-toolkit": (
        {
            "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": _random(1, 4, 32),
            "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight": _random(2, 96, 4),
            "diffusion_model.double_blocks.1.txt_attn.qkv.lora_A.weight": _random(1, 4, 32),
            "diffusion_model.double_blocks.1.txt_attn.qkv.lora_B.weight": _random(2, 96, 4),
        },
        "comfyui",
        1.0,
    ),
    "kohya and musubi": (
        {
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": _random(1, 4, 32),
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": _random(2, 96, 4),
            "lora_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(2.0),
            "lora_unet_double_blocks_1_txt_attn_qkv.lora_down.weight": _random(1, 4, 32),
            "lora_unet_double_blocks_1_txt_attn_qkv.lora_up.weight": _random(2, 96, 4),
            "lora_unet_double_blocks_1_txt_attn_qkv.alpha": torch.tensor(2.0),
        },
        "kohya",
        0.5,
    ),
    "diffusers": (
        {
            f"transformer.transformer_blocks.{place}.lora_{factor}.weight": tensor
            for place, rows in {
                "0.attn.to_q": slice(0, 32),
                "0.attn.to_k": slice(32, 64),
                "0.attn.to_v": slice(64, 96),
                "1.attn.add_q_proj": slice(0, 32),
                "1.attn.add_k_proj": slice(32, 64),
                "1.attn.add_v_proj": slice(64, 96),
            }.items()
            for factor, tensor in {
                "A": _random(1, 4, 32),
                "B": _random(2, 96, 4)[rows].contiguous(),
            }.items()
        },
        "diffusers",
        1.0,
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_programs_are_imported(base: Base, kind: str, tmp_path: Path) -> None:
    tensors, layout, scale = FOREIGN[kind]
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    assert read(path).layout == layout
    adapter, rows = import_adapter(path, base.name)
    assert dict(rows)["layout"].startswith(layout)
    whole_OI = scale * _random(2, 96, 4) @ _random(1, 4, 32)
    layers = ("0.attn.to_q", "0.attn.to_k", "0.attn.to_v")
    more = ("1.attn.add_q_proj", "1.attn.add_k_proj", "1.attn.add_v_proj")
    from customize.adapters.deltas import layers as layers_of
    from customize.adapters.deltas import weight_delta

    names = [f"denoiser.transformer_blocks.{place}" for place in (*layers, *more)]
    assert set(layers_of(adapter)) == set(names)
    for number, name in enumerate(names):
        found = weight_delta(adapter, name, torch.zeros(32, 32))
        start = 32 * (number % 3)
        assert torch.allclose(found, whole_OI[start : start + 32], atol=1e-5)


def test_flux_1_is_still_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(
        {
            f"lora_unet_double_blocks_{number}_img_attn_qkv.{factor}.weight": torch.ones(4, 4)
            for number in range(19)
            for factor in ("lora_down", "lora_up")
        },
        path,
    )
    with pytest.raises(AdapterFileError, match="a LoRA for FLUX"):
        read(path)


def test_fusing_and_splitting_are_inverse() -> None:
    generator = torch.Generator().manual_seed(1)
    layers = {
        f"denoiser.{part}": Pair(
            torch.randn(rank, 8, generator=generator), torch.randn(6, rank, generator=generator)
        )
        for rank, part in enumerate(PARTS["double_blocks.1.txt_attn.qkv"], start=1)
    }
    layers.pop("denoiser.transformer_blocks.1.attn.add_k_proj")
    whole = fused(Changes(layers))
    (only,) = whole.layers.values()
    assert isinstance(only, Pair)
    assert (only.down.shape, only.up.shape) == ((1 + 3, 8), (18, 1 + 3))
    again = split(whole).layers
    assert again.keys() == layers.keys()
    for name, pair in layers.items():
        assert torch.equal(
            delta_of(again[name], torch.zeros(6, 8)), delta_of(pair, torch.zeros(6, 8))
        )


def test_other_kinds_of_fused_changes_are_cut_exactly() -> None:
    layer, base_OI = "denoiser.double_blocks.0.img_attn.qkv", _random(5, 18, 8)
    for change in (
        Full(_random(1, 18, 8)),
        Decomposed(Full(_random(1, 18, 8)), _random(2, 18).abs()),
    ):
        exact_OI = delta_of(change, base_OI)
        parts = split(Changes({layer: change})).layers
        found = [
            delta_of(part, rows)
            for part, rows in zip(parts.values(), base_OI.chunk(3), strict=True)
        ]
        assert torch.allclose(torch.cat(found), exact_OI, atol=1e-6)
    norms = Decomposed(Full(_random(1, 18, 8)), _random(2, 8).abs(), 1)
    with pytest.raises(AdapterFileError, match="DoRA's norms for each input"):
        split(Changes({layer: norms}))


def test_a_target_of_no_such_bases_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="custom-diffusion: it is not written for"):
        export(_adapter(base, METHODS["all"]), base, "custom-diffusion", tmp_path)
