"""Files that other programs made are read for what they mean, or named for what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_resolved
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model
from safetensors.torch import save, save_file
from torch import Tensor, nn

from customize.adapters.deltas import weight_delta
from customize.adapters.file import read_adapter
from customize.cli.main import main
from customize.errors import AdapterFileError
from customize.exporting.changes import delta_of
from customize.exporting.foreign.import_adapter import import_adapter
from customize.exporting.formats.comfyui import from_comfyui
from customize.exporting.formats.diffusers_lora import METADATA, from_diffusers
from customize.exporting.formats.module_change import change_of
from customize.exporting.formats.tensor_roles import Role
from customize.families.base import Base
from customize.families.loading.layer_weights import BaseWeights

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
LAYER = f"denoiser.{KEY}"
CONVOLUTION = "denoiser.mid_block.resnets.0.conv1"
FLAT = "lora_unet_" + KEY.replace(".", "_")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(out: int = 8, width: int = 16, rank: int = 2) -> tuple[Tensor, Tensor]:
    return noise(rank, width, seed=1), noise(out, rank, seed=2)


def imported(
    base: Base, tmp_path: Path, tensors: Mapping[str, Tensor], layer: str = LAYER, **facts: Any
) -> Tensor:
    """Import a file of one changed layer and return the change."""
    path = tmp_path / "foreign.safetensors"
    save_file({k: t.contiguous() for k, t in tensors.items()}, path, facts or None)
    adapter, _ = import_adapter(path, base.name)
    return weight_delta(adapter, layer, BaseWeights(base)[layer])


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"{FLAT}.lora_down.weight", f"{FLAT}.lora_up.weight"),
        (f"unet.{KEY}.lora_A.weight", f"unet.{KEY}.lora_B.weight"),
        (f"base_model.model.{KEY}.lora_A.weight", f"base_model.model.{KEY}.lora_B.weight"),
        (
            "unet." + KEY.replace(".to_k", ".processor.to_k_lora.down.weight"),
            "unet." + KEY.replace(".to_k", ".processor.to_k_lora.up.weight"),
        ),
        (
            KEY.replace(".to_k", ".processor.to_k_lora.down.weight"),
            KEY.replace(".to_k", ".processor.to_k_lora.up.weight"),
        ),
        (f"unet.{KEY}.lora.down.weight", f"unet.{KEY}.lora.up.weight"),
    ],
)
def test_every_spelling_of_lora_is_read(base: Base, tmp_path: Path, down: str, up: str) -> None:
    a, b = pair()
    if down.startswith("base_model"):
        (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2}')
    found = imported(base, tmp_path, {down: a, up: b})
    torch.testing.assert_close(found, b @ a)


def test_alpha_is_baked_wherever_it_is_kept(base: Base, tmp_path: Path) -> None:
    a, b = pair()
    kohya = {f"{FLAT}.lora_down.weight": a, f"{FLAT}.lora_up.weight": b}
    found = imported(base, tmp_path, kohya | {f"{FLAT}.alpha": torch.tensor(6.0)})
    torch.testing.assert_close(found, 3 * b @ a)
    diffusers = {f"unet.{KEY}.lora_A.weight": a, f"unet.{KEY}.lora_B.weight": b}
    for config, scale in (
        ({"unet.r": 2, "unet.lora_alpha": 6}, 3.0),
        ({"unet.r": 2, "unet.lora_alpha": 6, "unet.use_rslora": True}, 6 / 2**0.5),
        ({"unet.r": 2, "unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_k": 1}}, 0.5),
    ):
        found = imported(base, tmp_path, diffusers, **{METADATA: json.dumps(config)})
        torch.testing.assert_close(found, scale * b @ a)


@pytest.mark.parametrize("shape", [(64, 48), (24, 32, 3, 3)], ids=["linear", "convolution"])
@pytest.mark.parametrize("whole", [True, False], ids=["tucker", "plain"])
@pytest.mark.parametrize("kind", ["loha", "lokr", "lokr-large-rank", "lokr-both"])
def test_products_of_lycoris_are_what_peft_makes_of_them(
    kind: str, whole: bool, shape: tuple[int, ...]
) -> None:
    """peft implements both from LyCORIS' own code, which wrote such files."""
    out, width, *kernel = shape
    layer: Any = nn.Conv2d(width, out, 3) if kernel else nn.Linear(width, out)
    options: dict[str, Any] = {"r": 2, "alpha": 5, "target_modules": ["0"], "init_weights": False}
    options |= {"use_effective_conv2d": whole}
    if kind == "loha":
        config: Any = LoHaConfig(**options)
    else:
        options |= {"r": 100} if "large" in kind else {"decompose_factor": 4}
        config = LoKrConfig(**options, decompose_both="both" in kind)
    torch.manual_seed(0)
    model = inject_adapter_in_model(config, nn.Sequential(layer))
    wrapped: Any = model.get_submodule("0")
    tensors = {
        name.removeprefix("0.").removesuffix(".default"): parameter.detach()
        for name, parameter in model.named_parameters()
        if "default" in name
    }
    names: Any = {
        **{f"lokr_{role}": role for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
        **{f"hada_w{role[0]}_{role[1]}": f"hada_{role}" for role in ("1a", "1b", "2a", "2b")},
        **{f"hada_{role}": f"hada_{role}" for role in ("t1", "t2")},
    }
    parts: dict[Role, Tensor] = {names[name]: tensor for name, tensor in tensors.items()}
    parts["alpha"] = torch.tensor(5.0)
    assert ({"w1", "w2"} <= parts.keys()) == ("large" in kind)
    if "large" in kind:  # LyCORIS leaves the scale out where both factors are whole, peft does not
        wrapped.scaling["default"] = 1.0
    expected = wrapped.get_delta_weight("default").detach()
    found = delta_of(change_of(parts), torch.zeros(shape))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_dora_along_either_axis(base: Base, tmp_path: Path) -> None:
    weight = BaseWeights(base)[LAYER].float()
    a, b = pair()
    merged = weight + b @ a
    tensors = {f"{FLAT}.lora_down.weight": a, f"{FLAT}.lora_up.weight": b}
    for norms in (noise(8, 1, seed=5).abs(), noise(1, 16, seed=6).abs()):
        dimension = 1 if norms.shape[1] == 1 else 0
        expected = merged * norms / merged.norm(dim=dimension, keepdim=True) - weight
        found = imported(base, tmp_path, tensors | {f"{FLAT}.dora_scale": norms})
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_full_changes_whole_weights_and_convolutions(base: Base, tmp_path: Path) -> None:
    weights = BaseWeights(base)
    delta = noise(8, 16)
    assert torch.equal(imported(base, tmp_path, {f"{FLAT}.diff": delta}), delta)
    flat = "lora_unet_mid_block_resnets_0_conv1"
    change = noise(*weights.shape(CONVOLUTION))
    assert torch.equal(imported(base, tmp_path, {f"{flat}.diff": change}, CONVOLUTION), change)
    down, mid, up = noise(2, 16, 1, 1), noise(2, 2, 3, 3, seed=1), noise(16, 2, 1, 1, seed=2)
    tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    found = imported(
        base, tmp_path, {f"{flat}.{name}": t for name, t in tensors.items()}, CONVOLUTION
    )
    pixels = noise(1, 16, 5, 5, seed=3)
    conv = nn.functional.conv2d
    expected = conv(conv(conv(pixels, down), mid), up)
    torch.testing.assert_close(conv(pixels, found), expected, rtol=1e-4, atol=1e-4)


def test_biases_are_refused_or_dropped(base: Base, tmp_path: Path) -> None:
    tensors = {f"{FLAT}.diff": noise(8, 16), f"{FLAT}.diff_b": noise(8)}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(AdapterFileError, match="changes the biases of 1 layers"):
        import_adapter(tmp_path / "x.safetensors", base.name)
    adapter, _ = import_adapter(tmp_path / "x.safetensors", base.name, drop_biases=True)
    assert list(adapter.tensors) == [f"{LAYER}.delta"]


def test_names_of_comfyui_and_of_old_text_encoders() -> None:
    a, b = pair(768, 768)
    ldm = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k"
    clip = "text_encoders.clip_g.transformer.text_model.encoder.layers.3.mlp.fc1"
    tensors = {
        f"{name}.{kind}": t
        for name in (ldm, clip)
        for kind, t in (("lora_up.weight", b), ("lora_down.weight", a))
    }
    assert set(from_comfyui(tensors).layers) == {
        "denoiser.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        "text_encoder_2.encoder.layers.3.mlp.fc1",
    }
    old = "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora"
    tensors = {f"{old}.down.weight": a, f"{old}.up.weight": b}
    assert set(from_diffusers(tensors).layers) == {"text_encoder.encoder.layers.0.self_attn.q_proj"}


def test_an_embedding_becomes_a_word(base: Base, tmp_path: Path) -> None:
    path, rows = tmp_path / "my-dog.safetensors", noise(2, 16)
    save_file({"emb_params": rows}, path)
    adapter, _ = import_adapter(path, base.name, words=[("<my-dog>", None)])
    assert torch.equal(adapter.tensors["words.text_encoder.<my-dog>"], rows)
    assert adapter.header.concepts[0].word == "<my-dog>"


def lora(key: str, width: int) -> dict[str, Tensor]:
    a, b = pair(320, width)
    return {f"{key}.lora_down.weight": a, f"{key}.lora_up.weight": b}


def file_of(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file; names may share a tensor."""
    return save({name: tensor.clone() for name, tensor in tensors.items()})


ONE = torch.ones(1)
CHECKPOINT = {"model.diffusion_model.input_blocks.0.0.weight": ONE, "first_stage_model.x": ONE}
ATTENTION = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
WHOLE = file_of({f"{FLAT}.lora_down.weight": noise(2, 16), f"{FLAT}.lora_up.weight": noise(8, 2)})


def damaged(**tensors: Tensor) -> bytes:
    """Return a LoRA of one layer with tensors replaced or added, named `lora_up__weight`."""
    a, b = pair()
    whole = {"lora_down.weight": a, "lora_up.weight": b}
    given = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return file_of({f"{FLAT}.{n}": t for n, t in (whole | given).items()})


def product(kind: str, *ranks: int) -> bytes:
    """Return a LoHa or LoKr of one layer, each of the four factors of the rank given."""
    a, b, c, d = ranks
    shapes = {
        "hada": {"w1_a": (8, a), "w1_b": (b, 16), "w2_a": (8, c), "w2_b": (d, 16)},
        "lokr": {"w1_a": (4, a), "w1_b": (b, 4), "w2_a": (2, c), "w2_b": (d, 4)},
    }[kind]
    return file_of({f"{FLAT}.{kind}_{name}": noise(*shape) for name, shape in shapes.items()})


def described(config: str) -> bytes:
    a, b = pair()
    tensors = {f"unet.{KEY}.lora_A.weight": a, f"unet.{KEY}.lora_B.weight": b}
    return save(tensors, {METADATA: config})


ALSO = "lycoris_" + KEY.replace(".", "_")
UNFIT: Mapping[str, tuple[bytes, str]] = {
    "ranks": (damaged(lora_up__weight=noise(8, 3)), r"do not fit \(factors of rank 3 and 2\)"),
    "ranks of loha": (product("hada", 3, 4, 4, 4), "factors of rank 3 and 4"),
    "ranks of loha that cancel": (product("hada", 3, 4, 4, 3), "factors of rank 3 and 4"),
    "ranks of lokr": (product("lokr", 2, 2, 3, 4), "factors of rank 3 and 4"),
    "rank 0": (
        damaged(lora_down__weight=torch.zeros(0, 16), lora_up__weight=torch.zeros(8, 0)),
        r"(down|up) has the shape \[(0, 16|8, 0)\]",
    ),
    "one axis": (damaged(lora_down__weight=noise(16)), r"down has the shape \[16\]"),
    "nan": (damaged(lora_up__weight=torch.full((8, 2), torch.nan)), "numbers that are not finite"),
    "alpha": (damaged(alpha=noise(3)), "alpha has 3 numbers"),
    "magnitudes": (damaged(dora_scale=noise(7, 1)), "7 magnitudes for 8 of its"),
    "twice": (
        file_of({f"{name}.{part}": t for name in (FLAT, ALSO)
                 for part, t in zip(("lora_down.weight", "lora_up.weight"), pair(), strict=True)}),
        "is there twice",
    ),
    "no json": (described("{oops"), "its lora_adapter_metadata is damaged"),
    "a list": (described("[1]"), "its lora_adapter_metadata is damaged"),
    "alpha of text": (described('{"unet.lora_alpha": "x"}'), "lora_alpha is 'x'; expected a num"),
    "a pattern": (described('{"unet.alpha_pattern": {"(": 1}}'), "by the regular expression '\\('"),
    "words": (file_of({
        f"{FLAT}.diff": noise(8, 16), "bundle_emb.x.clip_l": ONE, "bundle_emb.x.emb_params": ONE}),
        "one of its words has 2 tensors"),
    "width of a word": (
        file_of({f"{FLAT}.diff": noise(8, 16), "bundle_emb.dog.emb_params": noise(1, 9)}),
        "<dog> its rows are 9 wide"),
    "encoder of a word": (
        file_of({f"{FLAT}.diff": noise(8, 16),
                 "bundle_emb.dog.clip_l": noise(1, 16), "bundle_emb.dog.clip_g": noise(1, 16)}),
        "<dog> it has a text_encoder_2 and .* has none"),
    "nan in a word": (
        file_of({f"{FLAT}.diff": noise(8, 16),
                 "bundle_emb.dog.emb_params": torch.full((1, 16), torch.inf)}),
        "<dog> it holds numbers that are not finite"),
    "one stranger": (
        file_of({f"{FLAT}.diff": noise(8, 16), "lora_unet_extra.diff": ONE}),
        "1 of 2 tensors of no known layout, such as 'lora_unet_extra.diff'",
    ),
}  # fmt: skip
FOREIGN: Mapping[str, tuple[str, bytes, str]] = {
    "checkpoint": ("a.safetensors", file_of(CHECKPOINT), "a whole Stable Diffusion checkpoint"),
    "vae": ("a.safetensors", file_of({"decoder.conv_in.weight": ONE}), "a VAE"),
    "unet": ("a.safetensors", file_of({"down_blocks.0.resnets.0.conv1.weight": ONE}), "the UNet"),
    "text encoder": (
        "a.safetensors",
        file_of({"text_model.encoder.layers.0.mlp.fc1.weight": ONE, "logit_scale": ONE}),
        "the text encoder",
    ),
    "controlnet": ("a.safetensors", file_of({"controlnet_cond_embedding.conv_in.weight": ONE}),
                   "a ControlNet"),
    "ip-adapter": ("a.safetensors", file_of({"image_proj.proj.weight": ONE, "x.y": ONE}),
                   "an IP-Adapter"),
    "embedding": ("dog.safetensors", file_of({"emb_params": noise(1, 16)}),
                  "an embedding alone .* --word '<dog>'"),
    "flux": ("a.safetensors", file_of(lora("lora_unet_double_blocks_18_img_attn_qkv", 8)),
             "a LoRA for FLUX"),
    "qwen": ("a.safetensors", file_of({"transformer.transformer_blocks.59.attn.to_q.lora_A.weight":
             ONE}), "a LoRA for a transformer model"),
    "sd2": ("a.safetensors", file_of(lora(ATTENTION, 1024)), "is for Stable Diffusion 2 and"),
    "sdxl": ("a.safetensors", file_of(lora(ATTENTION, 2048)), "is for Stable Diffusion XL and"),
    "language model": ("a.safetensors", file_of({
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": ONE}),
        "a LoRA for a language model"),
    "unknown": ("a.safetensors", file_of({"x.y": ONE, "z.w": ONE}), "2 tensors of no known layout"),
    "half a layer": ("a.safetensors", file_of({f"{FLAT}.lora_down.weight": noise(2, 16)}),
                     "lacks the tensor 'up'"),
    "no tensors": ("a.safetensors", file_of({}), "without tensors"),
    "pickle": ("a.safetensors", b"\x80\x02}q\x00.", "a pickle"),
    "torch zip": ("a.safetensors", b"PK\x03\x04" + bytes(50), "a pickle in a zip"),
    "bin": ("a.bin", WHOLE, "a pickle by its name"),
    "truncated": ("a.safetensors", WHOLE[:-8], "cut short"),
    "truncated early": ("a.safetensors", WHOLE[:40], "cut short"),
    "damaged": ("a.safetensors", WHOLE[:9] + b"#" + WHOLE[10:], "a damaged safetensors file"),
    "empty": ("a.safetensors", b"", "empty"),
    "text": ("a.safetensors", b"just some words\n" * 9, "a text file"),
    "html": ("a.safetensors", b"\n<!DOCTYPE html><html>404", "a web page"),
    "lfs": ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git LFS"),
    "missing": ("", b"", "there is no such file"),
    **{case: ("a.safetensors", content, said) for case, (content, said) in UNFIT.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_other_files_are_named_and_nothing_is_written(
    base: Base,
    case: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # tables do not wrap
    name, content, message = FOREIGN[case]
    path = tmp_path / (name or "none.safetensors")
    if name:
        path.write_bytes(content)
    output = tmp_path / "out.safetensors"
    assert main(["import", str(path), "--base", base.name, "-o", str(output)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(message, told), told
    assert "expected" in told or "fault" in told
    assert not output.exists()
    assert len(list(tmp_path.iterdir())) == bool(name)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda: lora(ATTENTION, 768), ["kohya, LoRA", "Stable Diffusion 1", "rank 2"]),
        (lambda: {f"{ATTENTION}.diff": noise(320, 2048)}, ["kohya, full changes", "Diffusion XL"]),
        (lambda: {"emb_params": noise(2, 768)}, ["embedding, a word without weights"]),
        (lambda: CHECKPOINT, ["a whole Stable Diffusion checkpoint"]),
        (
            lambda: {
                f"unet.{KEY}.lora_A.weight": ONE[None],
                f"unet.{KEY}.lora_B.weight": ONE[None],
            },
            ["diffusers, LoRA", "1 of the denoiser"],
        ),
        (
            lambda: {
                f"base_model.model.{KEY}.lora_A.weight": noise(2, 768),
                f"base_model.model.{KEY}.lora_B.weight": noise(320, 2),
                f"base_model.model.{KEY}.lora_magnitude_vector": noise(320),
            },
            ["peft, LoRA, DoRA", "Stable Diffusion 1"],
        ),
        (
            lambda: lora("diffusion_model.input_blocks.4.1.proj_in", 320),
            ["comfyui, LoRA", "1 of the denoiser"],
        ),
        (
            lambda: {
                "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": noise(2, 768),
                "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": noise(3072, 2),
                "bundle_emb.dog.clip_l": noise(1, 768),
                "bundle_emb.dog.clip_g": noise(1, 1280),
            },
            ["kohya, LoRA", "1 of the text_encoder", "<dog> (1 vectors)"],
        ),
        (
            lambda: {
                f"{ATTENTION}.{part}": noise(*shape)
                for part, shape in {
                    "hada_w1_a": (320, 2),
                    "hada_w1_b": (2, 768),
                    "hada_w2_a": (320, 2),
                    "hada_w2_b": (2, 768),
                }.items()
            },
            ["kohya, LoHa", "Stable Diffusion 1"],
        ),
        (
            lambda: {
                f"{ATTENTION}.lokr_w1": noise(4, 4),
                f"{ATTENTION}.lokr_w2": noise(80, 192),
            },
            ["kohya, LoKr", "Stable Diffusion 1"],
        ),
        (
            lambda: {
                KEY.replace("to_k", "processor.to_k_custom_diffusion.weight"): noise(320, 768),
                KEY.replace("attn2.to_k", "attn1.processor"): torch.zeros(0),
            },
            ["custom-diffusion, whole weights", "Stable Diffusion 1"],
        ),
    ],
)
def test_inspect_names_the_layout(
    write: Callable[[], dict[str, Tensor]],
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_file({k: t.clone() for k, t in write().items()}, tmp_path / "x.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2}')  # read for peft's
    assert main(["inspect", str(tmp_path / "x.safetensors")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert [text for text in expected if text not in told] == []


@pytest.mark.parametrize("case", [case for case in FOREIGN if case not in UNFIT])
def test_files_that_are_no_adapter_of_ours_are_not_exported(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, _ = FOREIGN[case]
    path = tmp_path / (name or "none.safetensors")
    if name:
        path.write_bytes(content)
    output = tmp_path / "out"
    assert main(["export", str(path), "--to", "all", "-o", str(output)]) == 2
    assert "expected" in capsys.readouterr().err
    assert not output.exists()


def test_inspect_reads_alpha_of_one_number_in_a_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(damaged(alpha=torch.tensor([2.0])))
    assert main(["inspect", str(path)]) == 0
    assert "kohya, LoRA" in capsys.readouterr().out


def test_bundled_words_may_bring_their_spelling(base: Base, tmp_path: Path) -> None:
    rows = noise(1, 16)
    tensors = {
        f"{FLAT}.diff": noise(8, 16),
        "bundle_emb.dog.string_to_param.*": rows,
        "bundle_emb.dog.string_to_token.*": ONE,
    }
    save_file(tensors, tmp_path / "x.safetensors")
    adapter, _ = import_adapter(tmp_path / "x.safetensors", base.name)
    assert torch.equal(adapter.tensors["words.text_encoder.<dog>"], rows)


def test_peft_folders_are_inspected_and_damaged_configs_told(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = pair()
    for model, key in (("unet", KEY), ("text_encoder", "encoder.layers.0.mlp.fc1")):
        folder, start = tmp_path / "peft" / model, f"base_model.model.{key}"
        folder.mkdir(parents=True)
        tensors = {f"{start}.lora_A.weight": a, f"{start}.lora_B.weight": b}
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2}')
    assert main(["inspect", str(tmp_path / "peft")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for part in (
        "2 files",
        "peft, LoRA",
        "1 of the denoiser, 1 of the text_encoder",
        "customize import",
    ):
        assert part in told
    (folder / "adapter_config.json").write_text("{oops")
    output = str(tmp_path / "out.safetensors")
    for command in (
        ["inspect", str(folder / "adapter_model.safetensors")],
        ["inspect", str(tmp_path / "peft")],
        ["import", str(tmp_path / "peft"), "--base", base.name, "-o", output],
    ):
        assert main(command) == 2
        assert "its adapter_config.json is damaged" in " ".join(capsys.readouterr().err.split())
    assert main(["inspect", str(tmp_path)]) == 2  # still damaged below
    (tmp_path / "none").mkdir()
    assert main(["inspect", str(tmp_path / "none")]) == 2


def test_import_on_the_command_line(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dog.safetensors").write_bytes(WHOLE)
    save_file({"emb_params": noise(1, 16)}, tmp_path / "word.safetensors")
    output = tmp_path / "adapter.safetensors"
    words = ["--word", f"<my-dog>={tmp_path / 'word.safetensors'}"]
    command = ["import", str(tmp_path / "dog.safetensors"), "--base", base.name, "-o", str(output)]
    assert main([*command, *words]) == 0
    assert "kohya, LoRA" in capsys.readouterr().out
    header = read_adapter(output).header
    assert (header.method, header.concepts[0].word) == ("imported", "<my-dog>")
    assert header.training == {"imported_from": "dog.safetensors", "layout": "kohya, LoRA"}
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
