"""The profiles of InstructPix2Pix on Stable Diffusion 1 and on SDXL: two UNets of one kind."""

from __future__ import annotations

from customize.families.profile import FrontEnds, Layers, Profile, UsualBase
from customize.families.sampling_defaults import Sampling

_HEADS = r"\.(to_q|to_k|to_v|to_out\.0)"
_ATTENTION = rf".*\.attn\d{_HEADS}"
# All between conv_in and conv_out; projections around attention are linear in some bases.
_CONVOLUTIONS = r".*\.(conv|conv1|conv2|conv_shortcut|proj_in|proj_out)"
_FEED_FORWARD = r".*\.ff\.net\.(0\.proj|2)"
_UNET = Layers(
    text_kv=r".*\.attn2\.to_[kv]",
    groups={
        "attention": _ATTENTION,
        "cross_attention": rf".*\.attn2{_HEADS}",
        "convolutions": _CONVOLUTIONS,
        "feed_forward": _FEED_FORWARD,
        "all": f"{_ATTENTION}|{_CONVOLUTIONS}|{_FEED_FORWARD}",
    },
    quantized=r".*\.attentions\..*",
    source="conv_in.weight",
)
_TOKEN_TABLE = "embeddings.token_embedding"
_SAMPLERS = ("ddim", "ddpm", "euler", "euler_a", "dpmpp", "dpmpp_sde", "unipc")

SD1 = Profile(
    pipeline="StableDiffusionInstructPix2PixPipeline",
    denoiser="unet",
    text_encoders=("text_encoder",),
    layers=_UNET,
    # Brooks et al. 2023, arXiv 2211.09800, appendix B
    sampling=Sampling(steps=100, text_guidance=7.5, image_guidance=1.5),
    usual_bases=(
        UsualBase("the embedded base", "embedded", text_width=192, diffusers_alone=True),
        UsualBase(
            "Stable Diffusion 1",
            "timbrooks/instruct-pix2pix",
            text_width=768,
            checkpoint="instruct-pix2pix-00-22000.safetensors",
        ),
    ),
    front_ends=FrontEnds(
        kohya_prefixes={"denoiser": "lora_unet_", "text_encoder": "lora_te_"},
        kohya_version="sd_v1",
        architecture="stable-diffusion-v1",
        webui_version="SD1",
        comfyui=True,
        webui=True,
    ),
    token_table=_TOKEN_TABLE,
    samplers=_SAMPLERS,
    few_steps_sampler="dpmpp",
    index={
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    },
)

SDXL = Profile(
    pipeline="StableDiffusionXLInstructPix2PixPipeline",
    denoiser="unet",
    text_encoders=("text_encoder", "text_encoder_2"),
    layers=_UNET,
    # The example of `diffusers/sdxl-instructpix2pix-768`, in its card and in diffusers' docs
    sampling=Sampling(steps=30, text_guidance=3.0, image_guidance=1.5),
    usual_bases=(
        UsualBase(
            "Stable Diffusion XL", "diffusers/sdxl-instructpix2pix-768", text_width=768 + 1280
        ),
    ),
    front_ends=FrontEnds(
        # Text encoders are counted; A1111 and kohya drop the other spelling silently.
        kohya_prefixes={
            "denoiser": "lora_unet_",
            "text_encoder": "lora_te1_",
            "text_encoder_2": "lora_te2_",
        },
        kohya_version="sdxl_base_v1-0",
        architecture="stable-diffusion-xl-v1-base",
        webui_version="SDXL",
        comfyui=True,
        marks_v_prediction=True,
    ),
    token_table=_TOKEN_TABLE,
    samplers=_SAMPLERS,
    few_steps_sampler="dpmpp",
)
