"""Exports at the true sizes of Stable Diffusion 1.5 and XL, read by diffusers' own loader."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from builders.bases import toy_header
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from customize.adapters.file import AdapterFile
from customize.exporting import export
from customize.exporting.formats.ldm_names import SD1, SDXL, Blocks, blocks_of, from_ldm, to_ldm
from customize.exporting.formats.module_paths import flatten, unflatten
from customize.exporting.targets import ExportOptions, Target
from customize.families.base import Base

UNETS: Mapping[str, Mapping[str, Any]] = {
    "sd1": {"in_channels": 8, "cross_attention_dim": 768},
    "xl": {
        "in_channels": 8,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    },
}
NAME = "exported"
LAYERS = {"sd1": 282 + 72, "xl": 794 + 72 + 192}


def networks(size: str) -> dict[str, nn.Module]:
    """Build the networks on zeros that take no memory."""
    config: Any = CLIPTextConfig
    with init_empty_weights():
        text = config(hidden_size=768, intermediate_size=3072, num_hidden_layers=12)
        found: dict[str, Any] = {
            "denoiser": UNet2DConditionModel(**UNETS[size]),
            "text_encoder": CLIPTextModel(text),
        }
        if size == "xl":
            text = config(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32)
            found["text_encoder_2"] = CLIPTextModelWithProjection(text)
    for network in found.values():
        for module in network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                zeros = nn.Parameter(torch.zeros(1).expand(parameter.shape), requires_grad=False)
                setattr(module, name, zeros)
    return found


def weighted(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the layers that low rank can change, by their names in adapter files."""
    for model, network in models.items():
        for path, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and "text_projection" not in path:
                yield f"{model}.{path.removeprefix('text_model.')}", tuple(module.weight.shape)


def adapter_of(models: Mapping[str, nn.Module], size: str) -> AdapterFile:
    """Make a LoRA of every layer, of ranks 1 and 2, at alpha 3 of rank 2."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for index, (layer, (out, *rest)) in enumerate(weighted(models)):
        rank, (width, *kernel) = 1 + index % 2, rest
        down = torch.randn(rank, width, *kernel, generator=generator)
        tensors[f"{layer}.lora_A"] = down / width**0.5
        up = torch.randn(out, rank, *[1] * len(kernel), generator=generator)
        tensors[f"{layer}.lora_B"] = 1e-4 * up
    family = "instruct_pix2pix" + "_xl" * (size == "xl")
    return AdapterFile(toy_header(family=family, rank=2, alpha=3.0), tensors)


def base_of(size: str) -> Base:
    """Describe a base whose weights are nowhere: these exports need none."""
    family: Any = "instruct_pix2pix" + "_xl" * (size == "xl")
    return Base("hub/base", Path("/nowhere"), family, "0" * 64, 512, 64, 8)


@torch.no_grad()
def difference(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Return the relative Frobenius difference of two low-rank products, never forming them."""
    (up, down), (up_2, down_2) = first, second
    ups = torch.cat([up.double().flatten(1), -up_2.double().flatten(1)], dim=1)
    downs = torch.cat([down.double().flatten(1), down_2.double().flatten(1)])
    gram = (ups.T @ ups) * (downs @ downs.T)
    rank = len(down)
    return float((gram.sum().clamp(min=0) / gram[:rank, :rank].sum()).sqrt())


