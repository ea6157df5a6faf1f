"""What stands around a pipeline's calls: nothing asked, nothing changed; what is asked holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_base, toy_xl_base
from builders.pairs import scene
from PIL import Image
from torch import Tensor, nn

from customize.editing import Editor
from customize.editing.controlled import Work, encoded, ready_for_many, sample_controlled
from customize.editing.denoiser_calls import Answer, Call, answered_by, without_branches
from customize.editing.edited_picture import Settings
from customize.editing.held_latents import held_outside
from customize.editing.masks import latent_mask
from customize.editing.remembered import remembering
from customize.editing.shared_noise import noise_field
from customize.editing.step_savings import GuidanceKept, deep_features_kept
from customize.editing.tiles import in_tiles, starts

STEPS = 4
TILE = 32


@pytest.fixture(scope="module", params=["sd", "xl"])
def editor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Editor:
    folder = tmp_path_factory.mktemp(request.param)
    base = toy_base(folder) if request.param == "sd" else toy_xl_base(folder)
    return Editor.from_base(str(base), device="cpu")


def settings_of(editor: Editor, size: tuple[int, int] = (32, 32), **changes: Any) -> Settings:
    editor.prepare(["make it red"], {})
    options: Any = {"steps": STEPS, "text_guidance": 3.0, "image_guidance": 1.5}
    plain = replace(editor.settings(size, options), noise="field")
    return replace(plain, width=size[0], height=size[1], **changes)


def works_of(count: int, size: tuple[int, int] = (32, 32)) -> list[Work]:
    return [Work(scene(n, size), "make it red", seed=0) for n in range(count)]


def sampled(editor: Editor, works: list[Work], settings: Settings, **more: Any) -> np.ndarray:
    return np.stack(sample_controlled(editor.pipeline, works, settings, tile=TILE, **more))


def test_layers_leave_the_denoiser_as_it_was(editor: Editor) -> None:
    unet, seen = editor.pipeline.unet, list[int]()
    before = dict(vars(unet))

    def watch(answer: Answer, call: Call) -> Tensor:
        seen.append(len(call.noisy_BChw))
        return answer(call)

    settings, works = settings_of(editor), works_of(2)
    watched = sampled(editor, works, settings, watch=watch)
    assert seen == [6] * STEPS
    assert np.array_equal(watched, sampled(editor, works, settings))
    assert vars(unet).keys() == before.keys()


@pytest.mark.parametrize(("text", "image", "rows"), [(3.0, 1.0, 4), (2.0, 2.0, 4), (3.0, 1.5, 6)])
def test_branches_that_guidance_takes_nothing_from(
    editor: Editor, text: float, image: float, rows: int
) -> None:
    settings = settings_of(editor, text_guidance=text, image_guidance=image)
    seen: list[int] = []
    own = editor.pipeline.unet.conv_in.register_forward_hook(
        lambda _, given, __: seen.append(len(given[0]))
    )
    left_out = sampled(editor, works_of(2), settings)
    own.remove()
    assert set(seen) == {rows}
    assert (without_branches(text, image) is None) == (rows == 6)
    all_branches = np.stack([
        editor.pipeline(
            "make it red", image=work.source, num_inference_steps=STEPS, guidance_scale=text,
            image_guidance_scale=image, output_type="np", width=32, height=32,
            latents=_noise(editor)[None],
        ).images[0] if hasattr(editor.pipeline, "text_encoder_2") else
        editor.pipeline(
            "make it red", image=work.source, num_inference_steps=STEPS, guidance_scale=text,
            image_guidance_scale=image, output_type="np", latents=_noise(editor)[None],
        ).images[0]
        for work in works_of(2)
    ])  # fmt: skip
    assert np.abs(left_out - all_branches).max() < 1e-3


def _noise(editor: Editor) -> Tensor:
    side = 32 // editor.pipeline.vae_scale_factor
    return noise_field(0, 4, side, side)


def test_held_latents_follow_the_source(editor: Editor) -> None:
    """Outside the mask the last latent is the source's own; inside it is not."""
    settings, (work,) = settings_of(editor), works_of(1)
    grey = np.zeros((32, 32), np.uint8)
    grey[8:20, 10:25] = 255
    masked = replace(work, mask=Image.fromarray(grey))
    last: list[Tensor] = []
    decode = editor.pipeline.vae.decode

    def kept(latents: Tensor, *more: Any, **options: Any) -> Any:
        last.append(latents)
        return decode(latents, *more, **options)

    editor.pipeline.vae.decode = kept
    try:
        sampled(editor, [masked], settings)
    finally:
        del editor.pipeline.vae.decode
    source = encoded(editor.pipeline, [work.source])[0]
    side = source.shape[-1]
    free = torch.from_numpy(latent_mask(masked.mask, side, side))  # type: ignore[arg-type]
    difference = (last[0][0] - source).abs().amax(dim=0)
    assert float(difference[~free].max()) < 1e-5
    assert float(difference[free].mean()) > 0.05
    assert 0 < int(free.sum()) < free.numel()


