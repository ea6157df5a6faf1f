"""Editing equals diffusers' own pipeline, takes pictures of any size, and says how it was done."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.bases import TEXT_LENGTH, toy_base, toy_family, toy_resolved
from diffusers import StableDiffusionInstructPix2PixPipeline
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customize.adapters import CrossAttentionKV, attach
from customize.adapters.file import save_adapter
from customize.adapters.header import Header, Taught
from customize.editing import Editor
from customize.editing.controlled import unedited
from customize.editing.detail import with_own_detail
from customize.editing.edited_picture import Edited, read_settings
from customize.editing.options import LONGEST, EditOptions, working_size
from customize.editing.samplers import CLASSES
from customize.errors import (
    AdapterFileError,
    BaseModelError,
    EditError,
    OutputExistsError,
    PairsError,
)
from customize.families import profile_of
from customize.families.base import resolve_base
from customize.families.sampling_defaults import Sampling, own_way, sampling_of
from customize.families.words import Word

STEPS = 3
WORDS = ("<my-dog>", "<My-Dog>")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def editor(base: Path) -> Editor:
    """Open the base once for all tests that load no adapter."""
    return Editor.from_base(str(base), device="cpu")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a K/V adapter with a word, both far from zero."""
    return _save_adapter(tmp_path_factory.mktemp("adapter") / "dog.safetensors", "<my-dog>")


def _save_adapter(path: Path, word: str, seed: int = 0) -> Path:
    family = toy_family(path.with_suffix(".base"))
    attached = attach(family, CrossAttentionKV(), [Word(word, "dog", vectors=2)])
    random = torch.Generator().manual_seed(seed)
    state = {
        name: tensor + 0.5 * torch.randn(tensor.shape, generator=random)
        for name, tensor in attached.state().items()
    }
    header = Header(
        family="instruct_pix2pix",
        base_name="toy",
        base_fingerprint=toy_resolved(path.with_suffix(".same")).fingerprint,
        method="cross_attention_kv",
        concepts=(Taught("dog", word, "dog", 2),),
    )
    return save_adapter(path, header, state)


def picture(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC)


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def test_equals_plain_diffusers(base: Path, editor: Editor) -> None:
    source = picture(40, 24)
    edited = editor.edit(
        source, "make the dog red", seed=7, steps=STEPS, text_guidance=3, image_guidance=1.3
    )
    plain = StableDiffusionInstructPix2PixPipeline.from_pretrained(base, safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    working = source.resize(
        (edited.settings.width, edited.settings.height), Image.Resampling.LANCZOS
    )
    expected = plain(
        "make the dog red",
        image=working,
        num_inference_steps=STEPS,
        guidance_scale=3,
        image_guidance_scale=1.3,
        generator=torch.Generator().manual_seed(7),
    ).images[0]  # type: ignore[union-attr]
    assert same(edited.image, expected.resize(source.size, Image.Resampling.LANCZOS))


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (7, 300), (301, 200), (64, 33)])
def test_answers_at_the_size_of_the_source(editor: Editor, size: tuple[int, int]) -> None:
    assert editor.edit(picture(*size), "make it red", steps=1).image.size == size


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from([(64, 4, 16), (512, 8, 64), (32, 2, 8)]),
)
def test_working_sizes_suit_the_base(width: int, height: int, facts: tuple[int, int, int]) -> None:
    resolution, multiple, least = facts
    sides = working_size(width, height, resolution=resolution, multiple=multiple, least=least)
    assert all(side % multiple == 0 and least <= side <= LONGEST * resolution for side in sides)
    if max(width, height) <= 3 * min(width, height):
        shape = (width / height) / (sides[0] / sides[1])
        assert 1 / 1.12 < shape < 1.12
        assert 0.85 < sides[0] * sides[1] / resolution**2 < 1.15