@torch.no_grad()
def load(models: Mapping[str, nn.Module], path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Put a file on the networks as `load_lora_weights` does; return what diffusers warned of."""
    pipeline: Any = StableDiffusionXLPipeline if len(models) == 3 else StableDiffusionPipeline
    unet: Any = models["denoiser"]
    state, alphas, metadata = pipeline.lora_state_dict(
        str(path), unet_config=unet.config, return_lora_metadata=True
    )
    given: Any = {"adapter_name": NAME, "metadata": metadata, "low_cpu_mem_usage": True}
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_into_unet(state, alphas, unet, **given)
        for name in models.keys() - {"denoiser"}:
            pipeline.load_lora_into_text_encoder(
                state, network_alphas=alphas, text_encoder=models[name], prefix=name, **given
            )
    return " ".join(record.getMessage() for record in caplog.records if "keys" in record.msg)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """Hear what diffusers logs, which it keeps from pytest."""
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    return caplog


@pytest.mark.parametrize("target", ["kohya", "diffusers"])
@pytest.mark.parametrize("size", LAYERS)
def test_diffusers_matches_every_layer(
    size: str, target: Target, tmp_path: Path, heard: pytest.LogCaptureFixture
) -> None:
    models = networks(size)
    adapter = adapter_of(models, size)
    written = export(adapter, base_of(size), target, tmp_path, ExportOptions(name="lora"))
    assert load(models, written.files[0], heard) == ""
    worst = 0.0
    for layer in sorted({name.rpartition(".")[0] for name in adapter.tensors}):
        model, _, path = layer.partition(".")
        network = models[model]
        loaded: Any = network.get_submodule(
            path if hasattr(network, path.split(".")[0]) else f"text_model.{path}"
        )
        up, down = loaded.lora_B[NAME].weight, loaded.lora_A[NAME].weight
        exact = (adapter.header.scale * adapter.tensors[f"{layer}.lora_B"],)
        exact = (*exact, adapter.tensors[f"{layer}.lora_A"])
        worst = max(worst, difference(exact, (loaded.scaling[NAME] * up, down)))
    changed = [m for n in models.values() for m in n.modules() if NAME in getattr(m, "lora_A", ())]
    assert len(changed) == len(adapter.tensors) / 2 == LAYERS[size]
    assert 0 < worst <= 1e-3
    assert written.largest_error == pytest.approx(worst, rel=0.05)


@pytest.mark.parametrize("fault", ["missing", "unexpected"])
def test_a_key_too_few_or_too_many_is_heard_of(
    fault: str, tmp_path: Path, heard: pytest.LogCaptureFixture
) -> None:
    """The test above could not fail if diffusers kept such keys to itself."""
    models = networks("sd1")
    written = export(adapter_of(models, "sd1"), base_of("sd1"), "diffusers", tmp_path)
    tensors = load_file(written.files[0])
    with safe_open(written.files[0], "pt") as file:
        metadata = file.metadata()
    first = min(name for name in tensors if name.startswith("unet."))
    if fault == "missing":
        del tensors[first]
    else:
        tensors[first.replace("unet.", "unet.nowhere.")] = tensors[first].clone()
    save_file(tensors, written.files[0], metadata)
    assert f"{fault} keys" in load(models, written.files[0], heard)


@pytest.mark.parametrize(("size", "blocks"), [("sd1", SD1), ("xl", SDXL)])
def test_every_path_comes_back_from_its_flattened_and_its_ldm_name(
    size: str, blocks: Blocks
) -> None:
    models = networks(size)
    unet: Any = models["denoiser"]
    assert blocks_of(unet.config) == blocks
    paths = [
        path
        for network in models.values()
        for path, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    assert len(paths) == {"sd1": 391 + 99, "xl": 1050 + 99 + 260}[size]
    assert [path for path in paths if unflatten(flatten(path)) != path] == []
    owned = [path for path in paths if hasattr(unet, path.split(".")[0])]
    ldm = {path: to_ldm(path, blocks) for path in owned}
    assert len(set(ldm.values())) == len(owned)
    assert [path for path, name in ldm.items() if from_ldm(name, SD1, SDXL) != path] == []
    assert [path for path, name in ldm.items() if unflatten(flatten(name)) != name] == []


def test_ldm_names_are_the_original_ones() -> None:
    known = {
        "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "down_blocks.3.resnets.1.time_emb_proj": "input_blocks.11.0.emb_layers.1",
        "mid_block.resnets.1.norm2": "middle_block.2.out_layers.0",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
        "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "up_blocks.3.attentions.2.proj_out": "output_blocks.11.1.proj_out",
        "up_blocks.3.resnets.0.conv_shortcut": "output_blocks.9.0.skip_connection",
    }
    assert {path: to_ldm(path, SD1) for path in known} == known
    assert to_ldm("up_blocks.0.upsamplers.0.conv", SDXL) == "output_blocks.2.2.conv"
    assert to_ldm("down_blocks.2.attentions.1.proj_in", SDXL) == "input_blocks.8.1.proj_in"
