"""The objective equals diffusers' schedulers, and its weights their papers' formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerAncestralDiscreteScheduler

from customize.families.flow_matching import FlowMatching
from customize.families.objective import LEAST_SIGNAL, Objective

LEVELS_B = torch.tensor([0, 1, 250, 700, 999])


def _latents() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 4, 3, 3, generator=generator)
    return clean, noise


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_corruption_and_velocity_equal_diffusers(schedule: str, zero_snr: bool) -> None:
    scheduler: Any = DDIMScheduler(
        beta_schedule=schedule, rescale_betas_zero_snr=zero_snr, prediction_type="v_prediction"
    )
    objective = Objective.from_config(scheduler.config)
    clean, noise = _latents()
    expected = scheduler.add_noise(clean, noise, LEVELS_B)
    torch.testing.assert_close(objective.corrupt(clean, noise, LEVELS_B), expected)
    reference: Any = DDPMScheduler.from_config(scheduler.config)
    velocity = reference.get_velocity(clean, noise, LEVELS_B)
    torch.testing.assert_close(objective.target(clean, noise, LEVELS_B), velocity)
    assert (float(objective.alphas_T[-1]) == 0) is zero_snr


def test_noise_is_the_target_of_other_samplers_bases() -> None:
    scheduler = EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear")
    objective = Objective.from_config(scheduler.config)
    clean, noise = _latents()
    assert objective.target(clean, noise, LEVELS_B) is noise
    torch.testing.assert_close(objective.alphas_T, scheduler.alphas_cumprod)


def test_corruption_keeps_half_precision() -> None:
    clean, noise = (x.bfloat16() for x in _latents())
    objective = Objective.from_config({})
    assert objective.corrupt(clean, noise, LEVELS_B).dtype is torch.bfloat16


def test_other_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        Objective.from_config({"prediction_type": "sample"})


def test_levels_come_from_the_generator_and_cover_the_schedule() -> None:
    objective = Objective.from_config({"num_train_timesteps": 7})
    first, again = (
        objective.sample_levels((400, 4, 8, 8), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.unique().tolist() == list(range(7))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights(prediction: str) -> None:
    objective = Objective.from_config(
        {"prediction_type": prediction, "rescale_betas_zero_snr": True}
    )
    weight_B = objective.min_snr_weight(LEVELS_B, 5.0)
    assert weight_B.isfinite().all()
    alpha = float(objective.alphas_T[250])
    snr = alpha / (1 - alpha)
    expected = min(snr, 5.0) / (snr if prediction == "epsilon" else snr + 1)
    assert float(weight_B[2]) == pytest.approx(expected)
    assert float(weight_B[-1]) == (1.0 if prediction == "epsilon" else 0.0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_tells_the_clean_latents(prediction: str) -> None:
    config = {"beta_schedule": "scaled_linear", "prediction_type": prediction}
    objective = Objective.from_config(config)
    clean, noise = _latents()
    noisy = objective.corrupt(clean, noise, LEVELS_B)
    predicted = objective.target(clean, noise, LEVELS_B)
    torch.testing.assert_close(
        objective.clean(noisy, predicted, LEVELS_B), clean, atol=1e-4, rtol=1e-4
    )


def test_edits_are_guessed_from_the_noisiest_level_that_tells_them() -> None:
    """From the last level of a noise-predicting base a small error would be ten times as large."""
    of = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}
    by_v = Objective.from_config(of | {"prediction_type": "v_prediction"})
    assert by_v.guess_levels(3).tolist() == [999] * 3
    by_noise = Objective.from_config(of | {"prediction_type": "epsilon"})
    (level,) = by_noise.guess_levels(1).tolist()
    assert by_noise.alphas_T[level] >= LEAST_SIGNAL > by_noise.alphas_T[level + 1]
    flow, (clean, noise) = FlowMatching(), _latents()
    top = flow.guess_levels(len(clean))
    noisy = flow.corrupt(clean, noise, top)
    torch.testing.assert_close(noisy, noise)
    torch.testing.assert_close(flow.clean(noisy, flow.target(clean, noise, top), top), clean)
