"""The profile of FLUX.2 klein: what shared code may know of it without opening a base."""

from __future__ import annotations

from customize.families.profile import FrontEnds, Layers, Profile, UsualBase
from customize.families.sampling_defaults import Sampling

_DOUBLE, _SINGLE = r"transformer_blocks\.\d+", r"single_transformer_blocks\.\d+"
# Single blocks compute attention and feed-forward by one weight each way, so these are in both.
_ATTENTION = rf"{_DOUBLE}\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
_FUSED = rf"{_SINGLE}\.attn\.(to_qkv_mlp_proj|to_out)"
_FEED_FORWARD = rf"{_DOUBLE}\.(ff|ff_context)\.linear_(in|out)"

KLEIN = Profile(
    pipeline="Flux2KleinPipeline",
    denoiser="transformer",
    text_encoders=("text_encoder",),
    layers=Layers(
        text_kv=rf"{_DOUBLE}\.attn\.add_[kv]_proj",
        groups={
            "attention": rf"{_ATTENTION}|{_FUSED}",
            "feed_forward": rf"{_FEED_FORWARD}|{_FUSED}",
            "all": rf"{_ATTENTION}|{_FEED_FORWARD}|{_FUSED}",
        },
        quantized=rf"{_ATTENTION}|{_FEED_FORWARD}|{_FUSED}",
        # From the second block on, the text's stream has read the pictures' and the step.
        text_alone=False,
    ),
    # The card of black-forest-labs/FLUX.2-klein-base-4B; the source takes no guidance of its own.
    sampling=Sampling(steps=50, text_guidance=4.0, image_guidance=1.0),
    usual_bases=(
        UsualBase("FLUX.2 klein 4B", "black-forest-labs/FLUX.2-klein-base-4B", text_width=24 * 128),
        UsualBase("FLUX.2 klein 9B", "black-forest-labs/FLUX.2-klein-base-9B", text_width=32 * 128),
    ),
    front_ends=FrontEnds(
        kohya_prefixes={"denoiser": "lora_unet_", "text_encoder": "lora_te_"},
        kohya_version="flux2",
        architecture="flux.2-klein",
        webui_version="FLUX2",
        makers_names=True,
        # InvokeAI takes a file without it for one of FLUX.1, whose layers are as wide.
        telling="denoiser.single_transformer_blocks.0.attn.to_qkv_mlp_proj",
        targets=frozenset({"kohya", "diffusers", "comfyui", "invokeai", "peft"}),
        edits="FLUX.2 klein",
        tag="flux2-klein",
    ),
    token_table="model.embed_tokens",
    tokenizer_class="Qwen2Tokenizer",
    longest_text=512 - 12,  # the rest makes it a question
    reads_references=True,
    objective="flow_matching",
    learns_text=False,
    guides_by_source=False,
    holds_steps=False,
)