def test_held_steps_are_noised_as_the_scheduler_noises(editor: Editor) -> None:
    editor.prepare(["make it red"], {})
    scheduler = editor.pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    source, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    free = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    with held_outside(scheduler, free, source, noise):
        noisy = noise * scheduler.init_noise_sigma
        for number, time in enumerate(scheduler.timesteps):
            noisy = scheduler.step(torch.zeros_like(noisy), time, noisy, return_dict=False)[0]
            if number + 1 < STEPS:
                later = scheduler.timesteps[number + 1 : number + 2]
                assert torch.equal(noisy, scheduler.add_noise(source, noise, later))
    assert torch.equal(noisy, source)


def test_what_was_asked_is_not_computed_again(editor: Editor) -> None:
    settings = settings_of(editor)
    encoder = editor.pipeline.text_encoder
    calls: list[int] = []
    forward = encoder.forward
    encoder.forward = lambda *given, **told: (calls.append(1), forward(*given, **told))[1]
    try:
        with ready_for_many(editor.pipeline):
            first = sampled(editor, works_of(2), settings)
            once = len(calls)
            assert np.array_equal(first, sampled(editor, works_of(2), settings))
    finally:
        del encoder.forward
    assert 0 < once == len(calls)


def test_remembering_tells_inputs_apart() -> None:
    class Owner:
        def double(self, value: Tensor, *, more: int = 0) -> Tensor:
            return 2 * value + more

    owner = Owner()
    with remembering(owner, "double", most=2):
        one = owner.double(torch.ones(2))
        assert owner.double(torch.ones(2)) is one
        assert owner.double(torch.ones(2), more=1).tolist() == [3, 3]
        assert owner.double(torch.ones(2, 1)).shape == (2, 1)
        assert owner.double(torch.ones(2)) is not one  # the oldest of three has gone
    assert "double" not in vars(owner)


class _Local(nn.Module):
    """A denoiser that answers every pixel by itself: tiles cannot change what it says."""

    def forward(self, noisy: Tensor, time: Any, *, return_dict: bool, text: Tensor) -> Any:
        assert not return_dict
        return (noisy[:, :4] * 2 + text[:, :, None, None].mean(dim=1, keepdim=True),)


@pytest.mark.parametrize("size", [(8, 8), (8, 30), (21, 17), (40, 9)])
@pytest.mark.parametrize("at_once", [1, 3])
def test_tiles_of_a_local_denoiser_are_the_whole(size: tuple[int, int], at_once: int) -> None:
    noisy, text = torch.randn(6, 8, *size), torch.randn(6, 5)
    denoiser = _Local()
    whole = denoiser(noisy, 1, return_dict=False, text=text)[0]
    with answered_by(denoiser, in_tiles(8, at_once)):
        tiled = denoiser(noisy, 1, return_dict=False, text=text)[0]
    assert torch.allclose(tiled, whole, atol=1e-5)


def test_tiles_cover_evenly() -> None:
    for length in range(1, 200):
        begins = starts(length, 16)
        assert begins[0] == 0
        assert begins[-1] == max(0, length - 16)
        assert all(0 < b - a <= 8 for a, b in pairwise(begins))


def test_one_tile_is_the_plain_edit(editor: Editor) -> None:
    settings = settings_of(editor)
    plain = sampled(editor, works_of(1), settings)
    assert np.array_equal(plain, sampled(editor, works_of(1), replace(settings, tiles=True)))


def test_kept_guidance_and_features_skip_what_they_say(editor: Editor) -> None:
    """Count rows at the outermost and at an inner level."""
    outer, inner = list[int](), list[int]()
    unet = editor.pipeline.unet
    hooks = [
        unet.conv_in.register_forward_hook(lambda _, given, __: outer.append(len(given[0]))),
        unet.mid_block.resnets[0].register_forward_hook(
            lambda _, given, __: inner.append(len(given[0]))
        ),
    ]
    settings = replace(settings_of(editor), steps=6)
    exact = sampled(editor, works_of(2), settings)
    assert (outer, inner) == ([6] * 6, [6] * 6)
    outer.clear()
    inner.clear()
    fast = sampled(editor, works_of(2), replace(settings, fast=True))
    for hook in hooks:
        hook.remove()
    assert outer == [6, 2, 2, 6, 2, 2]
    assert inner == [6, 6]
    assert not np.array_equal(exact, fast)
    assert np.abs(exact - fast).mean() < 0.1


def test_full_steps_are_the_denoiser_itself(editor: Editor) -> None:
    unet = editor.pipeline.unet
    asked: Any = _question(editor)
    plain = unet(*asked[0], **asked[1])[0]
    with deep_features_kept(unet, steps=1), answered_by(unet, GuidanceKept(1)):
        assert torch.equal(unet(*asked[0], **asked[1])[0], plain)
        # Asked the same at the next step, what was kept makes the same answer.
        assert torch.allclose(unet(*asked[0], **asked[1])[0], plain, atol=1e-5)


@torch.no_grad()
def _question(editor: Editor) -> tuple[tuple[Tensor, int], dict[str, Any]]:
    """Return a call as the pipeline makes it, caught on the way."""
    caught: list[Call] = []

    def catch(answer: Answer, call: Call) -> Tensor:
        caught.append(call)
        return answer(call)

    sampled(editor, works_of(1), settings_of(editor), watch=catch)
    first = caught[0]
    return (first.noisy_BChw, first.time), dict(first.told)
