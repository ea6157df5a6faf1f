"""Files that hold no adapter for these bases, told by what one of their tensors is called."""

from __future__ import annotations

# The first that matches one of a file's names says what it is.
OTHER_FILES: tuple[tuple[str, str], ...] = (
    (r"model\.diffusion_model\.", "a whole Stable Diffusion checkpoint (a base, no adapter)"),
    (r"(control_model|controlnet)|input_hint_block", "a ControlNet"),
    (r"(image_proj|ip_adapter)\.|.*_ip\.", "an IP-Adapter"),
    (r"(adapter\.)?body\.\d+\.(block|resnets)", "a T2I-Adapter"),
    (
        r"(lora_unet_|transformer\.|lora_transformer_).*(double|single)_(transformer_)?blocks",
        "a LoRA for FLUX",
    ),
    (r"diffusion_model\.(double|single)_blocks", "a LoRA for FLUX"),
    (r"(lora_unet_|diffusion_model\.)joint_blocks", "a LoRA for Stable Diffusion 3"),
    (
        r"(transformer\.|lora_unet_|lora_transformer_|diffusion_model\.)(transformer_|)blocks",
        "a LoRA for a transformer model (FLUX, SD 3, Qwen-Image, a video model)",
    ),
    (r"(.*\.)?motion_modules\.", "an AnimateDiff motion module"),
    (r"(base_model\.model\.)?(.*\.)?model\.layers\.\d+\..*lora_", "a LoRA for a language model"),
    (r"(first_stage_model\.)?(decoder|encoder)\.(conv_in|mid)", "a VAE, the autoencoder of a base"),
    (
        r"(unet\.)?(down_blocks|input_blocks)\.\d+\.(\d+|resnets)\..*(?<!lora)\.(weight|bias)",
        "the UNet of a base, no adapter",
    ),
    (r"(vision_model|visual)\.", "an image encoder (CLIP)"),
    (
        r"(text_model\.|transformer\.)?(embeddings\.token_embedding|encoder\.layers)",
        "the text encoder of a base",
    ),
    (r"(model\.)?(conv_first|model\.0|RRDB_trunk)", "an upscaler (ESRGAN)"),
)
