"""The best step is the last that no earlier one surely beat, also where the run was stopped."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from builders.runs import toy_recipe
from PIL import Image

from customize.adapters.file import read_adapter
from customize.families.sampling_defaults import Sampling
from customize.shapes import Example
from customize.training.best_preview import Best, judge, restored
from customize.training.previews import Preview, PreviewEdit, Previewer
from customize.training.progress import Reports
from customize.training.run import run_recipe

LOWEST = (0.010, 0.012, 0.014, 0.016)
SCATTERED = (0.0109, 0.0112, 0.0147, 0.0154)
"""Worse on average than the lowest, by less than the edits differ."""
SLIGHTLY_WORSE = (0.0103, 0.0123, 0.01435, 0.01625)
"""Worse in every edit: surely worse than the lowest, and not than what scatters more."""


def kept(*previews: tuple[float, ...]) -> int:
    """Return which of the previews is kept, from 1."""
    best: Best | None = None
    for step, errors in enumerate(previews, 1):
        best = judge(best, step, errors, "the same")
    assert best is not None
    assert best.error == fmean(previews[best.step - 1])
    return best.step


def test_the_last_is_kept_unless_it_is_surely_worse() -> None:
    assert kept(LOWEST) == 1
    assert kept(SCATTERED, LOWEST) == 2
    assert kept(LOWEST, SCATTERED) == 2
    assert kept(LOWEST, LOWEST) == 2
    assert kept(LOWEST, SLIGHTLY_WORSE) == 1
    assert kept(SCATTERED, SLIGHTLY_WORSE) == 2
    assert kept(LOWEST, SCATTERED, SLIGHTLY_WORSE) == 2  # compared with the lowest, not with it


@pytest.mark.parametrize("count", [1, 2])
def test_few_edits_need_a_margin_as_they_cannot_tell_their_noise(count: int) -> None:
    assert kept((0.01687,) * count, (0.01693,) * count) == 2  # two previews that were told apart
    assert kept((0.01,) * count, (0.0109,) * count) == 2
    assert kept((0.01,) * count, (0.0112,) * count) == 1


def test_other_edits_and_older_checkpoints_begin_anew() -> None:
    best = judge(Best(50, 0.01, (0.01,), "some"), 100, [0.5, 0.6], "others")
    assert best == Best(100, 0.55, (0.5, 0.6), "others")
    assert restored(0.01687) is None
    assert restored(None) is None


def test_edits_are_the_same_by_all_that_shapes_their_errors() -> None:
    def edits(shade: int = 0, text: str = "add it", held_out: bool = True, **changes: Any) -> str:
        picture_HWC = np.full((8, 8, 3), shade, dtype=np.uint8)
        shown = PreviewEdit(Example(picture_HWC, picture_HWC, text), held_out)
        same = PreviewEdit(Example(picture_HWC * 0, picture_HWC * 0, "the same"), held_out=True)
        nothing: Any = None
        options = {"sampling": Sampling(2, 7.0, 1.5), "device": torch.device("cpu"), **changes}
        return Previewer(nothing, nothing, nothing, [same, shown], **options).edits

    names = [
        edits(),
        edits(shade=1),
        edits(text="remove it"),
        edits(held_out=False),
        edits(seed=1),
        edits(scheduler="dpm++"),
        edits(sampling=replace(Sampling(2, 7.0, 1.5), steps=3)),
    ]
    assert len(set(names)) == 7
    assert edits() == names[0]
    assert edits(held_out=False, shade=1) == names[3]


def test_a_stopped_run_goes_on_comparing_with_the_lowest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best of steps 2, 4, 6 and 8 is 4, told from 6 by what 2 left in the checkpoint."""
    told = iter([LOWEST, SCATTERED, SLIGHTLY_WORSE, SLIGHTLY_WORSE])
    sheet, real, said = Image.new("RGB", (8, 8)), Reports.step, list[str]()
    monkeypatch.setattr(Previewer, "make", lambda _: Preview(sheet, next(told)))

    def stop(reports: Reports, step: Any) -> None:
        real(reports, step)
        if step.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    preview = {"every": 2, "images": str(tmp_path / "unseen")}
    toy_recipe(tmp_path)  # makes what the preview shows
    recipe = toy_recipe(tmp_path, train={"steps": 8}, preview=preview)
    with monkeypatch.context() as patch:
        patch.setattr(Reports, "step", stop)
        assert not run_recipe(recipe, log=said.append, progress=False).finished
    result = run_recipe(recipe, log=said.append, progress=False)
    best = tmp_path / "run" / "best.safetensors"
    assert result.best == best
    assert read_adapter(best).header.training["steps"] == 4
    assert result.adapter is not None
    last = read_adapter(result.adapter).header.training
    assert last["best_held_out_error"] == fmean(SCATTERED)
    assert any(line.endswith(f"after step 4: {best})") for line in said)