def test_pictures_are_upright_and_on_white(editor: Editor, tmp_path: Path) -> None:
    tall = picture(20, 40)
    turned = tall.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    expected = editor.edit(tall, "make it red", steps=1).image
    assert same(editor.edit(tmp_path / "turned.png", "make it red", steps=1).image, expected)
    with Image.open(tmp_path / "turned.png") as opened:
        assert same(editor.edit(opened, "make it red", steps=1).image, expected)
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    white = Image.new("RGB", (32, 32), "white")
    assert same(
        editor.edit(clear, "make it red", steps=1).image,
        editor.edit(white, "make it red", steps=1).image,
    )
    with pytest.raises(PairsError, match=r"missing\.png"):
        editor.edit(tmp_path / "missing.png", "make it red")


def test_a_picture_that_is_made_much_smaller_is_told(editor: Editor) -> None:
    with pytest.warns(UserWarning, match=r"640x480 pixels, and the base works at \d+x\d+"):
        editor.edit(Image.new("RGB", (640, 480)), "make it red", steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        editor.edit(picture(), "make it red", steps=1)


def test_chain_is_one_edit_after_another(editor: Editor) -> None:
    source, texts = picture(), ["make it red", "add the hat", "make it night"]
    stages = editor.chain(source, texts, steps=STEPS, seed=3, keep_unchanged=False)
    assert len(stages) == 3
    for text, stage in zip(texts, stages, strict=True):
        alone = editor.edit(source, text, steps=STEPS, seed=3)
        assert same(stage.image, alone.image)
        source = alone.image
    assert stages[2].settings.earlier == ("make it red", "add the hat")


def test_seed_strength_and_unloading(base: Path, adapter: Path) -> None:
    editor = Editor.from_base(str(base), device="cpu")

    def answer(seed: int = 0) -> Image.Image:
        return editor.edit(picture(), "make the dog red", steps=STEPS, seed=seed).image

    plain = answer()
    assert same(plain, answer())
    assert not same(plain, answer(seed=1))
    full = (editor.load(adapter), answer())[1]
    assert not same(full, plain)
    half = (editor.unload().load(adapter, strength=0.5), answer())[1]
    assert not same(half, full)
    assert same((editor.unload().load(adapter, strength=0), answer())[1], plain)
    assert same((editor.unload(), answer())[1], plain)


def test_several_adapters_in_any_order(base: Path, adapter: Path, tmp_path: Path) -> None:
    other = _save_adapter(tmp_path / "cat.safetensors", "<my-cat>", seed=1)
    answers = []
    for order in ((adapter, other), (other, adapter)):
        editor = Editor.from_base(str(base), device="cpu")
        for path in order:
            editor.load(path, 0.4)
        answers.append(editor.edit(picture(), "paint <my-dog> blue", steps=STEPS))
    assert same(answers[0].image, answers[1].image)
    assert [used.file for used in answers[0].settings.adapters] == [adapter.name, other.name]


def test_a_refused_adapter_leaves_the_editor_as_it_was(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    editor = Editor.from_base(str(base), device="cpu").load(adapter)
    before = editor.edit(picture(), "add <my-dog>", steps=STEPS)
    twin = _save_adapter(tmp_path / "twin.safetensors", "<my-dog>", seed=1)
    for path in (twin, tmp_path / "none.safetensors"):
        with pytest.raises(AdapterFileError):
            editor.load(path)
    after = editor.edit(picture(), "add <my-dog>", steps=STEPS)
    assert same(before.image, after.image)
    assert before.settings == after.settings


def test_words_are_read_whatever_their_case(base: Path, adapter: Path) -> None:
    editor = Editor.from_base(str(base), device="cpu").load(adapter)
    seen: list[str] = []
    encode = editor.pipeline.text_encoder.forward
    editor.pipeline.text_encoder.forward = lambda ids, *args, **options: (
        seen.append(editor.pipeline.tokenizer.decode(ids[0])),
        encode(ids, *args, **options),
    )[1]
    answers = [
        editor.edit(picture(), f"add {word}", steps=STEPS) for word in ("<my-dog>", "<My-Dog>")
    ]
    assert same(answers[0].image, answers[1].image)
    assert len(seen) == 4  # the instruction and no instruction, twice
    assert all("<my-dog><my-dog>_1" in text.replace(" ", "") for text in seen[::2])


def test_words_nobody_taught_are_named(base: Path, adapter: Path) -> None:
    editor = Editor.from_base(str(base), device="cpu")
    with pytest.warns(UserWarning, match="<my-dog>; load the one that does"):
        editor.edit(picture(), "add <my-dog>", steps=1)
    editor.load(adapter)
    with pytest.warns(UserWarning, match="<my-cat>; those in use teach <my-dog>"):
        editor.edit(picture(), "add <my-cat> to <my-dog>", steps=1)


def test_an_adapter_of_other_weights_is_used_with_a_warning(adapter: Path, tmp_path: Path) -> None:
    editor = Editor.from_base(str(toy_base(tmp_path, seed=5)), device="cpu")
    with pytest.warns(UserWarning, match=r"dog\.safetensors: the adapter was made for 'toy'"):
        editor.load(adapter)


@pytest.mark.parametrize("name", CLASSES)
def test_schedulers_give_pictures(editor: Editor, name: str) -> None:
    edited = editor.edit(picture(), "make it red", steps=STEPS, scheduler=name)
    assert edited.settings.scheduler == CLASSES[name][0]
    assert editor.pipeline.scheduler.config.get("clip_sample", False) is False
    assert editor.pipeline.scheduler.config.rescale_betas_zero_snr is True
    assert np.asarray(edited.image).std() > 1
    own = editor.edit(picture(), "make it red", steps=STEPS)
    assert own.settings.scheduler == "DDIMScheduler"


def test_schedulers_solve_the_same_equation(editor: Editor) -> None:
    """A wrong noise schedule would lead them apart as far as another seed does."""

    def answer(scheduler: str, seed: int = 0) -> np.ndarray:
        edited = editor.edit(picture(), "make it red", steps=12, scheduler=scheduler, seed=seed)
        return np.asarray(edited.image).astype(float)

    expected = answer("ddim")
    far_apart = np.abs(answer("ddim", seed=1) - expected).mean()
    for name in ("euler", "dpmpp", "unipc"):
        assert np.abs(answer(name) - expected).mean() < 0.2 * far_apart, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps 0: expected 1 to 1000"),
        ({"text_guidance": 0.5}, "text_guidance 0.5: expected 1 to 50"),
        ({"image_guidance": float("nan")}, "image_guidance nan"),
        ({"seed": -1}, "seed -1"),
        ({"resolution": 5}, "resolution 5"),
        ({"scheduler": "eulr"}, "scheduler 'eulr': unknown; expected one of ddim, ddpm"),
    ],
)
def test_options_out_of_range_are_refused(
    editor: Editor, options: dict[str, float], message: str
) -> None:
    with pytest.raises(EditError, match=message):
        editor.edit(picture(), "make it red", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("instructions", [[], [" "], ["make it red", ""]])
def test_empty_instructions_are_refused(editor: Editor, instructions: list[str]) -> None:
    with pytest.raises(EditError, match="no instruction"):
        editor.chain(picture(), instructions)


def test_image_guidance_without_effect_is_said(editor: Editor) -> None:
    with pytest.warns(UserWarning, match="image_guidance has no effect"):
        editor.edit(picture(), "make it red", steps=1, text_guidance=1, image_guidance=2)


def test_pixels_that_are_no_numbers_are_refused(base: Path) -> None:
    editor = Editor.from_base(str(base), device="cpu")
    editor.pipeline.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(EditError, match="pixels that are no numbers"):
        editor.edit(picture(), "make it red", steps=1)


def test_saved_png_carries_its_settings(base: Path, adapter: Path, tmp_path: Path) -> None:
    editor = Editor.from_base(str(base), device="cpu").load(adapter, 0.5)
    edited = editor.edit(picture(), "make <my-dog> größer", steps=STEPS, seed=4)
    path = edited.save(tmp_path / "new" / "out.png")
    with Image.open(path) as opened:
        assert same(opened.convert("RGB"), edited.image)
        chunks = opened.text  # type: ignore[attr-defined]
    settings = read_settings(path)
    assert settings is not None
    assert settings == json.loads(json.dumps(asdict(edited.settings)))
    assert settings["instruction"] == "make <my-dog> größer"
    assert settings["adapters"][0]["strength"] == 0.5
    assert str(tmp_path) not in json.dumps(settings["adapters"])
    first, second = chunks["parameters"].splitlines()
    assert first == "make <my-dog> größer"
    assert second.startswith(
        "Steps: 3, Sampler: DDIMScheduler, CFG scale: 7.5, Image CFG scale: 1.5"
    )
    assert sorted(item.name for item in path.parent.iterdir()) == ["out.png"]


def test_saving_never_replaces_unasked(editor: Editor, tmp_path: Path) -> None:
    edited: Edited = editor.edit(picture(), "make it red", steps=1)
    path = edited.save(tmp_path / "out.png")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"out\.png: it is there already"):
        edited.save(path)
    assert path.read_bytes() == before
    assert edited.save(path, overwrite=True) == path
    assert read_settings(edited.save(tmp_path / "out.jpg")) is None
    with pytest.raises(EditError, match=r"'\.gif' is no picture format"):
        edited.save(tmp_path / "out.gif")


