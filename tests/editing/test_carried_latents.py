"""Chains go on from latents, and what an edit left alone stays exactly as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_base, toy_xl_base
from PIL import Image

from customize.editing import Editor, carried_latents
from customize.editing.carried_latents import MOVED, with_cells_kept
from customize.editing.controlled import unedited
from customize.families import pipeline_arguments
from customize.families.sampling_defaults import sampling_of

TEXTS = ["make it red", "add the hat", "make it night"]


def shades(side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))


@pytest.fixture(params=[toy_base, toy_xl_base], ids=["sd", "sdxl"])
def editor(request: pytest.FixtureRequest, tmp_path: Path) -> Editor:
    return Editor.from_base(str(request.param(tmp_path / "base")), device="cpu")


def test_cells_that_hardly_moved_and_lie_alone_are_put_back() -> None:
    before_BChw = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    after_BChw = before_BChw + 0.5 * MOVED
    after_BChw[1, :, 2, 6] += 3 * MOVED
    kept_BChw = with_cells_kept(before_BChw, after_BChw, deviation=1)
    assert torch.equal(kept_BChw[0], before_BChw[0])
    edited_hw = (kept_BChw[1] == after_BChw[1]).all(dim=0)
    assert edited_hw.sum() == 9
    assert edited_hw[1:4, 5:8].all()
    assert torch.equal(with_cells_kept(before_BChw, after_BChw, deviation=0.1), after_BChw)


def test_a_chain_that_moves_nothing_keeps_the_first_picture(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried_latents, "MOVED", 1e9)
    stages = editor.chain(shades(), TEXTS, steps=2, resolution=32)
    (own,) = unedited(editor.pipeline, [shades()])
    for stage in stages:
        assert np.abs(np.asarray(stage.image).astype(int) - np.asarray(own)).max() <= 1
        assert stage.settings.keep_unchanged


def test_a_chain_that_moves_nothing_and_keeps_detail_is_the_source(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried_latents, "MOVED", 1e9)
    source = shades(100)
    stages = editor.chain(source, TEXTS, steps=2, resolution=32, detail="keep")
    assert all(np.array_equal(np.asarray(stage.image), np.asarray(source)) for stage in stages)


def test_a_chain_is_diffusers_pipeline_given_latents(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried_latents, "MOVED", 0)  # all counts as edited
    stages = editor.chain(shades(), TEXTS[:2], steps=2, resolution=32, seed=5)
    pipeline, sampling = editor.pipeline, replace(sampling_of(editor.base), steps=2)

    def ask(text: str, output: str, **options: Any) -> Any:
        asked = pipeline_arguments(pipeline, [shades()], [text], None, sampling)
        generator = torch.Generator().manual_seed(5)
        return pipeline(**{**asked, **options}, generator=generator, output_type=output).images

    latents_BChw = ask(TEXTS[0], "latent") / pipeline.vae.config.scaling_factor
    (wanted_HWC,) = ask(TEXTS[1], "np", image=latents_BChw)
    assert np.abs(np.asarray(stages[1].image) / 255 - wanted_HWC).max() < 1 / 255


def test_one_edit_keeps_only_when_asked(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_latents, "MOVED", 1e9)
    (own,) = unedited(editor.pipeline, [shades()])
    plain = editor.edit(shades(), TEXTS[0], steps=2, resolution=32)
    asked = editor.edit(shades(), TEXTS[0], steps=2, resolution=32, keep_unchanged=True)
    (batched,) = editor.batch([shades()], [TEXTS[0]], steps=2, resolution=32, keep_unchanged=True)
    assert not plain.settings.keep_unchanged
    assert not np.array_equal(np.asarray(plain.image), np.asarray(own))
    assert np.abs(np.asarray(asked.image).astype(int) - np.asarray(own)).max() <= 1
    assert np.array_equal(np.asarray(asked.image), np.asarray(batched.image))
    assert "Keep unchanged: True" in asked.settings.as_parameters()
