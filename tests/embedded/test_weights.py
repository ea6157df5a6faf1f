"""The weights that ship: plain diffusers and transformers open them, and they edit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from transformers import CLIPModel, CLIPTokenizer

from customize.embedded.fitting.autoencoder import to_unit
from customize.embedded.fitting.clip import to_clip
from customize.embedded.models import image_features, text_features
from customize.embedded.tokenizer import padded_ids
from customize.embedded.world.edits import random_edit
from customize.families.base import EMBEDDED, resolve_base
from customize.families.sampling_defaults import sampling_of


@pytest.fixture(scope="module")
def pipeline():
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(EMBEDDED, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_all_weights_together_are_at_most_32_mib_of_fp16():
    files = list(EMBEDDED.rglob("*.safetensors"))
    assert {file.parent.name for file in files} == {"vae", "unet", "text_encoder", "clip"}
    assert sum(file.stat().st_size for file in files) <= 32 * 2**20
    assert not [file for file in EMBEDDED.rglob("*") if file.suffix in (".bin", ".pt")]


def test_it_is_shaped_like_stable_diffusion(pipeline):
    config = pipeline.unet.config
    assert (config.in_channels, config.out_channels) == (8, 4)
    names = [name for name, _ in pipeline.unet.named_modules()]
    assert sum(name.endswith("attn2.to_k") for name in names) == 10
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae.config.scaling_factor != 1


def test_background_colors_come_out_better_than_copying(pipeline):
    edits = [random_edit((31, index), test=True, kind="background") for index in range(8)]
    sampling = sampling_of(resolve_base())
    outputs = pipeline(
        prompt=[edit.instruction for edit in edits],
        image=(to_unit(np.stack([edit.source_HWC for edit in edits])) + 1) / 2,
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.text_guidance,
        image_guidance_scale=sampling.image_guidance,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    targets = np.stack([edit.target_HWC for edit in edits]) / 255
    sources = np.stack([edit.source_HWC for edit in edits]) / 255
    assert ((outputs - targets) ** 2).mean() < 0.35 * ((sources - targets) ** 2).mean()


def test_the_small_clip_tells_captions_apart(pipeline):
    clip = CLIPModel.from_pretrained(EMBEDDED / "clip", dtype=torch.float32)
    edits = [random_edit((32, index), test=True, kind="recolor") for index in range(16)]
    with torch.no_grad():
        pixels = to_clip(to_unit(np.stack([edit.target_HWC for edit in edits])))
        images = image_features(clip, pixels)
        ids = padded_ids(pipeline.tokenizer, [edit.target_caption for edit in edits])
        texts = text_features(clip, torch.from_numpy(ids))
    images, texts = (x / x.norm(dim=-1, keepdim=True) for x in (images, texts))
    right = (images @ texts.T).argmax(dim=1) == torch.arange(16)
    assert right.float().mean() >= 0.75


def test_the_tokenizer_takes_new_words_and_falls_back_to_pieces(tmp_path):
    folder = EMBEDDED / "tokenizer"
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    for tokenizer in (CLIPTokenizer.from_pretrained(folder), CLIPTokenizer(*files)):
        words = ["turn</w>", "the</w>", "dog</w>", "red</w>"]
        assert tokenizer.tokenize("turn the dog red") == words
        assert len(tokenizer.tokenize("zebra")) > 1
        before = len(tokenizer)
        assert tokenizer.add_tokens(["<my-dog>"]) == 1
        assert tokenizer("<my-dog>")["input_ids"][1] == before


def test_sampled_latents_are_the_modes_the_denoiser_learned(pipeline):
    images = to_unit(np.stack([random_edit((33, index)).source_HWC for index in range(4)]))
    with torch.no_grad():
        posterior = pipeline.vae.encode(images).latent_dist
    torch.testing.assert_close(posterior.sample(), posterior.mode(), rtol=0, atol=1e-2)
