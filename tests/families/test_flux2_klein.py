"""FLUX.2 klein is recognized, and predicts, encodes and corrupts as diffusers' pipeline does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_example
from builders.klein import klein_pipeline, resolved_klein, toy_klein
from PIL import Image
from torch import Tensor, nn

from customize import families
from customize.adapters import LowRank, attach
from customize.errors import BaseModelError, EditError
from customize.families import Dropout, Encoder, Family, family_of_pipeline, profile_of
from customize.families.base import Base, resolve_base
from customize.families.flow_matching import FlowMatching, shifted
from customize.families.flux2.packing import as_source
from customize.families.sampling_defaults import Sampling, sampling_of
from customize.shapes import Example
from customize.training.batches import Sample, stack, step_generator
from customize.training.loss import Goal, loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_klein(tmp_path_factory.mktemp("klein"))


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return resolve_base(str(folder))


@pytest.fixture(scope="module")
def encoder(base: Base) -> Encoder:
    return families.open_encoder(base)


@pytest.fixture
def family(base: Base) -> Family:
    return families.open_family(base)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return klein_pipeline()


def _random_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# --- which bases are recognized


def test_a_folder_resolves(base: Base) -> None:
    assert (base.family, base.resolution, base.multiple) == ("flux2_klein", 64, 16)
    assert (base.least_side, base.untrainable, base.notice) == (64, None, None)
    assert sampling_of(base) == Sampling(50, 4.0, 1.0)


def test_the_distilled_one_edits_in_four_steps_and_is_not_to_be_trained(tmp_path: Path) -> None:
    base = resolve_base(str(toy_klein(tmp_path, distilled=True)))
    assert sampling_of(base) == Sampling(4, 1.0, 1.0)
    assert base.untrainable is not None
    assert "grey pictures" in base.untrainable[0]


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_larger_ones_licence_is_said(folder: Path, tmp_path: Path) -> None:
    larger = Path(shutil.copytree(folder, tmp_path / "9b"))
    _edit(larger / "transformer/config.json", num_attention_heads=32, attention_head_dim=128)
    assert "no commercial use" in (resolve_base(str(larger)).notice or "")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "Kontext": (
        lambda f: _edit(f / "model_index.json", _class_name="FluxKontextPipeline"),
        "this is FLUX.1 Kontext, which is not supported; .* FLUX.2 klein is",
    ),
    "Qwen": (
        lambda f: _edit(f / "model_index.json", _class_name="QwenImageEditPlusPipeline"),
        "this is Qwen-Image-Edit, which is not supported",
    ),
    "FLUX.2 dev": (
        lambda f: _edit(f / "model_index.json", _class_name="Flux2Pipeline"),
        "this is FLUX.2 dev, whose text encoder is a Mistral",
    ),
    "another transformer": (
        lambda f: _edit(f / "model_index.json", transformer=["diffusers", "SD3Transformer2DModel"]),
        "a transformer model .Flux2KleinPipeline., which is not supported",
    ),
    "no text encoder told": (
        lambda f: _edit(f / "model_index.json", text_encoder=[None, None]),
        "names no text encoder",
    ),
    "no text encoder there": (lambda f: shutil.rmtree(f / "text_encoder"), "holds no weights"),
    "no transformer's config": (
        lambda f: (f / "transformer/config.json").unlink(),
        "transformer/config.json is missing",
    ),
    "cut weights": (
        lambda f: (f / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"half"),
        "cannot be read as safetensors",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_folders(folder: Path, tmp_path: Path, kind: str) -> None:
    spoiled = Path(shutil.copytree(folder, tmp_path / "base"))
    spoil, expected = WRONG[kind]
    spoil(spoiled)
    with pytest.raises(BaseModelError, match=expected):
        resolve_base(str(spoiled))


# --- the same numbers as diffusers' own pipeline


def _calls(pipeline: Any, **asked: Any) -> list[tuple[dict[str, Any], Tensor]]:
    """Run the pipeline and return each call of its transformer, with what it answered."""
    seen: list[tuple[dict[str, Any], Tensor]] = []

    def remember(_module: Any, _args: Any, named: dict[str, Any], output: Any) -> None:
        seen.append((named, output[0]))

    hook = pipeline.transformer.register_forward_hook(remember, with_kwargs=True)
    pipeline(output_type="latent", text_encoder_out_layers=(1, 2, 3), **asked)
    hook.remove()
    return seen


@pytest.mark.parametrize("sizes", [[(64, 64)], [(90, 70)], [(96, 64), (75, 101)]])
def test_predictions_are_the_pipelines(
    pipeline: Any, family: Family, encoder: Encoder, sizes: list[tuple[int, int]]
) -> None:
    sources = [_random_picture(*size, seed) for seed, size in enumerate(sizes)]
    calls = _calls(
        pipeline,
        image=sources,
        prompt="make the dog red",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(5),
    )
    assert len(calls) == 6  # guidance: with the text and with none
    first = as_source(sources[0], 16)
    example = Example(
        np.array(sources[0]),
        np.array(first),
        "make the dog red",
        references_HWC=tuple(map(np.array, sources[1:])),
    )
    encoded = encoder.encode(example, as_tokens=False).conditions
    empty = encoder.text("", as_tokens=False)
    height, width = first.height // 16, first.width // 16
    for number, (told, answer_BLC) in enumerate(calls):
        noisy_BLC = told["hidden_states"][:, : height * width]
        noisy_BChw = noisy_BLC.transpose(1, 2).unflatten(2, (height, width))
        conditions = {**encoded, **(empty if number % 2 else {})}
        stacked = {key: value[None] for key, value in conditions.items()}
        with torch.no_grad():
            ours_BChw = family.predict(noisy_BChw, told["timestep"], stacked)
        theirs_BLC = answer_BLC[:, : height * width]
        assert torch.allclose(
            ours_BChw.flatten(2).transpose(1, 2), theirs_BLC, atol=1e-5, rtol=1e-5
        )
        assert theirs_BLC.std() > 0.1


@pytest.mark.parametrize("size", [(64, 64), (90, 70), (2000, 1000), (1025, 1024)])
def test_sources_are_shrunk_and_cut_as_the_pipeline_does(
    pipeline: Any, size: tuple[int, int]
) -> None:
    picture = _random_picture(*size)
    processor = pipeline.image_processor
    smaller = processor._resize_if_exceeds_area(picture)
    width, height = (side // 16 * 16 for side in smaller.size)
    theirs_BCHW = processor.preprocess(smaller, height=height, width=width, resize_mode="crop")
    ours_HWC = torch.from_numpy(np.array(as_source(picture, 16))).float() / 127.5 - 1
    assert torch.allclose(ours_HWC.permute(2, 0, 1)[None], theirs_BCHW, atol=1e-6)


def test_the_prediction_sees_source_text_and_level(family: Family, encoder: Encoder) -> None:
    encoded = encoder.encode(toy_example(size=64), as_tokens=False)
    conditions = {key: value[None] for key, value in encoded.conditions.items()}
    noisy_BChw = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def predict(level: float = 0.5, **changed: Tensor) -> Tensor:
        return family.predict(noisy_BChw, torch.tensor([level]), {**conditions, **changed})

    usual = predict()
    assert not torch.equal(predict(source=conditions["source"].flip(-1)), usual)
    assert not torch.equal(predict(text=encoder.text("", as_tokens=False)["text"][None]), usual)
    assert not torch.equal(predict(level=0.6), usual)


def test_one_loss_equals_one_by_the_pipelines_parts(
    base: Base, pipeline: Any, encoder: Encoder
) -> None:
    family = families.open_family(base)
    examples = [toy_example(seed, text, 64) for seed, text in enumerate(("add a hat", "blue"))]
    encoded = [encoder.encode(each, as_tokens=False) for each in examples]
    attached = attach(family, LowRank(rank=2))
    batch = stack([Sample(each, each) for each in encoded])
    goal = Goal(encoder.text("", as_tokens=False), dropout=Dropout(0, 0, 0))
    ours = loss(family, attached, batch, goal, step_generator(3, 7)).total

    generator, shape = step_generator(3, 7), (2, 16, 4, 4)
    torch.rand((), generator=generator)  # how many are preserved: none
    torch.randn(shape, generator=generator)  # targets do not vary
    noise_BChw = torch.randn(shape, generator=generator)
    sigma_B = family.objective.sample_levels(shape, generator)
    scheduler, errors = pipeline.scheduler, list[Tensor]()
    for index, example in enumerate(examples):
        target, source = (
            pipeline._encode_vae_image(
                pipeline.image_processor.preprocess(Image.fromarray(pixels_HWC)), None
            ).detach()
            for pixels_HWC in (example.target_HWC, example.source_HWC)
        )
        noise = noise_BChw[index : index + 1]
        scheduler.set_timesteps(sigmas=[float(sigma_B[index])], mu=0.0)
        noisy = scheduler.scale_noise(target, scheduler.timesteps, noise)
        text, text_ids = pipeline.encode_prompt(
            example.instruction, text_encoder_out_layers=(1, 2, 3)
        )
        ids = pipeline._prepare_latent_ids(noisy), pipeline._prepare_image_ids([source])
        packed = [pipeline._pack_latents(each) for each in (noisy, source)]
        with torch.no_grad():
            answer = pipeline.transformer(
                hidden_states=torch.cat(packed, dim=1),
                timestep=scheduler.timesteps / 1000,
                encoder_hidden_states=text,
                txt_ids=text_ids,
                img_ids=torch.cat(ids, dim=1),
            ).sample
        wanted = pipeline._pack_latents(noise - target)
        errors.append((answer[:, : wanted.shape[1]] - wanted).square().mean())
    assert ours.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


# --- levels


def test_levels_are_drawn_as_asked() -> None:
    shape = (20_000, 128, 64, 64)

    def drawn(levels: Any) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return FlowMatching(levels).sample_levels(shape, generator)

    uniform, shift, normal = drawn("uniform"), drawn("shift"), drawn("logit_normal")
    for levels in (uniform, shift, normal):
        assert levels.min() > 0
        assert levels.max() <= 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert uniform.std() == pytest.approx(12**-0.5, abs=0.01)
    assert normal.logit().mean() == pytest.approx(0, abs=0.03)
    assert normal.logit().std() == pytest.approx(1, abs=0.03)
    assert shift.mean() > 0.75


def test_shifted_levels_are_those_of_the_sampler(pipeline: Any) -> None:
    calls = _calls(
        pipeline, image=[_random_picture(96, 64)], prompt="x", num_inference_steps=50,
        guidance_scale=1.0,
    )  # fmt: skip
    theirs = torch.stack([told["timestep"][0] for told, _ in calls])
    uniform = torch.linspace(1, 1 / 50, 50)
    assert torch.allclose(shifted(uniform, 24, 50), theirs, atol=1e-5)


# --- hidden conditions, faults


def test_training_hides_the_text_alone(family: Family, encoder: Encoder) -> None:
    encoded = encoder.encode(toy_example(size=64), as_tokens=False)
    conditions = {key: torch.stack([value] * 4) for key, value in encoded.conditions.items()}
    uniform_B = torch.tensor([0.01, 0.06, 0.12, 0.5])
    empty = encoder.text("", as_tokens=False)
    hidden = family.drop(conditions, empty, uniform_B, Dropout())
    assert torch.equal(hidden["source"], conditions["source"])
    assert torch.equal(hidden["text"][0], empty["text"])
    assert torch.equal(hidden["text"][1:], conditions["text"][1:])


def test_a_long_instruction_is_cut_and_said(encoder: Encoder) -> None:
    with pytest.warns(UserWarning, match="this base reads 512: its end is cut off"):
        text_LD = encoder.text("red " * 200, as_tokens=False)["text"]
    assert text_LD.shape == (512, 96)


def test_too_long_a_picture_is_refused(pipeline: Any) -> None:
    with pytest.raises(EditError, match="at most 8 times as long"):
        families.pipeline_arguments(
            pipeline, [_random_picture(640, 64)], ["x"], None, Sampling(2, 1.0, 1.0)
        )


def test_several_are_edited_at_once_as_each_alone(base: Base) -> None:
    pipeline = families.open_pipeline(base)
    pipeline.set_progress_bar_config(disable=True)
    sources, texts = [_random_picture(80, 64, seed) for seed in (1, 2)], ["red", "blue"]

    def edit(chosen: slice) -> np.ndarray:
        asked = families.pipeline_arguments(
            pipeline, sources[chosen], texts[chosen], ["grey", "x"][chosen], Sampling(3, 4.0, 1.0)
        )
        generators = [torch.Generator().manual_seed(7) for _ in sources[chosen]]
        return pipeline(**asked, generator=generators, output_type="np").images

    together = edit(slice(0, 2))
    alone = np.concatenate([edit(slice(0, 1)), edit(slice(1, 2))])
    assert together.shape == (2, 64, 80, 3)
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together[0] - together[1]).mean() > 5e-4  # their sources differ, not their noise


def test_a_saved_toy_is_the_same_model(tmp_path: Path, pipeline: Any) -> None:
    opened = families.open_family(resolved_klein(tmp_path)).denoiser.state_dict()
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(opened[name], tensor), name


def test_the_profile_says_what_the_pipeline_is(pipeline: Any) -> None:
    profile = profile_of(family_of_pipeline(pipeline))
    weighty = {name for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    assert set(profile.components) == weighty
    table = pipeline.text_encoder.get_input_embeddings()
    assert pipeline.text_encoder.get_submodule(profile.token_table) is table
    linear = {n for n, m in pipeline.transformer.named_modules() if isinstance(m, nn.Linear)}
    blocks = {name for name in linear if name.partition(".")[0].endswith("transformer_blocks")}

    def matched(pattern: str) -> set[str]:
        return {name for name in linear if re.fullmatch(pattern, name)}

    groups = profile.layers.groups
    assert matched(groups["all"]) == matched(profile.layers.quantized) == blocks
    assert matched(groups["attention"]) | matched(groups["feed_forward"]) == blocks
    fused = matched(groups["attention"]) & matched(groups["feed_forward"])
    assert fused == {name for name in blocks if name.startswith("single")}
    assert len(matched(profile.layers.text_kv)) == 2 * 2  # of two double blocks
    assert not profile.reads_text_alone("denoiser.transformer_blocks.0.attn.add_k_proj")
