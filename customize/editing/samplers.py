"""Samplers by the short names people know; each is a class of diffusers."""

from __future__ import annotations

from typing import Any

from customize.errors import EditError
from customize.families.profile import Profile

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpmpp_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Only classes that know `rescale_betas_zero_snr`: others would drop it in silence, and a base
fitted with it would get the wrong noise levels from them."""


def scheduler_for(name: str | None, own: Any, profile: Profile) -> Any:
    """Return the sampler called `name`, set up as `own`, the base's; None means the base's itself.

    Raises EditError for a name that is unknown, or that bases of this `profile` cannot use.
    """
    import diffusers

    if name is None:
        return type(own).from_config(own.config)
    if name not in profile.samplers:
        expected = f"one of {', '.join(profile.samplers)}" if profile.samplers else "the base's own"
        raise EditError(
            f"scheduler {name!r}: unknown; expected {expected}; leave it out for the base's own"
        )
    class_name, options = CLASSES[name]
    # Latents exceed 1, and clipping is what these classes do when the base's config is silent.
    if "clip_sample" not in own.config:
        options = {**options, "clip_sample": False}
    return getattr(diffusers, class_name).from_config(own.config, **options)
