"""What every base model family offers to the rest, and the one place that chooses between families.

Three doors open a base resolved by `base.resolve_base`: the `Encoder` (pixels and text to latents,
freed before training), the `Family` (the denoiser and all that training knows of it) and diffusers'
own pipeline for editing. What can be known of a family without opening a base is its `Profile`. A
condition's shape and meaning is known in the family's file only; elsewhere conditions are stacked,
moved and passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, assert_never, get_args

from customize.errors import BaseModelError
from customize.families.identify import FamilyName

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from customize.families.base import Base
    from customize.families.flow_matching import FlowMatching
    from customize.families.objective import Objective
    from customize.families.profile import Profile
    from customize.families.sampling_defaults import Sampling
    from customize.families.words import Word
    from customize.shapes import Conditions, Encoded, Example


@dataclass(frozen=True)
class Dropout:
    """How often training hides a condition; the shares exclude one another and sum to at most 1."""

    text: float = 0.05
    both: float = 0.05
    image: float = 0.05


class Encoder(Protocol):
    """Turn examples into what the denoiser reads; used by caching alone, then freed.

    A frozen dataclass, so that `replace(encoder, tokenizers=others)` works.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def text_encoders(self) -> Mapping[str, Any]:
        """The text encoders by diffusers' names; empty where every text is encoded as tokens."""
        ...

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        """Their tokenizers by diffusers' names, in the same order."""
        ...

    def encode(self, example: Example, *, as_tokens: bool) -> Encoded:
        """Encode both pictures and the instruction; CPU float32 tensors without a batch axis."""
        ...

    def text(self, instruction: str, *, as_tokens: bool) -> Mapping[str, Tensor]:
        """Encode an instruction alone, "" for none; its keys replace an example's own.

        With `as_tokens` the result is token ids, for runs that learn words or the text encoder
        itself.
        """
        ...


class Family(Protocol):
    """All that training knows of a base.

    A frozen dataclass, so that `replace(family, denoiser=prepared)` works. Replace `text_encoders`
    likewise when they learn (words or low-rank text encoders) under several processes.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def denoiser(self) -> nn.Module:
        """The frozen network that adapters attach to."""
        ...

    @property
    def objective(self) -> Objective | FlowMatching:
        """Noise levels, corruption and target of this base."""
        ...

    @property
    def profile(self) -> Profile:
        """What is known of the family's bases without opening one."""
        ...

    @property
    def text_pattern(self) -> str:
        """The regular expression that the attention layers of text encoders match in full.

        Each is named `<text encoder>.<path>`.
        """
        ...

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """The frozen text encoders by diffusers' names; empty unless opened with `learns_text`."""
        ...

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        """Their tokenizers by diffusers' names, in the same order."""
        ...

    def predict(self, noisy_BChw: Tensor, level_B: Tensor, conditions: Conditions) -> Tensor:
        """Predict the objective's target, (B, C, h, w) float32; autocast goes around this."""
        ...

    def drop(
        self,
        conditions: Conditions,
        empty_text: Mapping[str, Tensor],
        uniform_B: Tensor,
        dropout: Dropout,
    ) -> Conditions:
        """Hide text, source or both where `uniform_B` (in [0, 1)) falls in their share.

        `empty_text` is the encoder's `text("")`, without a batch axis, on the conditions' device.
        """
        ...


class _FamilyFile(Protocol):
    """What the file of each family defines: its profile, and the doors below for its own bases."""

    def open_family(
        self, base: Base, device: torch.device | str, dtype: torch.dtype | None, learns_text: bool
    ) -> Family: ...

    def open_encoder(
        self, base: Base, device: torch.device | str, words: Sequence[Word], reads_text: bool
    ) -> Encoder: ...

    def open_pipeline(
        self,
        base: Base,
        device: torch.device | str,
        dtype: torch.dtype | None,
        denoiser: nn.Module | None,
    ) -> Any: ...

    def pipeline_arguments(
        self,
        pipeline: Any,
        sources: Sequence[Image.Image],
        instructions: Sequence[str],
        negatives: Sequence[str] | None,
        sampling: Sampling,
    ) -> Mapping[str, Any]: ...


def open_family(
    base: Base,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    learns_text: bool = False,
) -> Family:
    """Load the frozen denoiser, and the text encoders when words or they themselves are to learn.

    `dtype` None takes what the base's precision means on `device`. Raises BaseModelError.
    """
    return _file_of(base.family).open_family(base, device, dtype, learns_text)


def open_encoder(
    base: Base,
    *,
    device: torch.device | str = "cpu",
    words: Sequence[Word] = (),
    reads_text: bool = True,
) -> Encoder:
    """Load VAE and text encoders in float32, with the concepts' words known to the tokenizers.

    Without `reads_text` the text encoders stay where they are: every text is encoded as tokens.
    """
    return _file_of(base.family).open_encoder(base, device, words, reads_text)


def open_pipeline(
    base: Base,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    denoiser: nn.Module | None = None,
) -> Any:
    """Load diffusers' own editing pipeline of this base, around `denoiser` where one is open."""
    return _file_of(base.family).open_pipeline(base, device, dtype, denoiser)


def pipeline_arguments(
    pipeline: Any,
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    negatives: Sequence[str] | None,
    sampling: Sampling,
) -> Mapping[str, Any]:
    """Ask for edits of pictures of one size in the words of diffusers' pipeline.

    `negatives` say what pictures shall not show; None leaves that to the pipeline.
    """
    asked = sources, instructions, negatives, sampling
    return _file_of(family_of_pipeline(pipeline)).pipeline_arguments(pipeline, *asked)


def profile_of(family: FamilyName) -> Profile:
    """Return what is known of a family's bases; loads no torch."""
    match family:
        case "instruct_pix2pix":
            from customize.families.stable_diffusion.profiles import SD1

            return SD1
        case "instruct_pix2pix_xl":
            from customize.families.stable_diffusion.profiles import SDXL

            return SDXL
        case "flux2_klein":
            from customize.families.flux2.profiles import KLEIN

            return KLEIN
        case _:
            assert_never(family)


def profiles() -> list[Profile]:
    """Return the profile of every family."""
    return [profile_of(family) for family in get_args(FamilyName)]


def family_of_pipeline(pipeline: Any) -> FamilyName:
    """Tell a pipeline's family by its class; raises BaseModelError for one of no family."""
    kinds = [kind.__name__ for kind in type(pipeline).__mro__]
    for family in get_args(FamilyName):
        if profile_of(family).pipeline in kinds:
            return family
    known = ", ".join(profile.pipeline for profile in profiles())
    raise BaseModelError(
        f"a pipeline of the class {kinds[0]}: it is none that edits here; expected {known}",
        "open a base with `customize.families.open_pipeline`",
    )


def denoiser_of(pipeline: Any) -> Any:
    """Return the network of a pipeline that removes noise; raises as `family_of_pipeline`."""
    return getattr(pipeline, profile_of(family_of_pipeline(pipeline)).denoiser)


def _file_of(family: FamilyName) -> _FamilyFile:
    match family:
        case "instruct_pix2pix":
            from customize.families.stable_diffusion import instruct_pix2pix

            return instruct_pix2pix
        case "instruct_pix2pix_xl":
            from customize.families.stable_diffusion import instruct_pix2pix_xl

            return instruct_pix2pix_xl
        case "flux2_klein":
            from customize.families.flux2 import flux2_klein

            return flux2_klein
        case _:
            assert_never(family)
