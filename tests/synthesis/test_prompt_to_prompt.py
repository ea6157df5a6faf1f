"""Prompt-to-Prompt: laws of shared attention on toy Stable Diffusion 1.5, 2 and XL pipelines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.text_to_image import KINDS, toy_drawing_base
from diffusers.models.attention_processor import Attention

from customize.families.stable_diffusion.text_to_image import (
    open_text_to_image,
    resolve_text_to_image,
)
from customize.synthesis.pictures.alignment import align
from customize.synthesis.pictures.draw_pairs import DrawnPair, PairSettings, draw_pairs
from customize.synthesis.pictures.local_blend import SeenMaps
from customize.synthesis.writing.rewrite import Rewrite

STEPS = 4
SIZE = (32, 32)
EDIT = Rewrite("paint the dog red", "make it blue", "paint the dog blue")
OTHER = Rewrite("make the night", "add a dog", "make the night add dog")


@pytest.fixture(scope="module", params=KINDS)
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = toy_drawing_base(tmp_path_factory.mktemp(request.param), request.param)
    base, _ = resolve_text_to_image(str(folder))
    pipeline = open_text_to_image(base)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any, *wanted: tuple[Rewrite, PairSettings]) -> list[DrawnPair]:
    return draw_pairs(pipeline, wanted, steps=STEPS, size=SIZE)


def pixels(picture: Any) -> np.ndarray:
    return np.asarray(picture).astype(np.int16)


def apart(pair: DrawnPair) -> float:
    return float(np.abs(pixels(pair.first) - pixels(pair.second)).mean())


def plain(pipeline: Any, caption: str, settings: PairSettings) -> np.ndarray:
    """Draw one picture as a user of diffusers would."""
    return pipeline(
        caption,
        width=SIZE[0],
        height=SIZE[1],
        num_inference_steps=STEPS,
        guidance_scale=settings.guidance,
        generator=torch.Generator().manual_seed(settings.seed),
        output_type="np",
    ).images[0]


def test_equal_captions_give_equal_pictures(pipeline: Any) -> None:
    same = Rewrite(EDIT.caption, "", EDIT.caption)
    for settings in (PairSettings(3, self_until=1.0), PairSettings(3, 5.0, 1.0, 1.0, True)):
        (pair,) = draw(pipeline, (same, settings))
        assert np.array_equal(pixels(pair.first), pixels(pair.second))


def test_without_sharing_both_pictures_are_what_the_plain_pipeline_draws(pipeline: Any) -> None:
    wanted = [
        (EDIT, PairSettings(3, guidance=7.5, self_until=0.0)),
        (OTHER, PairSettings(4, guidance=12.0, self_until=0.0)),
    ]
    for pair, (rewrite, settings) in zip(draw(pipeline, *wanted), wanted, strict=True):
        texts = (rewrite.caption, rewrite.edited_caption)
        for picture, text in zip((pair.first, pair.second), texts, strict=True):
            expected = plain(pipeline, text, settings) * 255
            assert np.abs(pixels(picture) - expected).max() <= 1


def test_the_first_picture_is_never_touched(pipeline: Any) -> None:
    full = PairSettings(3, self_until=1.0, cross_until=1.0, blend=True)
    (shared,) = draw(pipeline, (EDIT, full))
    assert np.abs(pixels(shared.first) - plain(pipeline, EDIT.caption, full) * 255).max() <= 1
    assert apart(shared) > 0


def test_a_pair_is_drawn_alike_alone_and_among_others(pipeline: Any) -> None:
    settings = PairSettings(8, guidance=9.0, self_until=0.5, cross_until=0.8)
    (alone,) = draw(pipeline, (EDIT, settings))
    among = draw(pipeline, (OTHER, PairSettings(5, 7.5, 0.9)), (EDIT, settings))[1]
    for one, other in ((alone.first, among.first), (alone.second, among.second)):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


def test_each_way_of_sharing_changes_the_second_picture_and_leaves_the_pipeline_as_it_was(
    pipeline: Any,
) -> None:
    before = plain(pipeline, EDIT.caption, PairSettings(1))
    processors = dict(pipeline.unet.attn_processors)
    ways = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    settings = [PairSettings(1, 7.5, *way) for way in ways]
    seconds = [pixels(draw(pipeline, (EDIT, each))[0].second) for each in settings]
    for number, second in enumerate(seconds):
        assert all(np.any(second != other) for other in seconds[:number])
    assert pipeline.unet.attn_processors == processors
    assert np.array_equal(before, plain(pipeline, EDIT.caption, PairSettings(1)))


def watched(pipeline: Any, kind: str, settings: PairSettings) -> list[list[torch.Tensor]]:
    """Return the maps (B * heads, Q, K) of all attention layers of a kind, by step."""
    steps = list[list[torch.Tensor]]()
    handles = [pipeline.unet.register_forward_pre_hook(lambda *_: steps.append([]))]
    layers = [
        layer
        for name, layer in pipeline.unet.named_modules()
        if isinstance(layer, Attention) and name.endswith(kind)
    ]

    def watch(layer: Any) -> Callable[..., None]:
        def hook(
            _: Any, inputs: tuple[torch.Tensor, ...], keywords: dict[str, Any], __: Any
        ) -> None:
            text = keywords.get("encoder_hidden_states")
            query = layer.head_to_batch_dim(layer.to_q(inputs[0]))
            key = layer.head_to_batch_dim(layer.to_k(inputs[0] if text is None else text))
            # what the layer itself computes from: the hooks on to_q and to_k have run
            steps[-1].append(layer.get_attention_scores(query, key))

        return hook

    handles += [layer.register_forward_hook(watch(layer), with_kwargs=True) for layer in layers]
    try:
        draw(pipeline, (EDIT, settings))
    finally:
        for handle in handles:
            handle.remove()
    assert len(layers) >= 4
    return steps


def test_the_second_picture_attends_on_itself_as_the_first_on_shared_steps_alone(
    pipeline: Any,
) -> None:
    steps = watched(pipeline, "attn1", PairSettings(3, self_until=0.5))
    assert len(steps) == STEPS
    for number, maps in enumerate(steps):
        for map_BQK in maps:
            first, second = map_BQK.unflatten(0, (-1, 2, map_BQK.shape[0] // 4)).unbind(1)
            assert torch.equal(first, second) == (number < STEPS / 2)


def test_words_kept_are_looked_at_as_in_the_first_picture(pipeline: Any) -> None:
    steps = watched(pipeline, "attn2", PairSettings(3, cross_until=1.0))
    alignment = align(pipeline.tokenizer, EDIT.caption, EDIT.edited_caption)
    kept = (alignment.aligned_M > 0) & (alignment.second_M == 0)
    assert kept.sum() > 10
    for maps in steps:
        for map_BQK in maps:
            rows = map_BQK.unflatten(0, (2, 2, -1))
            first, second = rows[1, 0], rows[1, 1]  # the half that reads the captions
            assert torch.equal(first[..., kept], second[..., kept])


def test_alignment_swaps_words_adds_phrases_and_drops_them(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer
    length = tokenizer.model_max_length

    swap = align(tokenizer, "the red dog", "the blue dog")
    assert torch.equal(swap.carried_LM, torch.eye(length))
    assert swap.aligned_M.all()
    assert swap.first_L.nonzero().flatten().tolist() == [2]

    wide = align(tokenizer, "the red dog", "the zzz dog")  # three tokens for one
    assert wide.carried_LM[2, 2:5].tolist() == pytest.approx([1 / 3] * 3)
    assert wide.carried_LM[3, 5] == 1
    assert wide.second_M.nonzero().flatten().tolist() == [2, 3, 4]

    added = align(tokenizer, "the dog", "the red dog")
    assert added.aligned_M[:5].tolist() == [1, 1, 0, 1, 1]
    assert added.carried_LM[2, 3] == 1

    dropped = align(tokenizer, "the red dog", "the dog")
    assert dropped.carried_LM[3, 2] == 1
    assert dropped.carried_LM[2].sum() == 0
    for alignment in (swap, wide, dropped):
        columns = alignment.carried_LM.sum(dim=0)
        assert (columns[: length - 3] > 0).all()


def test_alignment_of_texts_longer_than_the_encoder_reads(pipeline: Any) -> None:
    long = " ".join(["paint the dog red"] * 20)
    alignment = align(pipeline.tokenizer, long, long.replace("red", "blue"))
    assert alignment.carried_LM.shape == (pipeline.tokenizer.model_max_length,) * 2
    assert torch.equal(alignment.carried_LM, torch.eye(len(alignment.aligned_M)))


def test_blending_keeps_the_first_picture_where_no_changed_word_is_looked_at(pipeline: Any) -> None:
    alignment = align(pipeline.tokenizer, EDIT.caption, EDIT.edited_caption)
    maps = SeenMaps([alignment, None], (8, 8))
    looks = torch.zeros(2, 2, 1, 16, len(alignment.aligned_M))
    looks[:, :, :, :4] = alignment.second_M  # the topmost row of 4 x 4 places
    maps.see(looks)
    latents = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    blended = maps.blended(latents)
    assert (blended[1, 0, :2] == 1).all()
    assert (blended[1, 0, 4:] == 0).all()
    assert (blended[3] == 3).all()


def test_the_twin_answers_as_the_editing_base_with_an_empty_source(tmp_path: Path) -> None:
    from builders.bases import toy_base

    from customize.families import open_family
    from customize.families.base import resolve_base

    folder = toy_base(tmp_path)
    (folder / "customize.json").write_text(
        '{"edit": {"steps": 4, "text_guidance": 2, "image_guidance": 1},'
        ' "text_to_image": {"steps": 5, "guidance": [2, 4]}}'
    )
    base, drawing = resolve_text_to_image(str(folder))
    assert (drawing.steps, drawing.guidance) == (5, (2.0, 4.0))
    twin = open_text_to_image(base)
    assert type(twin).__name__ == "StableDiffusionPipeline"
    editor: Any = open_family(resolve_base(str(folder))).denoiser
    noisy, text = torch.randn(2, 4, 16, 16), torch.randn(2, 24, 16)
    wide = editor(torch.cat((noisy, torch.zeros_like(noisy)), dim=1), 500, text).sample
    assert torch.allclose(twin.unet(noisy, 500, text).sample, wide, atol=1e-6)
