"""The SDXL family predicts, encodes, trains and edits as diffusers' own pipeline would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import (
    TEXT_LENGTH,
    TEXT_WIDTH,
    XL_TEXT_WIDTH,
    shake,
    toy_example,
    toy_pipeline,
    toy_xl_base,
)
from builders.runs import toy_pairs, toy_recipe
from PIL import Image
from torch import Tensor

from customize import families
from customize.adapters import Attached, CrossAttentionKV, LowRank, Method, attach
from customize.adapters.apply import apply_adapters
from customize.adapters.file import AdapterFile, read_adapter
from customize.adapters.header import Header
from customize.editing import Editor
from customize.errors import AdapterFileError, BaseModelError
from customize.exporting import export
from customize.exporting.proof.prove import verify
from customize.families import Dropout, Encoder, Family
from customize.families.base import Base, resolve_base
from customize.families.words import Word
from customize.merging.merge_files import merge
from customize.merging.methods import Concat
from customize.training.run import run_recipe

LEVEL_B = torch.tensor([3, 800])
PROMPTS = ["make the dog red", "paint it blue"]
WORDS = (Word("<my-dog>", "dog", 2),)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return resolve_base(str(toy_xl_base(tmp_path_factory.mktemp("xl"))))


@pytest.fixture(scope="module")
def encoder(base: Base) -> Encoder:
    return families.open_encoder(base)


@pytest.fixture
def family(base: Base) -> Family:
    return families.open_family(base, learns_text=True)


def _noisy() -> Tensor:
    return torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def _batch(encoder: Encoder, *, as_tokens: bool) -> dict[str, Tensor]:
    examples = [toy_example(seed, text) for seed, text in enumerate(PROMPTS)]
    encoded = [encoder.encode(example, as_tokens=as_tokens).conditions for example in examples]
    return {key: torch.stack([one[key] for one in encoded]) for key in encoded[0]}


@torch.no_grad()
def _diffusers_prediction(pipeline: Any, prompts: list[str]) -> Tensor:
    """Predict as diffusers' pipeline calls its own parts, without guidance."""
    text, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    pixels = torch.stack(
        [torch.from_numpy(toy_example(seed).source_HWC).permute(2, 0, 1) for seed in (0, 1)]
    )
    source = pipeline.prepare_image_latents(
        pixels.float() / 127.5 - 1, 2, 1, torch.float32, "cpu", do_classifier_free_guidance=False
    )
    size = (32, 32)
    sizes = pipeline._get_add_time_ids(size, (0, 0), size, torch.float32, XL_TEXT_WIDTH)
    return pipeline.unet(
        torch.cat([_noisy(), source], dim=1),
        LEVEL_B,
        encoder_hidden_states=text,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes.repeat(2, 1)},
    ).sample


@pytest.mark.parametrize("as_tokens", [False, True])
@torch.no_grad()
def test_prediction_equals_diffusers(
    base: Base, family: Family, encoder: Encoder, as_tokens: bool
) -> None:
    expected = _diffusers_prediction(families.open_pipeline(base), PROMPTS)
    conditions = _batch(encoder, as_tokens=as_tokens)
    text = {"token_ids", "token_ids_2"} if as_tokens else {"text", "pooled"}
    assert set(conditions) == {"source", "time_ids"} | text
    if not as_tokens:
        assert conditions["text"].shape == (2, TEXT_LENGTH, TEXT_WIDTH + XL_TEXT_WIDTH)
    predicted = family.predict(_noisy(), LEVEL_B, conditions)
    torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_prediction_reads_every_condition(family: Family, encoder: Encoder) -> None:
    conditions = _batch(encoder, as_tokens=False)
    predicted = family.predict(_noisy(), LEVEL_B, conditions)
    wider = conditions["time_ids"] + torch.tensor([0.0, 0, 7, 0, 0, 0])
    changes = {key: conditions[key].flip(0) for key in ("source", "text", "pooled")}
    for key, value in {**changes, "time_ids": wider}.items():
        changed = family.predict(_noisy(), LEVEL_B, {**conditions, key: value})
        assert (changed - predicted).abs().amax(dim=(1, 2, 3)).min() > 1e-5, key


