"""FLUX.2 klein at toy width: the libraries' own classes, from a seed, CPU and offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from builders.bases import byte_letters
from builders.runs import toy_pairs, toy_recipe
from customize.families.base import Base, resolve_base
from customize.families.loading.quiet import quiet_loading
from customize.recipe import Recipe

# diffusers annotates tuples as tuple[int] and leaves None out: used here as they are meant.
_vae: Any = AutoencoderKLFlux2
_transformer: Any = Flux2Transformer2DModel
_pipeline: Any = Flux2KleinPipeline
_tokenizer: Any = Qwen2Tokenizer

TEXT_WIDTH = 32
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def toy_klein(folder: Path, seed: int = 0, *, distilled: bool = False) -> Path:
    """Write a complete klein base of 64-pixel pictures to `folder`."""
    with quiet_loading():
        klein_pipeline(seed, distilled=distilled).save_pretrained(folder)
    return folder


def resolved_klein(folder: Path, seed: int = 0) -> Base:
    """Write a toy klein and resolve it as a user's folder."""
    return resolve_base(str(toy_klein(folder, seed)))


def klein_pipeline(seed: int = 0, *, distilled: bool = False) -> Any:
    """Build the toy in memory, its latents' statistics away from those of the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = _vae(
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
        )
        vae.bn.running_mean.normal_(std=0.1)
        vae.bn.running_var.uniform_(0.05, 0.2)
        tokenizer = klein_tokenizer()
        text_encoder = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=2 * TEXT_WIDTH,
                num_hidden_layers=4,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=16,
                max_position_embeddings=1024,
            )
        )
        transformer = _transformer(
            in_channels=16,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * TEXT_WIDTH,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
    pipeline = _pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
        ),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        is_distilled=distilled,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def klein_tokenizer() -> Any:
    """Build a tokenizer that knows every byte and Qwen's markers."""
    letters = [*byte_letters().values()]
    vocabulary = {entry: index for index, entry in enumerate([*letters, "<|endoftext|>"])}
    tokenizer = _tokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]}
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def klein_recipe(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe of 6 steps for the toy klein; what it names is made in `folder`."""
    if not (folder / "base").exists():
        toy_klein(folder / "base")
        toy_pairs(folder / "pairs", size=(64, 64), text="add <my-dog>")
        toy_pairs(folder / "unseen", first_seed=50, size=(80, 64))
    own: dict[str, Any] = {
        "adapter": {"method": "low_rank", "rank": 2, "targets": ["all"]},
        "train": {"steps": 6, "batch": 2, "learning_rate": 1e-2},
        "preservation": {"share": 0.3, "instructions": ["make it red"]},
    }
    return toy_recipe(folder, **{**own, **changes})