def test_settings_of_the_base(base: Path, tmp_path: Path) -> None:
    found = resolve_base(str(base))
    assert sampling_of(found) == profile_of(found.family).sampling == Sampling(100, 7.5, 1.5)
    own = replace(found, folder=tmp_path)
    (tmp_path / "customize.json").write_text(
        '{"edit": {"steps": 12, "text_guidance": 2, "image_guidance": 1.2}}'
    )
    assert sampling_of(own) == Sampling(12, 2.0, 1.2)
    assert own_way(own)[1] == own_way(found)[1] == "scaled"
    (tmp_path / "customize.json").write_text(
        '{"edit": {"steps": 12, "text_guidance": 2, "image_guidance": 1.2, "detail": "keep"}}'
    )
    assert own_way(own) == (Sampling(12, 2.0, 1.2), "keep")
    (tmp_path / "customize.json").write_text(
        '{"edit": {"steps": 12, "text_guidance": 2, "image_guidance": 1.2, "detail": "kept"}}'
    )
    with pytest.raises(BaseModelError, match=r"edit\.detail is 'kept'"):
        own_way(own)
    (tmp_path / "customize.json").write_text('{"edit": {"steps": 12}}')
    with pytest.raises(BaseModelError, match="cannot be understood"):
        sampling_of(own)