def test_sizes_are_height_and_width(encoder: Encoder) -> None:
    example = toy_example(size=48)
    example = replace(
        example, source_HWC=example.source_HWC[:32], target_HWC=example.target_HWC[:32]
    )
    sizes = encoder.encode(example, as_tokens=False).conditions["time_ids"]
    assert sizes.tolist() == [32, 48, 0, 0, 32, 48]


@pytest.mark.parametrize("as_tokens", [False, True])
@torch.no_grad()
def test_no_instruction_is_what_the_pipeline_guides_from(
    base: Base, family: Family, encoder: Encoder, as_tokens: bool
) -> None:
    conditions = _batch(encoder, as_tokens=as_tokens)
    empty, nothing = encoder.text("", as_tokens=as_tokens), torch.zeros(2)
    hidden = family.drop(conditions, empty, nothing, Dropout(text=1.0, both=0.0, image=0.0))
    predicted = family.predict(_noisy(), LEVEL_B, hidden)
    pipeline = families.open_pipeline(base)
    encode = pipeline.encode_prompt

    def unconditional(prompts: list[str], **_: object) -> tuple[Tensor, ...]:
        _, text, _, pooled = encode(prompts, do_classifier_free_guidance=True)
        return text, text, pooled, pooled

    pipeline.encode_prompt = unconditional
    expected = _diffusers_prediction(pipeline, PROMPTS)
    torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(hidden["time_ids"], conditions["time_ids"])


def test_a_base_may_read_the_empty_instruction(base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for part in base.folder.iterdir():
        if part.name != "model_index.json":
            (folder / part.name).symlink_to(part)
    index = json.loads((base.folder / "model_index.json").read_text())
    changes = {"force_zeros_for_empty_prompt": False, "is_cosxl_edit": True}
    (folder / "model_index.json").write_text(json.dumps(index | changes))
    plain, other = (families.open_encoder(replace(base, folder=f)) for f in (base.folder, folder))
    assert not plain.text("", as_tokens=False)["text"].any()
    assert other.text("", as_tokens=False)["text"].any()
    sources = [e.encode(toy_example(), as_tokens=True).conditions["source"] for e in (plain, other)]
    torch.testing.assert_close(sources[0] * 0.7, sources[1])  # CosXL scales the source


def _learn(base: Base, method: Method, words: tuple[Word, ...]) -> tuple[Family, Attached]:
    family = families.open_family(base, learns_text=True)
    attached = attach(family, method, words)
    shake(attached)
    return family, attached


@pytest.mark.parametrize(
    ("method", "words"),
    [(CrossAttentionKV(), WORDS), (LowRank(rank=2, text_encoder_rank=2), ())],
    ids=["kv", "lora"],
)
@torch.no_grad()
def test_what_is_learned_predicts_alike_in_the_pipeline(
    base: Base, method: Method, words: tuple[Word, ...]
) -> None:
    family, attached = _learn(base, method, words)
    prompts = ["make the <my-dog> red", "add <my-dog>"] if words else PROMPTS
    told = families.open_encoder(base, words=words)
    examples = [toy_example(seed, text) for seed, text in enumerate(prompts)]
    encoded = [told.encode(example, as_tokens=True).conditions for example in examples]
    conditions = {key: torch.stack([one[key] for one in encoded]) for key in encoded[0]}
    header = Header("instruct_pix2pix_xl", "toy", "0" * 64, "low_rank", rank=2, alpha=2)
    pipeline = families.open_pipeline(base)
    before = _diffusers_prediction(pipeline, prompts)
    applied = apply_adapters(pipeline, [(AdapterFile(header, attached.state()), 1.0)])
    expected = _diffusers_prediction(pipeline, prompts)
    assert (expected - before).abs().max() > 1e-3
    predicted = family.predict(_noisy(), LEVEL_B, conditions)
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)
    applied.remove()
    assert torch.equal(_diffusers_prediction(pipeline, prompts), before)


