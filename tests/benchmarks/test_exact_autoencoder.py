"""The autoencoder set by hand gives mosaics back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch


def test_mosaics_come_back_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from drawn_squares import COLORS, drawn, latents  # type: ignore[import-not-found]
    from exact_autoencoder import exact_autoencoder  # type: ignore[import-not-found]

    from customize.families.flux2.packing import normalized, patched

    vae, left = exact_autoencoder(), np.array(COLORS["red"])
    picture_HWC = drawn(np.random.default_rng(0)).picture(left)
    pixels_BCHW = torch.from_numpy(picture_HWC).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latents_BChw = vae.encode(pixels_BCHW).latent_dist.mode()
        back_BCHW = vae.decode(latents_BChw, return_dict=False)[0]
    assert (back_BCHW - pixels_BCHW).abs().max() < 0.5 / 127.5
    told_BChw = normalized(vae, patched(latents_BChw))
    torch.testing.assert_close(told_BChw, latents([picture_HWC]), atol=1e-3, rtol=0)
