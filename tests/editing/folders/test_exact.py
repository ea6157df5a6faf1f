"""A folder's answers are those of diffusers' own pipeline, one picture at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_base, toy_xl_base
from builders.pairs import scene
from diffusers import (
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)
from PIL import Image

from customize.editing import Editor
from customize.editing.edited_picture import Edited
from customize.editing.folders.items import Item
from customize.editing.folders.plan import How
from customize.editing.options import resized
from customize.editing.shared_noise import noise_field

SIZES = [(32, 32), (48, 40), (40, 48), (48, 40), (64, 33), (48, 40), (200, 150), (7, 30)]
STEPS = 2


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(len(SIZES))]
    for number, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        scene(number, size).save(path)
    return paths


@pytest.fixture(scope="module", params=["sd", "xl"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return toy_base(folder) if request.param == "sd" else toy_xl_base(folder)


def _plain(base: Path) -> Any:
    xl = (base / "text_encoder_2").is_dir()
    kind: Any = (
        StableDiffusionXLInstructPix2PixPipeline if xl else StableDiffusionInstructPix2PixPipeline
    )
    pipeline = kind.from_pretrained(base, **({} if xl else {"safety_checker": None}))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _called(pipeline: Any, source: Image.Image, edited: Edited) -> Image.Image:
    """Edit as a user of diffusers would, with the settings that the answer says it has."""
    used = edited.settings
    size = (used.width, used.height)
    noise: dict[str, Any] = {"generator": torch.Generator().manual_seed(used.seed)}
    if used.noise == "field":
        height, width = (side // pipeline.vae_scale_factor for side in size[::-1])
        noise["latents"] = noise_field(used.seed, 4, height, width)[None]
    if hasattr(pipeline, "text_encoder_2"):
        noise |= {"width": used.width, "height": used.height}
    return pipeline(
        used.instruction,
        image=resized(source, size),
        num_inference_steps=used.steps,
        guidance_scale=used.text_guidance,
        image_guidance_scale=used.image_guidance,
        **noise,
    ).images[0]


@pytest.fixture(scope="module")
def plain(base: Path) -> Any:
    return _plain(base)


@pytest.mark.parametrize(
    ("guidance", "seeds"),
    [
        ((3.0, 1.5), "shared"), ((3.0, 1.5), "each"), ((3.0, 1.0), "shared"), ((2.0, 2.0), "each"),
        ((1.0, 1.0), "shared"), ((1.0, 1.0), "each"),
    ],
)  # fmt: skip
def test_equals_diffusers_one_by_one(
    base: Path, plain: Any, pictures: list[Path], seeds: Any, guidance: tuple[float, float]
) -> None:
    editor = Editor.from_base(str(base), device="cpu")
    text, image = guidance
    items = [Item(path, ("make the dog red",), path.name) for path in pictures]
    answers = editor.edit_many(
        items, How(seeds=seeds), at_once=3, steps=STEPS, seed=5, text_guidance=text,
        image_guidance=image,
    )  # fmt: skip
    count = 0
    for item, edited in answers:
        assert isinstance(edited, Edited)
        assert isinstance(item.image, Path)
        with Image.open(item.image) as source:
            expected = resized(_called(plain, source.copy(), edited), source.size)
        difference = np.abs(np.asarray(edited.image).astype(int) - np.asarray(expected))
        assert difference.max() <= 1, item.place
        count += 1
    assert count == len(SIZES)


def test_ancestral_samplers_too(base: Path, pictures: list[Path]) -> None:
    editor = Editor.from_base(str(base), device="cpu")
    items = [Item(path, ("add the hat",), path.name) for path in pictures[1:4]]
    together = dict(editor.edit_many(items, steps=STEPS, scheduler="euler_a", at_once=3))
    alone = dict(editor.edit_many(items, steps=STEPS, scheduler="euler_a", at_once=1))
    for item in items:
        one, other = together[item], alone[item]
        assert isinstance(one, Edited)
        assert isinstance(other, Edited)
        assert np.abs(np.asarray(one.image).astype(int) - np.asarray(other.image)).max() <= 1


def test_a_chain_is_that_of_the_editor(base: Path, pictures: list[Path]) -> None:
    editor, texts = Editor.from_base(str(base), device="cpu"), ("make it red", "add the hat")
    item = Item(pictures[1], texts, "one", seed=4)
    ((_, edited),) = editor.edit_many([item], How(seeds="each"), steps=STEPS)
    assert isinstance(edited, Edited)
    *_, last = editor.chain(pictures[1], texts, steps=STEPS, seed=4)
    assert np.abs(np.asarray(edited.image).astype(int) - np.asarray(last.image)).max() <= 1
    assert edited.settings.earlier == ("make it red",)


def test_noise_agrees_where_sizes_overlap() -> None:
    small, tall, wide = (
        noise_field(3, 4, 10, 12),
        noise_field(3, 4, 200, 9),
        noise_field(3, 4, 8, 70),
    )
    assert torch.equal(small[:, :, :9], tall[:, :10])
    assert torch.equal(small[:, :8], wide[:, :, :12])
    assert not torch.equal(noise_field(4, 4, 10, 12), small)
    whole = noise_field(0, 4, 256, 256)
    assert abs(float(whole.mean())) < 0.01
    assert abs(float(whole.std()) - 1) < 0.01
    blocks = whole.unfold(1, 64, 64).unfold(2, 64, 64).reshape(4, 16, -1)
    for channel in blocks:
        assert float(torch.corrcoef(channel).fill_diagonal_(0).abs().max()) < 0.08
