"""FLUX.2 klein with random weights, at 4B's true sizes or as a toy, for `geometry.py`.

The tokenizer knows bytes and Qwen's marks alone; the text encoder has the published vocabulary.
"""

from __future__ import annotations

from typing import Any

MARKS = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def klein_pipeline(*, toy: bool) -> Any:
    """Build the pipeline on the default device."""
    import diffusers
    import transformers

    kinds: Any = diffusers
    width, heads, double, single = (32, 2, 2, 3) if toy else (2560, 24, 5, 20)
    vae = kinds.AutoencoderKLFlux2(
        **({"block_out_channels": (32, 32, 32, 32), "sample_size": 128} if toy else {})
    )
    text = transformers.Qwen3Config(
        vocab_size=512 if toy else 151936,
        hidden_size=width,
        intermediate_size=64 if toy else 9728,
        num_hidden_layers=4 if toy else 36,
        num_attention_heads=2 if toy else 32,
        num_key_value_heads=1 if toy else 8,
        head_dim=16 if toy else 128,
        tie_word_embeddings=True,
    )
    head = 16 if toy else 128
    return kinds.Flux2KleinPipeline(
        scheduler=kinds.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=transformers.Qwen3ForCausalLM(text).eval(),
        tokenizer=_tokenizer(),
        transformer=kinds.Flux2Transformer2DModel(
            num_layers=double,
            num_single_layers=single,
            attention_head_dim=head,
            num_attention_heads=heads,
            joint_attention_dim=3 * width,
            axes_dims_rope=(head // 4,) * 4,
            guidance_embeds=False,
        ).eval(),
        is_distilled=False,
    )


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
