"""Telling a loss that was still falling from one that had levelled off."""

from __future__ import annotations

import numpy as np
import pytest

from customize.training.learning_left import still_falling


def losses(shape: np.ndarray, seed: int, scatter: float = 0.4) -> list[float]:
    """Scatter losses about their course as noise levels do (log-normal)."""
    noise = np.random.default_rng(seed).normal(0, scatter, len(shape))
    return (shape * np.exp(noise)).tolist()


def test_a_hard_style_that_has_not_finished_is_told_with_steps_to_try():
    course = np.geomspace(0.98, 0.30, 200)
    found = [still_falling(losses(course, seed)) for seed in range(50)]
    told = [each for each in found if each is not None]
    assert len(told) >= 45
    assert all(250 <= each.steps <= 400 for each in told)
    assert all(0.15 <= each.share < 0.7 for each in told)
    assert "train.steps: " in str(told[0])


@pytest.mark.parametrize("steps", [100, 200, 1000])
def test_a_loss_that_has_levelled_off_says_nothing(steps):
    course = 0.05 + 0.5 * np.exp(-np.arange(steps) / (steps / 15))
    told = [still_falling(losses(course, seed)) for seed in range(200)]
    assert sum(each is not None for each in told) <= 6


def test_short_runs_and_losses_that_are_missing_say_nothing():
    assert still_falling(np.geomspace(1, 0.1, 60).tolist()) is None
    assert still_falling([float("nan")] * 300) is None
    assert still_falling([]) is None
