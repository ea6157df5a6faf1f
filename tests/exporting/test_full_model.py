"""Whole models: the single file against diffusers' own converters, the folder as a base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import shake, toy_header, toy_resolved
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as converters
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.file import AdapterFile, read_adapter, save_adapter
from customize.errors import OutputExistsError
from customize.exporting import ExportOptions, export
from customize.exporting.whole_model.full_model import merged_pipeline, pipeline_weights
from customize.exporting.whole_model.single_file_keys import from_single_file, to_single_file
from customize.families import open_family
from customize.families.base import Base, resolve_base
from customize.families.words import Word
from customize.files.manifest import NAME as MANIFEST

_vae: Any = AutoencoderKL  # diffusers annotates tuples as tuple[int]
SD15: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (8, 16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
DOG = ExportOptions(name="dog", dtype="float32")
SDXL = SD15 | {
    "block_out_channels": (8, 16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 40,
}


def toy_adapter(base: Base, folder: Path, method: Method, words: tuple[Word, ...] = ()) -> Path:
    """Shake an adapter of `base` and save it to `folder`."""
    family = open_family(base, learns_text=True)
    attached = attach(family, method, words)
    shake(attached)
    is_low_rank = isinstance(method, LowRank)
    header = toy_header(
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        method="low_rank" if is_low_rank else "cross_attention_kv",
        rank=method.rank if is_low_rank else None,
        alpha=method.alpha if is_low_rank else None,
    )
    return save_adapter(folder / "adapter.safetensors", header, attached.state())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> AdapterFile:
    word = Word("<my-dog>", initializer="dog", vectors=2)
    folder = tmp_path_factory.mktemp("adapter")
    return read_adapter(toy_adapter(base, folder, CrossAttentionKV(), (word,)))


@pytest.mark.parametrize("config", [SD15, SDXL], ids=["SD 1.5", "SDXL"])
def test_diffusers_reads_the_unet_back_bit_for_bit(config: dict[str, Any]) -> None:
    unet = UNet2DConditionModel(**config)
    weights = unet.state_dict()
    named = to_single_file({"unet": weights}, {"unet": unet.config})
    back = converters.convert_ldm_unet_checkpoint(dict(named), unet.config)
    assert len(named) == len(weights) > 300
    assert_same(back, weights)
    assert named["model.diffusion_model.input_blocks.0.0.weight"].shape[1] == 8
    assert_same(from_single_file(named, {"unet": unet.config})["unet"], weights)


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys(), sorted(left.keys() ^ right.keys())[:5]
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_diffusers_reads_the_autoencoder_back_bit_for_bit() -> None:
    vae = _vae(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=2,
        norm_num_groups=4,
    )
    weights = vae.state_dict()
    named = to_single_file({"vae": weights}, {"vae": vae.config})
    assert_same(converters.convert_ldm_vae_checkpoint(dict(named), vae.config), weights)
    assert_same(from_single_file(named, {"vae": vae.config})["vae"], weights)
    assert named["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)


def test_diffusers_reads_the_second_text_encoder_back_bit_for_bit() -> None:
    encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            projection_dim=16,
            num_hidden_layers=3,
            num_attention_heads=2,
        )
    )
    weights = encoder.state_dict()
    components = {"text_encoder": {"final_layer_norm.weight": torch.ones(2)}}
    named = to_single_file(components | {"text_encoder_2": weights}, {})
    prefix = "conditioner.embedders.1.model."
    assert f"{prefix}transformer.resblocks.2.attn.in_proj_weight" in named
    assert_same(converters.convert_open_clip_checkpoint(encoder, named, prefix), weights)
    both = from_single_file(named, {"text_encoder": {}, "text_encoder_2": {}})
    assert_same(both["text_encoder_2"], weights)
    assert both["text_encoder"].keys() == {"final_layer_norm.weight"}
    assert "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight" in named


def test_the_written_single_file_holds_base_plus_adapter(
    base: Base, adapter: AdapterFile, tmp_path: Path
) -> None:
    written = export(adapter, base, "full-model", tmp_path, DOG)
    files, notes = written.files, written.notes
    assert files[0] == tmp_path / "dog.safetensors"
    assert any("embedding files" in note for note in notes)
    named, pipeline = load_file(files[0]), merged_pipeline(adapter, base, torch.float32)
    weights = pipeline_weights(pipeline)
    unet, vae = pipeline.unet.config, pipeline.vae.config
    assert_same(converters.convert_ldm_unet_checkpoint(dict(named), unet), weights["unet"])
    assert_same(converters.convert_ldm_vae_checkpoint(dict(named), vae), weights["vae"])
    text = converters.convert_ldm_clip_checkpoint(dict(named))
    text = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    table = "embeddings.token_embedding.weight"
    rows = len(weights["text_encoder"][table]) - 2  # all but the word's two vectors
    assert torch.equal(text.pop(table), weights["text_encoder"].pop(table)[:rows])
    assert_same(text, weights["text_encoder"])
    with safe_open(files[0], framework="pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/instruct-pix2pix"
    assert json.loads(metadata["customize.scheduler"])["prediction_type"] == "v_prediction"


def test_the_written_folder_is_a_base_that_knows_the_word(
    base: Base, adapter: AdapterFile, tmp_path: Path
) -> None:
    files = export(adapter, base, "full-model", tmp_path, DOG).files
    assert all(path.is_file() for path in files)
    configs = [path.read_text() for path in (tmp_path / "dog").rglob("*.json")]
    assert len(configs) > 5
    assert not [text for text in configs if str(base.folder) in text]
    from customize.families import open_pipeline

    written = open_pipeline(resolve_base(str(tmp_path / "dog")))
    merged = merged_pipeline(adapter, base, torch.float32)
    assert_same(pipeline_weights(written)["unet"], pipeline_weights(merged)["unet"])
    assert_same(pipeline_weights(written)["text_encoder"], pipeline_weights(merged)["text_encoder"])
    text = "add <my-dog> now"
    spelled = written.maybe_convert_prompt(text, written.tokenizer)
    assert spelled == "add <my-dog> <my-dog>_1 now"
    assert written.tokenizer(spelled).input_ids == merged.tokenizer(spelled).input_ids


def test_nothing_is_replaced_or_left_behind(
    base: Base, adapter: AdapterFile, tmp_path: Path
) -> None:
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "mine.txt").write_text("mine")
    half = ExportOptions(name="dog", dtype="float16")
    for overwrite, said in ((False, "dog: it is there already"), (True, r"mine\.txt|no run wrote")):
        with pytest.raises(OutputExistsError, match=said):
            export(adapter, base, "full-model", tmp_path, half, overwrite=overwrite)
    assert [path.name for path in tmp_path.rglob("*")] == ["dog", "mine.txt"]
    (tmp_path / "dog" / "mine.txt").rename(tmp_path / "mine.txt")
    for options in (DOG, half):
        export(adapter, base, "full-model", tmp_path, options, overwrite=True)
    shown = {path.name for path in tmp_path.iterdir()} - {MANIFEST}
    assert shown == {"dog", "dog.safetensors", "dog.workflow.json", "embeddings", "mine.txt"}
    assert json.loads((tmp_path / "dog" / "model_index.json").read_text())
    assert {t.dtype for t in load_file(tmp_path / "dog.safetensors").values()} == {torch.float16}