def test_detail_is_kept_in_single_edits_and_batches_alike(editor: Editor) -> None:
    large = picture(96, 96)
    options: EditOptions = {"steps": STEPS, "resolution": 32}
    keeping: EditOptions = {**options, "detail": "keep"}
    with pytest.warns(UserWarning, match="--detail keep"):
        scaled = editor.edit(large, "make it red", **options)
    small = large.resize((32, 32), Image.Resampling.LANCZOS)
    answer = editor.edit(small, "make it red", **options).image
    (unedited_small,) = unedited(editor.pipeline, [small])
    kept = editor.edit(large, "make it red", **keeping)
    assert same(kept.image, with_own_detail(large, answer, unedited_small))
    assert not same(kept.image, scaled.image)
    assert (kept.settings.detail, scaled.settings.detail) == ("keep", "scaled")
    odd = picture(96, 96).crop((0, 0, 96, 48))
    both = editor.batch([odd, large], ["make it red"] * 2, **keeping)
    assert [one.image.size for one in both] == [(96, 48), (96, 96)]
    again = editor.edit(large, "make it red", **{**keeping, "seed": 1})
    assert np.abs(np.asarray(both[1].image, dtype=int) - np.asarray(again.image)).max() <= 2
    with pytest.raises(EditError, match="detail 'kept': expected scaled or keep"):
        editor.edit(large, "make it red", detail="kept")  # type: ignore[arg-type]


def test_text_length_is_the_bases_own(editor: Editor) -> None:
    long = editor.edit(picture(), "red " * 2 * TEXT_LENGTH, steps=1)
    assert long.image.size == (32, 32)
