"""peft's configurations mean what peft makes of them, or are refused by the name of their field."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from builders.bases import toy_resolved
from diffusers import UNet2DConditionModel
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftType, get_peft_model
from peft.utils.other import get_pattern_key
from safetensors.torch import save_file
from torch import Tensor, nn

from customize.adapters.deltas import layers, weight_delta
from customize.cli.main import main
from customize.errors import AdapterFileError
from customize.exporting.foreign.import_adapter import import_adapter
from customize.exporting.formats.peft_config import (
    HARMLESS,
    REFUSED,
    USED,
    USUAL_ALPHA,
    Kind,
    read_config,
)
from customize.exporting.formats.peft_patterns import MOST, Patterns, read_patterns
from customize.families.base import Base
from customize.families.loading.layer_weights import BaseWeights

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
LAYER = f"denoiser.{KEY}"
TARGETS = ["to_q", "to_v"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


def changes(path: Path, base: Base, **options: Any) -> dict[str, Tensor]:
    adapter, _ = import_adapter(path, base.name, **options)
    weights = BaseWeights(base)
    return {layer: weight_delta(adapter, layer, weights[layer]) for layer in layers(adapter)}


def trained(base: Base, config: Any, folder: Path) -> dict[str, Tensor]:
    """Save what peft trained with a configuration, and return what it changes of the weights."""
    unet: nn.Module = UNet2DConditionModel.from_pretrained(base.folder, subfolder="unet")  # type: ignore[assignment]
    before = {n: p.detach().clone() for n, p in unet.named_parameters()}
    torch.manual_seed(0)
    model = get_peft_model(unet, config)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "hada_", "lokr_")):
                parameter += 0.01 * torch.randn_like(parameter)
    model.save_pretrained(str(folder))
    merged = model.merge_and_unload()  # type: ignore[operator]
    after = dict(merged.named_parameters())
    moved = {n: (after[n] - p).detach() for n, p in before.items() if not torch.equal(after[n], p)}
    return {f"denoiser.{name.removesuffix('.weight')}": delta for name, delta in moved.items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], limit: float) -> None:
    assert found.keys() == expected.keys()
    assert len(found) > 3
    for layer, delta in expected.items():
        error = float((found[layer] - delta).norm() / delta.norm())
        assert error < limit, (layer, error)


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": "pissa", "lora_alpha": 8},
        {"init_lora_weights": "pissa", "use_rslora": True},
        {"init_lora_weights": "olora", "lora_alpha": 6},
        {"init_lora_weights": "olora", "use_rslora": True},
        {"init_lora_weights": "gaussian", "lora_alpha": 3},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False},
        {"rank_pattern": {"attn2.to_q": 2}, "alpha_pattern": {"^mid_block.*": 1}},
    ],
    ids=str,
)
def test_starts_and_scales_are_what_peft_merges(
    options: dict[str, Any], base: Base, tmp_path: Path
) -> None:
    config = LoraConfig(**({"r": 4, "target_modules": TARGETS, "lora_alpha": 4} | options))
    expected = trained(base, config, tmp_path / "out")
    if "alpha_pattern" in options:  # `.*` is an expression: peft runs it, nobody else's file may
        with pytest.raises(AdapterFileError, match=r"alpha_pattern .*'\^mid_block\.\*'"):
            changes(tmp_path / "out", base)
        return
    assert_same(changes(tmp_path / "out", base), expected, 1e-4)


def test_starts_in_diffusers_metadata_are_taken_off_as_well(base: Base, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights="pissa")
    expected = trained(base, config, tmp_path / "out")
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    named = {k.replace("base_model.model.", "unet."): t for k, t in tensors.items()}
    told = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in told.items()})}
    save_file(named, tmp_path / "d.safetensors", metadata)
    assert_same(changes(tmp_path / "d.safetensors", base), expected, 1e-4)
    _, rows = import_adapter(tmp_path / "d.safetensors", base.name)
    assert "pissa" in dict(rows)["start"]


@pytest.mark.parametrize("kind", ["loha", "lokr", "lokr whole"])
def test_folders_of_pefts_products_are_read(kind: str, base: Base, tmp_path: Path) -> None:
    options: dict[str, Any] = {"r": 2, "alpha": 5, "target_modules": TARGETS}
    options |= {"init_weights": False, "alpha_pattern": {"attn2.to_q": 1}}
    if kind == "loha":
        config: Any = LoHaConfig(**options)
    else:
        config = LoKrConfig(**{**options, "r": 100 if "whole" in kind else 2})
    expected = trained(base, config, tmp_path / "out")
    assert_same(changes(tmp_path / "out", base), expected, 1e-4)


OTHER_KINDS = (
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADALORA ADAMSS BOFT "
    "ADAPTION_PROMPT IA3 BEFT LILY OFT POLY LN_TUNING VERA FROD PVERA FOURIERFT GLORA XLORA HRA "
    "VBLORA UNILORA CPT MISS RANDLORA ROAD TRAINABLE_TOKENS HIRA SHIRA C3A WAVEFT OSF DELORA "
    "GRALORA CARTRIDGE TINYLORA PSOFT PEANUT SHADOW SUPERTUNING DEFT BONE"
)
"""What peft has besides and is refused as any unknown kind: a new one is worth a look."""


def test_every_field_and_kind_of_the_installed_peft_is_in_a_table() -> None:
    configs: dict[Kind, type] = {"LORA": LoraConfig, "LOHA": LoHaConfig, "LOKR": LoKrConfig}
    for kind, config in configs.items():
        known = USED[kind] | HARMLESS[kind] | REFUSED.keys()
        assert {f.name for f in fields(config)} - known == set()
        assert not USED[kind] & HARMLESS[kind]
        assert not (USED[kind] | HARMLESS[kind]) & REFUSED.keys()
    assert {kind.value for kind in PeftType} - set(OTHER_KINDS.split()) == {"LORA", "LOHA", "LOKR"}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: pissa_niter_4.*conversion="),
        ({"init_lora_weights": "corda"}, "init_lora_weights: corda"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights: lora_ga"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights: loftq"),
        ({"init_lora_weights": "of_tomorrow"}, "init_lora_weights: of_tomorrow"),
        *[({field: [1]}, f"sets {field}: ") for field in REFUSED],
        ({"new_in_2030": 1}, "sets 'new_in_2030', a field this `customize` does not know"),
        ({"peft_type": "IA3"}, "says IA3"),
        ({"peft_type": ["LORA"]}, "whose weights"),
        ({"r": 0}, "r is '0'; expected a whole number of at least 1"),
        ({"r": True}, "r is 'True'"),
        ({"r": 3}, "rank 2, and the configuration says 3"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"lora_alpha": 1e9}, "lora_alpha is"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
        ({"use_dora": True}, "has no magnitudes"),
        ({"alpha_pattern": [1]}, "is no table"),
        ({"alpha_pattern": {"to_k": None}}, r"alpha_pattern\['to_k'\]"),
        ({"rank_pattern": {"to_k": 0}}, "at least 1"),
        ({"rank_pattern": {"to_k": 4}}, "rank 2, and the configuration says 4"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "regular expression"),
        ({"alpha_pattern": {".*to_k": 1}}, "regular expression"),
        ({"alpha_pattern": dict.fromkeys(map(str, range(MOST + 1)), 1)}, "at most"),
        ([1], "no table of fields"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_changes_the_meaning_is_refused_by_name(
    config: Any, named: str, base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = f"base_model.model.{KEY}"
    pair = {f"{start}.lora_A.weight": torch.ones(2, 16), f"{start}.lora_B.weight": torch.ones(8, 2)}
    save_file(pair, tmp_path / "adapter_model.safetensors")
    whole = {"r": 2, "lora_alpha": 2} | config if isinstance(config, dict) else config
    (tmp_path / "adapter_config.json").write_text(json.dumps(whole))
    with pytest.raises(AdapterFileError, match=named) as caught:
        import_adapter(tmp_path, base.name)
    assert "expected" in str(caught.value)
    assert main(["inspect", str(tmp_path)]) == 2
    assert str(caught.value) in capsys.readouterr().err


def test_fields_that_are_not_set_change_nothing() -> None:
    unset = dict(zip(REFUSED, [None, False, [], {}] * 9, strict=False))
    plain = read_config({"r": 2, "lora_alpha": 4, "new_in_2030": None, **unset}, "config")
    assert plain.scale("a.to_k", 2) == 2


def test_alpha_that_is_not_said_is_pefts_own(base: Base, tmp_path: Path) -> None:
    assert LoraConfig().lora_alpha == LoHaConfig().alpha == LoKrConfig().alpha == USUAL_ALPHA
    down, up = torch.randn(2, 16), torch.randn(8, 2)
    start = f"base_model.model.{KEY}"
    pair = {f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up}
    save_file(pair, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    adapter, _ = import_adapter(tmp_path, base.name)
    found = weight_delta(adapter, f"denoiser.{KEY}", torch.zeros(8, 16))
    torch.testing.assert_close(found, 4 * up @ down)
    save_file(pair | {f"{start}.alpha": torch.tensor(2.0)}, tmp_path / "adapter_model.safetensors")
    adapter, _ = import_adapter(tmp_path, base.name)
    found = weight_delta(adapter, f"denoiser.{KEY}", torch.zeros(8, 16))
    torch.testing.assert_close(found, up @ down)


def test_patterns_are_found_as_peft_finds_them() -> None:
    random, parts = Random(0), ["a", "b1", "to_k", "to_out", "0", "layers"]

    def name(most: int) -> str:
        return ".".join(random.choice(parts) for _ in range(random.randint(1, most)))

    matched = 0
    for _ in range(500):
        spelled = [name(3) for _ in range(6)]
        spelled[0], spelled[1] = f"^{spelled[0]}", spelled[1].replace(".", r"\.") + "$"
        table = {pattern: number for number, pattern in enumerate(spelled)}
        key = name(5)
        theirs = table.get(get_pattern_key(list(table), key))
        assert Patterns(table).of(key) == theirs, (table, key)
        matched += theirs is not None
    assert matched > 100


def test_patterns_name_text_encoders_with_and_without_their_level() -> None:
    q = "encoder.layers.0.self_attn.q_proj"
    for pattern in (q, f"text_model.{q}", f"^text_model.{q}", f"^{q}", "q_proj"):
        config = read_config({"r": 2, "lora_alpha": 2, "alpha_pattern": {pattern: 8}}, "config")
        assert config.scale(q, 2) == 4, pattern
    both = {f"text_model.{q}": 1, "q_proj": 8}
    assert read_config({"r": 2, "alpha_pattern": both}, "config").scale(q, 2) == 0.5


def test_as_many_patterns_as_there_may_be_take_no_time() -> None:
    deep = ".".join(["a" * 20] * 20)
    table = {f"{deep}.{number}": number for number in range(MOST)}
    start = time.perf_counter()
    patterns = read_patterns(table, "alpha_pattern", whole=False)
    assert all(patterns.of(f"x.{deep}.{number}") == number for number in range(0, MOST, 5))
    assert time.perf_counter() - start < 5
