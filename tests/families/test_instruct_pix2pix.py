"""The InstructPix2Pix family predicts and encodes as diffusers' own pipeline does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from builders.bases import TEXT_LENGTH, toy_example, toy_resolved
from torch import nn

from customize import families
from customize.families import Dropout, Encoder, Family
from customize.families.base import Base
from customize.families.words import Word, add_words, expand_words

LEVEL_B = torch.tensor([3, 800])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def family(base: Base) -> Family:
    return families.open_family(base, learns_text=True)


@pytest.fixture(scope="module")
def encoder(base: Base) -> Encoder:
    return families.open_encoder(base)


def _noisy() -> torch.Tensor:
    return torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def _batch(encoder: Encoder, *, as_tokens: bool) -> dict[str, torch.Tensor]:
    examples = [toy_example(0, "make the dog red"), toy_example(1, "paint it blue")]
    encoded = [encoder.encode(example, as_tokens=as_tokens).conditions for example in examples]
    return {key: torch.stack([one[key] for one in encoded]) for key in encoded[0]}


@pytest.mark.parametrize("as_tokens", [False, True])
@torch.no_grad()
def test_prediction_equals_diffusers(
    base: Base, family: Family, encoder: Encoder, as_tokens: bool
) -> None:
    pipeline = families.open_pipeline(base)
    prompts = ["make the dog red", "paint it blue"]
    text = pipeline._encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    pixels = torch.stack(
        [torch.from_numpy(toy_example(seed).source_HWC).permute(2, 0, 1) for seed in (0, 1)]
    )
    source = pipeline.prepare_image_latents(
        pixels.float() / 127.5 - 1, 2, 1, torch.float32, "cpu", do_classifier_free_guidance=False
    )
    stacked = torch.cat([_noisy(), source], dim=1)
    expected = pipeline.unet(stacked, LEVEL_B, encoder_hidden_states=text).sample
    conditions = _batch(encoder, as_tokens=as_tokens)
    assert set(conditions) == {"source", "token_ids" if as_tokens else "text"}
    predicted = family.predict(_noisy(), LEVEL_B, conditions)
    torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_prediction_reads_source_and_text(family: Family, encoder: Encoder) -> None:
    conditions = _batch(encoder, as_tokens=False)
    predicted = family.predict(_noisy(), LEVEL_B, conditions)
    for key in ("source", "text"):
        changed = family.predict(_noisy(), LEVEL_B, {**conditions, key: conditions[key].flip(0)})
        assert (changed - predicted).abs().amax(dim=(1, 2, 3)).min() > 1e-4, key


def test_target_is_scaled_and_source_is_the_unscaled_mode(base: Base, encoder: Encoder) -> None:
    example = toy_example(5)
    encoded = encoder.encode(example, as_tokens=False)
    vae = families.open_pipeline(base).vae
    source, target = (
        torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
        for pixels in (example.source_HWC, example.target_HWC)
    )
    with torch.no_grad():
        expected = vae.encode(target).latent_dist
        source_Chw = vae.encode(source).latent_dist.mode()[0]
    scale = vae.config.scaling_factor
    assert scale != 1
    torch.testing.assert_close(encoded.target_mean_Chw, expected.mean[0] * scale)
    torch.testing.assert_close(encoded.target_std_Chw, expected.std[0] * scale)
    torch.testing.assert_close(encoded.conditions["source"], source_Chw)
    assert all(not x.requires_grad for x in encoded.conditions.values())


def test_pictures_are_encoded_one_after_the_other(encoder: Any) -> None:
    counts: list[int] = []
    first = encoder.vae.encoder.register_forward_hook(lambda *seen: counts.append(len(seen[1][0])))
    encoder.encode(toy_example(), as_tokens=True)
    first.remove()
    assert counts == [1, 1]  # two at once take twice the memory of activations


def test_text_length_is_the_bases_own(encoder: Encoder) -> None:
    assert encoder.text("", as_tokens=True)["token_ids"].shape == (TEXT_LENGTH,)
    assert encoder.text("", as_tokens=False)["text"].shape[0] == TEXT_LENGTH
    with pytest.warns(UserWarning, match=f"reads {TEXT_LENGTH}"):
        encoder.text("paint it " * 20, as_tokens=True)


@pytest.mark.parametrize("as_tokens", [False, True])
def test_drop_follows_the_shares(family: Family, encoder: Encoder, as_tokens: bool) -> None:
    uniform_B = torch.tensor([0.0, 0.04, 0.06, 0.11, 0.16, 0.99])
    one = encoder.encode(toy_example(), as_tokens=as_tokens).conditions
    batch = {key: torch.stack([x] * 6) for key, x in one.items()}
    empty = encoder.text("", as_tokens=as_tokens)
    dropped = family.drop(batch, empty, uniform_B, Dropout(text=0.05, both=0.05, image=0.05))
    text_hidden = [torch.equal(x, e) for k, e in empty.items() for x in dropped[k]]
    text_kept = [torch.equal(x, one[k]) for k in empty for x in dropped[k]]
    source_hidden = [not bool(x.any()) for x in dropped["source"]]
    assert text_hidden == [True, True, True, False, False, False]
    assert text_kept == [not hidden for hidden in text_hidden]
    assert source_hidden == [False, False, True, True, False, False]


def test_denoiser_can_be_wrapped(family: Family, encoder: Encoder) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: object, **options: object) -> object:
            return self.module(*args, **options)

    conditions = _batch(encoder, as_tokens=False)
    wrapped = replace(family, denoiser=Wrapper(family.denoiser))
    with torch.no_grad():
        assert torch.equal(
            wrapped.predict(_noisy(), LEVEL_B, conditions),
            family.predict(_noisy(), LEVEL_B, conditions),
        )


def test_half_precision_base_answers_in_float32(base: Base, encoder: Encoder) -> None:
    family = families.open_family(base, dtype=torch.bfloat16)
    assert {p.dtype for p in family.denoiser.parameters()} == {torch.bfloat16}
    assert not family.text_encoders
    with torch.no_grad():
        predicted = family.predict(_noisy(), LEVEL_B, _batch(encoder, as_tokens=False))
    assert predicted.dtype is torch.float32


def test_base_is_frozen(family: Family) -> None:
    text_encoder = family.text_encoders["text_encoder"]
    parameters = [*family.denoiser.parameters(), *text_encoder.parameters()]
    assert len(parameters) > 100
    assert not any(p.requires_grad for p in parameters)


def test_texts_become_tokens_without_a_text_encoder(base: Base, encoder: Encoder) -> None:
    without: Any = families.open_encoder(base, reads_text=False)
    assert not without.text_encoders
    for text in ("make the dog red", ""):
        ids = without.text(text, as_tokens=True)["token_ids"]
        assert torch.equal(ids, encoder.text(text, as_tokens=True)["token_ids"])


def test_words_of_several_vectors_expand_as_in_diffusers(base: Base) -> None:
    pipeline = families.open_pipeline(base)
    words = [Word("<my-dog>", "dog", 3), Word("<hat>", None, 1)]
    first = add_words(pipeline.tokenizer, words)
    prompt = "make <my-dog> wear the <hat>, red"
    expanded = pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)
    assert expanded == expand_words(prompt, words)
    ids = pipeline.tokenizer(expanded).input_ids
    assert [i for i in ids if i >= first] == [first, first + 1, first + 2, first + 3]
    encoder = families.open_encoder(base, words=words)
    encoded = encoder.text(prompt, as_tokens=True)["token_ids"].tolist()
    assert encoded[: len(ids)] == ids
