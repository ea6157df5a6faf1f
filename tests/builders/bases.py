"""Every shared fake: real classes of the libraries at toy width, from a seed, CPU and offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from customize import families
from customize.adapters import Attached
from customize.adapters.header import Header
from customize.families.base import Base, resolve_base
from customize.families.loading.quiet import quiet_loading
from customize.shapes import Example

# diffusers annotates tuples as tuple[int] and leaves None out: used here as they are meant.
_vae: Any = AutoencoderKL
_pipeline: Any = StableDiffusionInstructPix2PixPipeline
_unet: Any = UNet2DConditionModel
_xl_pipeline: Any = StableDiffusionXLInstructPix2PixPipeline

TEXT_LENGTH = 24
TEXT_WIDTH = 16
XL_TEXT_WIDTH = 24
WORDS = ("make", "the", "dog", "red", "paint", "it", "add", "hat", "night", "blue")


def toy_base(folder: Path, seed: int = 0) -> Path:
    """Write a complete InstructPix2Pix base of 32-pixel pictures to `folder`, in 0.2 s."""
    with quiet_loading():
        toy_pipeline(seed).save_pretrained(folder)
    _write_vocabulary(folder / "tokenizer")
    return folder


def _write_vocabulary(folder: Path) -> None:
    """Add what transformers 5 leaves out, saving tokenizer.json alone: other front ends need it."""
    vocabulary, merges = _vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def toy_pipeline(seed: int = 0) -> StableDiffusionInstructPix2PixPipeline:
    """Build the toy base in memory; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = _vae(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=False,
            sample_size=32,
            scaling_factor=0.7,  # away from 1, so that a forgotten scale shows
        )
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D",) * 3,
            up_block_types=("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(8, 8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=TEXT_WIDTH,
        )
        tokenizer = toy_tokenizer()
        text_encoder = CLIPTextModel(_text_config(len(tokenizer)))
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = _pipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def toy_xl_base(folder: Path, seed: int = 0) -> Path:
    """Write a complete SDXL InstructPix2Pix base of 32-pixel pictures to `folder`."""
    with quiet_loading():
        toy_xl_pipeline(seed).save_pretrained(folder)
    _write_vocabulary(folder / "tokenizer")
    _write_vocabulary(folder / "tokenizer_2")
    return folder


def toy_xl_pipeline(seed: int = 0) -> StableDiffusionXLInstructPix2PixPipeline:
    """Build the toy SDXL base in memory, with the published configs' kinds and oddities.

    Both encoders say `eos_token_id: 2`, the second pads with "!", the VAE asks for float32. Its 11
    transformers are of two depths, as SDXL's 70 are; names at true depth are tests' of their own.
    """
    small = toy_pipeline(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        unet = _unet(
            sample_size=16,
            in_channels=8,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=(2, 4, 4),
            transformer_layers_per_block=(1, 1, 2),
            use_linear_projection=True,
            cross_attention_dim=TEXT_WIDTH + XL_TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + XL_TEXT_WIDTH,
        )
        tokenizers = toy_tokenizer(), toy_tokenizer(pad_token="!")
        configs = [_text_config(len(tokenizers[0])), _text_config(len(tokenizers[1]))]
        for config, width in zip(configs, (TEXT_WIDTH, XL_TEXT_WIDTH), strict=True):
            config.eos_token_id, config.hidden_size, config.projection_dim = 2, width, width
            config.num_hidden_layers = 3
        configs[1].hidden_act = "gelu"
        encoders = CLIPTextModel(configs[0]), CLIPTextModelWithProjection(configs[1])
        small.vae.register_to_config(force_upcast=True)
    pipeline = _xl_pipeline(
        vae=small.vae,
        text_encoder=encoders[0].eval(),
        text_encoder_2=encoders[1].eval(),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def toy_tokenizer(**options: Any) -> CLIPTokenizer:
    """Build a tokenizer that knows every byte and the few `WORDS`."""
    vocabulary, merges = _vocabulary()
    tokenizer: Any = CLIPTokenizer  # its annotations refuse the pairs that its tokenizer wants
    return tokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_LENGTH, **options)


def toy_resolved(folder: Path, seed: int = 0) -> Base:
    """Write a toy base and resolve it as a user's folder."""
    return resolve_base(str(toy_base(folder, seed)))


def in_two_steps(folder: Path) -> Path:
    """Let edits by a base take two steps where nobody asks for more; returns its folder."""
    own = {"steps": 2, "text_guidance": 7.5, "image_guidance": 1.5}
    (folder / "customize.json").write_text(json.dumps({"edit": own}))
    return folder


def toy_family(folder: Path, seed: int = 0, *, learns_text: bool = True) -> families.Family:
    """Write a toy base to `folder` and open it for training."""
    return families.open_family(toy_resolved(folder, seed), learns_text=learns_text)


def toy_example(seed: int = 0, instruction: str = "make the dog red", size: int = 32) -> Example:
    """Draw a random source and target, (size, size) pixels."""
    random = np.random.default_rng(seed)
    source_HWC, target_HWC = random.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    return Example(source_HWC=source_HWC, target_HWC=target_HWC, instruction=instruction)


def _text_config(vocabulary_size: int) -> CLIPTextConfig:
    end_id = vocabulary_size - 1
    return CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=end_id - 1,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """List 256 bytes, 256 word-end bytes, the merges that spell `WORDS`, and the two markers."""
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
            pieces = ["".join(pair), *pieces[2:]]
    letters = list(byte_letters().values())
    entries = [*letters, *(f"{letter}</w>" for letter in letters)]
    entries += ["".join(pair) for pair in merges]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return {entry: index for index, entry in enumerate(entries)}, merges


def byte_letters() -> dict[int, str]:
    """Map each byte to the letter that stands for it in byte-level BPE (the GPT-2 table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + index) for index, byte in enumerate(shifted)
    }


def shake(attached: Attached, seed: int = 0, size: float = 0.05) -> None:
    """Move every learned tensor by noise of deviation `size`, as if training had."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attached.tensors().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def toy_header(**changes: Any) -> Header:
    """Describe an adapter of the toy base."""
    facts: dict[str, Any] = {
        "family": "instruct_pix2pix",
        "base_name": "toy",
        "base_fingerprint": "0" * 64,
        "method": "low_rank",
    }
    return Header(**(facts | changes))
