"""What every base model family offers to the rest, and the one place that chooses between families.

Three doors open a base resolved by `base.resolve_base`: the `Encoder` (pixels and text to latents,
freed before training), the `Family` (the denoiser and all that training knows of it) and diffusers'
own pipeline for editing. A condition's shape and meaning is known in the family's file only;
elsewhere conditions are stacked, moved and passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, assert_never

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from customize.families.base import Base, FamilyName
    from customize.families.objective import Objective
    from customize.families.words import Word
    from customize.shapes import Conditions, Encoded, Example


@dataclass(frozen=True)
class Dropout:
    """How often training hides a condition; the shares exclude one another and sum to at most 1."""

    text: float = 0.05
    both: float = 0.05
    image: float = 0.05


class Encoder(Protocol):
    """Turn examples into what the denoiser reads; used by caching alone, then freed."""

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
    def objective(self) -> Objective:
        """Noise levels, corruption and target of this base."""
        ...

    @property
    def kv_pattern(self) -> str:
        """The regular expression that names of text-reading key and value layers match in full."""
        ...

    @property
    def text_pattern(self) -> str:
        """The same for the attention layers of all text encoders, `text_encoder.<path>` each."""
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
    """What the file of each family defines: the doors below, for bases of its own."""

    PIPELINE: str

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


def pipeline_name(family: FamilyName) -> str:
    """Name the class of diffusers' own editing pipeline, as `model_index.json` does."""
    return _file_of(family).PIPELINE


def _file_of(family: FamilyName) -> _FamilyFile:
    match family:
        case "instruct_pix2pix":
            from customize.families.stable_diffusion import instruct_pix2pix

            return instruct_pix2pix
        case "instruct_pix2pix_xl":
            from customize.families.stable_diffusion import instruct_pix2pix_xl

            return instruct_pix2pix_xl
        case _:
            assert_never(family)
