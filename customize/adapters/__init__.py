"""Put a small trainable adapter on a frozen family, and everything training does with it.

`attach` changes the family's modules in place but never a base weight: each method adds tensors
beside them that a context manager switches off exactly. What is learned leaves as named tensors,
the content of the adapter file:

    denoiser.<module path>.delta                         full weight change of a layer
    denoiser.<module path>.lora_A | lora_B | magnitude   low-rank factors (and DoRA's row norms)
    text_encoder.<module path>.lora_A | ...              the same on the text encoder, its path
                                                         without `text_model.`
    words.text_encoder.<word>                            embedding rows (vectors, D) of a word
    text_encoder_N. ... | words.text_encoder_N. ...      the same of a base's further text encoders
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, assert_never

if TYPE_CHECKING:
    from torch import Tensor, nn

    from customize.families import Family
    from customize.families.words import Word


@dataclass(frozen=True)
class CrossAttentionKV:
    """Learn full changes of all text-reading key and value layers (arXiv 2212.04488)."""


@dataclass(frozen=True)
class LowRank:
    """Learn LoRA (arXiv 2106.09685) or, with `decompose`, DoRA (arXiv 2402.09353).

    `targets` among attention, cross_attention, convolutions, feed_forward and all.
    `text_encoder_rank` 0 leaves the text encoder alone; above, its attention learns at that rank
    and the same alpha / rank.
    """

    rank: int = 8
    alpha: float | None = None
    decompose: bool = False
    targets: tuple[str, ...] = ("attention",)
    text_encoder_rank: int = 0

    @property
    def scale(self) -> float:
        """What multiplies B A: alpha / rank, 1 when no alpha is given."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


Method = CrossAttentionKV | LowRank


class Part(Protocol):
    """One component's share of an adapter: its trainable tensors by file name, and a switch."""

    def tensors(self) -> Mapping[str, nn.Parameter]:
        """Return the live trainable tensors under their names in the file, in a stable order."""
        ...

    def movement(self) -> float:
        """Return the norm of what was learned so far; exactly 0 just after attaching."""
        ...

    def switched_off(self) -> AbstractContextManager[None]:
        """Give the base's own output while inside, bit for bit."""
        ...


@dataclass(frozen=True)
class Attached:
    """An adapter sitting on a family's modules: what learns, its switch and its state.

    `method` is None where no adapter but the denoiser itself learns (`fitting`).

    All trainable tensors are float32 whatever the base's precision, and keep their identity under
    wrapping, compiling and `load`, so an optimizer made from them stays valid.
    """

    method: Method | None
    words: tuple[Word, ...]
    adapter_parts: tuple[Part, ...]
    word_parts: tuple[Part, ...]

    @property
    def learns_text(self) -> bool:
        """Whether cached conditions must hold token ids, text being encoded at every step."""
        return learns_text(self.method, self.words)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Return the weights' parameters (the optimizer's first group)."""
        return [p for part in self.adapter_parts for p in part.tensors().values()]

    def word_parameters(self) -> list[nn.Parameter]:
        """Return the words' embedding rows (a group apart: they learn at a rate of their own)."""
        return [p for part in self.word_parts for p in part.tensors().values()]

    def tensors(self) -> dict[str, nn.Parameter]:
        """Return every live trainable tensor under its name in the adapter file."""
        parts = (*self.adapter_parts, *self.word_parts)
        return {name: p for part in parts for name, p in part.tensors().items()}

    def state(self) -> dict[str, Tensor]:
        """Copy every trainable tensor to the CPU: the content of adapter file and checkpoint."""
        return {name: p.detach().cpu().clone() for name, p in self.tensors().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy `state` into the live tensors; names and shapes must be those of `state()`."""
        import torch

        tensors = self.tensors()
        assert tensors.keys() == state.keys(), sorted(tensors.keys() ^ state.keys())
        with torch.no_grad():
            for name, parameter in tensors.items():
                assert parameter.shape == state[name].shape, name
                parameter.copy_(state[name])

    def movement(self) -> Movement:
        """Measure how far the adapter and the words are from where they started."""
        return Movement(
            adapter=_norm(part.movement() for part in self.adapter_parts),
            words=_norm(part.movement() for part in self.word_parts),
        )

    @contextmanager
    def holding(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Predict with `state` instead of what is being learned while inside."""
        live = self.state()
        self.load(state)
        try:
            yield
        finally:
            self.load(live)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Give the frozen base's own prediction while inside; meant for `torch.no_grad()`."""
        with ExitStack() as stack:
            for part in (*self.adapter_parts, *self.word_parts):
                stack.enter_context(part.switched_off())
            yield


@dataclass(frozen=True)
class Movement:
    """Norms of what was learned; 0.0 means that nothing moved at all."""

    adapter: float
    words: float


def learns_text(method: Method | None, words: Sequence[Word]) -> bool:
    """Tell whether a run must encode text at every step: words or the text encoder itself learn."""
    return bool(words) or (isinstance(method, LowRank) and method.text_encoder_rank > 0)


def attach(
    family: Family, method: Method, words: Sequence[Word] = (), *, seed: int = 0
) -> Attached:
    """Add `method`'s trainable tensors and the words' rows to the family's modules, in place.

    The prediction is unchanged until something is learned, except for the new words' own start.
    Attach before wrapping the denoiser. `seed` alone decides every random start. The family must
    have been opened with `learns_text` when `learns_text(method, words)`. Raises BaseModelError
    when the base has no layer to teach.
    """
    from customize.adapters import concept_tokens, cross_attention_kv, low_rank

    match method:
        case CrossAttentionKV():
            parts: Sequence[Part] = [cross_attention_kv.attach(family)]
        case LowRank():
            parts = low_rank.attach(family, method, seed)
        case _:
            assert_never(method)
    if not words:
        return Attached(method, (), tuple(parts), ())
    assert family.text_encoders, "open the family with learns_text=True to learn words"
    readers = zip(family.text_encoders.items(), family.tokenizers.values(), strict=True)
    rows = [
        concept_tokens.attach(name, encoder, tokenizer, words, seed)
        for (name, encoder), tokenizer in readers
    ]
    return Attached(method, tuple(words), tuple(parts), tuple(rows))


def _norm(norms: Iterator[float]) -> float:
    return sum(norm**2 for norm in norms) ** 0.5
