"""FLUX.2 klein with random weights, at 4B's true sizes and smaller, for `geometry.py`.

The tokenizer knows bytes and Qwen's marks alone; the text encoder has the published vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MARKS = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


@dataclass(frozen=True)
class KleinSize:
    """How large a klein is; `text` is the Qwen3's width, `vae` None the published autoencoder."""

    text: int
    text_layers: int
    text_heads: tuple[int, int, int]
    vocabulary: int
    heads: int
    head: int
    blocks: tuple[int, int]
    vae: tuple[int, ...] | None


SIZES = {
    "klein": KleinSize(2560, 36, (32, 8, 128), 151936, 24, 128, (5, 20), None),
    "small_klein": KleinSize(512, 12, (8, 2, 64), 8192, 6, 64, (2, 8), (32, 64, 128, 128)),
    "toy_klein": KleinSize(32, 4, (2, 1, 16), 512, 2, 16, (2, 3), (32, 32, 32, 32)),
}


def klein_pipeline(size: KleinSize) -> Any:
    """Build the pipeline on the default device."""
    import diffusers
    import transformers

    kinds: Any = diffusers
    small = {"block_out_channels": size.vae, "sample_size": 128} if size.vae else {}
    heads, key_heads, head = size.text_heads
    text = transformers.Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.text,
        intermediate_size=size.text * 19 // 5,
        num_hidden_layers=size.text_layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=head,
        tie_word_embeddings=True,
    )
    return kinds.Flux2KleinPipeline(
        scheduler=kinds.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=kinds.AutoencoderKLFlux2(**small).eval(),
        text_encoder=transformers.Qwen3ForCausalLM(text).eval(),
        tokenizer=_tokenizer(),
        transformer=klein_transformer(size),
        is_distilled=False,
    )


def klein_transformer(size: KleinSize) -> Any:
    """Build the denoiser alone on the default device."""
    import diffusers

    kinds: Any = diffusers
    return kinds.Flux2Transformer2DModel(
        num_layers=size.blocks[0],
        num_single_layers=size.blocks[1],
        attention_head_dim=size.head,
        num_attention_heads=size.heads,
        joint_attention_dim=3 * size.text,
        axes_dims_rope=(size.head // 4,) * 4,
        guidance_embeds=False,
    ).eval()


def _tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [chr(256 + index) for index in range(256 - len(plain))]
    vocabulary = [*map(chr, plain), *others, "<|endoftext|>"]
    kind: Any = Qwen2Tokenizer
    tokenizer = kind(
        vocab={entry: index for index, entry in enumerate(vocabulary)},
        merges=[],
        pad_token="<|endoftext|>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = TEMPLATE
    return tokenizer