def test_a_taught_word_is_not_where_text_ends(base: Base) -> None:
    """The published `eos_token_id: 2` would pool at the highest id, which is the new word's."""
    family, _ = _learn(base, CrossAttentionKV(), WORDS)
    encoder: Any = family.text_encoders["text_encoder_2"]
    ids = families.open_encoder(base, words=WORDS).text("add <my-dog> red", as_tokens=True)
    ids_BL = ids["token_ids_2"][None]
    end = int((ids_BL[0] == family.tokenizers["tokenizer_2"].eos_token_id).int().argmax())
    assert int(ids_BL.argmax()) < end
    output = encoder(ids_BL)
    pooled = encoder.text_projection(output.last_hidden_state[:, end])
    torch.testing.assert_close(output[0], pooled)


def test_texts_become_tokens_without_text_encoders(base: Base, encoder: Encoder) -> None:
    without: Any = families.open_encoder(base, reads_text=False)
    assert not without.text_encoders
    for text in ("make the dog red", ""):
        expected = encoder.text(text, as_tokens=True)
        ids = without.text(text, as_tokens=True)
        assert all(torch.equal(ids[key], expected[key]) for key in expected)


def test_every_learned_tensor_gets_a_gradient(base: Base) -> None:
    """An unread tensor would make several processes wait for one another for ever."""
    method = LowRank(rank=2, targets=("attention", "feed_forward"), text_encoder_rank=2)
    family, attached = _learn(base, method, WORDS)
    told = families.open_encoder(base, words=WORDS)
    one = told.encode(toy_example(0, "add <my-dog>"), as_tokens=True).conditions
    conditions = {key: torch.stack([value] * 2) for key, value in one.items()}
    family.predict(_noisy(), LEVEL_B, conditions).square().mean().backward()
    still = [n for n, p in attached.tensors().items() if p.grad is None or not p.grad.any()]
    assert not still
    parts = {name.split(".")[0] for name in attached.tensors()}
    assert parts == {"denoiser", "text_encoder", "text_encoder_2", "words"}
    words = [name for name in attached.tensors() if name.startswith("words.")]
    assert words == ["words.text_encoder.<my-dog>", "words.text_encoder_2.<my-dog>"]


def test_words_for_two_encoders_need_two() -> None:
    header = Header("instruct_pix2pix_xl", "toy", "0" * 64, "low_rank")
    rows = {"words.text_encoder_2.<my-dog>": torch.ones(1, XL_TEXT_WIDTH)}
    with pytest.raises(AdapterFileError, match="text_encoder_2, which this base does not have"):
        apply_adapters(toy_pipeline(), [(AdapterFile(header, rows), 1.0)])


def test_a_vae_that_overflows_is_said(base: Base) -> None:
    encoder: Any = families.open_encoder(base)
    with torch.no_grad():
        encoder.vae.encoder.conv_in.weight.mul_(torch.inf)
    with pytest.raises(BaseModelError, match=r"no numbers, computing in torch\.float32"):
        encoder.encode(toy_example(), as_tokens=False)


