"""The parts of the embedded base: standard diffusers and transformers classes at small width."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from customize.embedded.world.scenes import SIZE

TEXT_WIDTH = 192
TEXT_POSITIONS = 24
LATENT_SIZE = 16
CLIP_SIZE = 64
SCALING_FACTOR = 0.5
"""Away from 1 on purpose: code that forgets to scale a latent shows it."""


def _of(levels: Any) -> Any:
    """Pass what belongs to three levels: diffusers declares most such tuples to be of one."""
    return levels


def new_autoencoder(size: int = SIZE) -> AutoencoderKL:
    """Make the autoencoder: 64 px, or 128 px by one level more, to (4, 16, 16); no attention."""
    widths = {64: (16, 48, 96), 128: (16, 16, 48, 96)}[size]
    return AutoencoderKL(
        sample_size=size,
        block_out_channels=_of(widths),
        down_block_types=_of(("DownEncoderBlock2D",) * len(widths)),
        up_block_types=_of(("UpDecoderBlock2D",) * len(widths)),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        mid_block_add_attention=False,
        scaling_factor=SCALING_FACTOR,
    )


def size_of(autoencoder: AutoencoderKL) -> int:
    """Give the pixels of a side of the pictures an autoencoder was fitted on."""
    return autoencoder.config["sample_size"]


def posterior_of(autoencoder: AutoencoderKL, images_BCHW: Tensor) -> DiagonalGaussianDistribution:
    """Encode pictures in -1..1; diffusers declares more types of answers than it gives."""
    answer: Any = autoencoder.encode(images_BCHW)
    return answer.latent_dist


def decoded(autoencoder: Any, latents_BChw: Tensor) -> Tensor:
    """Decode unscaled latents to pictures (B, 3, H, W)."""
    return autoencoder.decode(latents_BChw).sample


def image_features(clip: CLIPModel, pixels_BCHW: Tensor) -> Tensor:
    """Embed pictures as CLIP's processor gives them, (B, D)."""
    answer: Any = clip.get_image_features(pixel_values=pixels_BCHW)
    return answer.pooler_output


def text_features(clip: CLIPModel, ids_BL: Tensor) -> Tensor:
    """Embed token ids, (B, D)."""
    answer: Any = clip.get_text_features(input_ids=ids_BL)
    return answer.pooler_output


def new_unet() -> UNet2DConditionModel:
    """Make the denoiser: Stable Diffusion 1.5's block types on three levels, 8 input channels."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=8,
        out_channels=4,
        block_out_channels=(48, 96, 192),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=_of((2, 3, 4)),  # the number of heads: diffusers keeps SD 1.5's misnomer
        norm_num_groups=16,
    )


def text_config(vocabulary: int) -> CLIPTextConfig:
    """Describe the text tower, one for the denoiser and one for the small CLIP."""
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TEXT_POSITIONS,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Make the denoiser's text encoder."""
    return CLIPTextModel(text_config(len(tokenizer)))


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Make the small CLIP that scores edits: 64 px in patches of 8."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CLIP_SIZE,
        patch_size=8,
    )
    text = text_config(len(tokenizer))
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128)
    )


def new_clip_processor() -> CLIPImageProcessor:
    """Make the image processor that goes with the small CLIP."""
    return CLIPImageProcessor(
        size={"shortest_edge": CLIP_SIZE}, crop_size={"height": CLIP_SIZE, "width": CLIP_SIZE}
    )


def new_scheduler() -> DDIMScheduler:
    """Make the sampler's settings: v-prediction on a scaled-linear schedule that ends in pure
    noise.
    """
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