def test_half_precision_base_answers_in_float32(base: Base, encoder: Encoder) -> None:
    family = families.open_family(base, dtype=torch.bfloat16, learns_text=True)
    assert {p.dtype for p in family.denoiser.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        predicted = family.predict(_noisy(), LEVEL_B, _batch(encoder, as_tokens=True))
    assert predicted.dtype is torch.float32
    assert predicted.isfinite().all()


@pytest.mark.parametrize("method", ["cross_attention_kv", "low_rank"])
def test_trains_resumes_and_edits(
    base: Base, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter: dict[str, Any] = {"method": method}
    if method == "low_rank":
        adapter |= {"rank": 2, "text_encoder": True}

    def train(output: str, steps: int) -> Any:
        return run_recipe(
            toy_recipe(
                tmp_path,
                base={"name": str(base.folder)},
                adapter=adapter,
                train={"steps": steps, "learning_rate": 5e-3},
                preview={"every": 4 if method == "low_rank" else None, "count": 1},
                save={"every": 3, "log": []},
                output=str(tmp_path / output),
            ),
            log=lambda _: None,
            progress=False,
        )

    whole = train("whole", 6)
    assert whole.finished
    _stop_after(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train("broken", 6)
    monkeypatch.undo()
    resumed = train("broken", 6)
    states = [read_adapter(result.adapter).tensors for result in (whole, resumed)]
    assert len(states[0]) > 10
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any((tmp_path / "whole").glob("previews/*")) == (method == "low_rank")

    picture = Image.fromarray(toy_example(size=48).source_HWC[:32])
    editor = Editor.from_base(str(base.folder), device="cpu")
    plain = editor.edit(picture, "add dog", steps=2)
    taught = editor.load(whole.adapter).edit(picture, "add <my-dog>", steps=2)
    assert taught.image.size == (48, 32)
    assert np.abs(np.asarray(taught.image, int) - np.asarray(plain.image, int)).max() > 2
    again = editor.unload().edit(picture, "add dog", steps=2)
    assert np.array_equal(np.asarray(again.image), np.asarray(plain.image))


def test_what_was_trained_leaves_and_merges(base: Base, tmp_path: Path) -> None:
    def train(name: str, adapter: dict[str, Any], word: str | None, text: str) -> Path:
        pairs = str(toy_pairs(tmp_path / name, first_seed=len(name), text=text))
        concept = {"name": name, "word": word, "pairs": pairs}
        recipe = toy_recipe(
            tmp_path,
            base={"name": str(base.folder)},
            concepts=[concept],
            adapter=adapter,
            train={"steps": 2, "learning_rate": 5e-3},
            save={"log": []},
            output=str(tmp_path / f"run_{name}"),
        )
        result = run_recipe(recipe, log=lambda _: None, progress=False)
        assert result.adapter is not None
        return result.adapter

    low_rank = {"method": "low_rank", "rank": 2, "text_encoder": True}
    paths = [
        train("dog", {"method": "cross_attention_kv"}, "<my-dog>", "add <my-dog>"),
        train("look", low_rank, None, "paint it blue"),
    ]
    for path in paths:
        written = export(read_adapter(path), base, "kohya", tmp_path / f"{path.parent.name}_out")
        for verdict in verify(written, read_adapter(path), base).verdicts:
            assert verdict.matched == verdict.expected > 10
            assert verdict.error <= 1e-3
    merged = merge(paths, tmp_path / "both.safetensors", Concat()).path
    both = read_adapter(merged)
    assert both.header.family == "instruct_pix2pix_xl"
    parts = {name.split(".")[0] for name in both.tensors}
    assert parts == {"denoiser", "text_encoder", "text_encoder_2", "words"}
    picture = Image.fromarray(toy_example().source_HWC)
    apart, together = (Editor.from_base(str(base.folder), device="cpu") for _ in range(2))
    for path in paths:
        apart.load(path)
    edits = [e.edit(picture, "add <my-dog>", steps=2) for e in (apart, together.load(merged))]
    ours, theirs = (np.asarray(edit.image, int) for edit in edits)
    assert np.abs(ours - theirs).max() <= 1  # a merge by addition is both in use at once


def test_a_half_precision_pipeline_runs_its_vae_in_full(base: Base) -> None:
    """Published SDXL autoencoders overflow float16 and say so by `force_upcast`."""
    pipeline = families.open_pipeline(base, dtype=torch.float16)
    seen: set[tuple[str, torch.dtype]] = set()
    for part in ("encoder", "decoder"):
        module = getattr(pipeline.vae, part)
        module.register_forward_pre_hook(lambda _, given, p=part: seen.add((p, given[0].dtype)))
    picture = Image.fromarray(toy_example().source_HWC)
    pipeline("make it red", image=picture, num_inference_steps=1, height=32, width=32)
    assert seen == {("encoder", torch.float32), ("decoder", torch.float32)}
    assert pipeline.unet.dtype is pipeline.vae.dtype is torch.float16


def _stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from customize.training.run_loop import RunLoop

    after = RunLoop._after

    def stop(run: Any, done: Any, reports: Any) -> None:
        after(run, done, reports)
        if done.step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLoop, "_after", stop)
