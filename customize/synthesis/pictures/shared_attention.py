"""Prompt-to-Prompt: the second picture of a pair attends as the first does, for some of the steps.

A batch holds pairs side by side: rows 0 and 1 are the first pair, 2 and 3 the second, and so on;
with guidance the whole batch comes twice, without text and with it. `self` is what
InstructPix2Pix's code shares (Brooks et al. 2023), `cross` what the paper does (Hertz et al. 2022,
arXiv 2208.01626).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor

from customize.synthesis.pictures.alignment import Alignment
from customize.synthesis.pictures.local_blend import SeenMaps

SELF, CROSS = "attn1", "attn2"
"""How diffusers names the attention of a picture on itself and on the text."""


@dataclass(frozen=True)
class Sharing:
    """How one pair shares: `self_until` and `cross_until` are shares of the steps, 0 to 1.

    `alignment` is needed where `cross_until` is above 0 or the pair is blended.
    """

    self_until: float = 0.0
    cross_until: float = 0.0
    alignment: Alignment | None = None


class Steps:
    """Which step of how many a pipeline is at, counted by the calls of its UNet."""

    def __init__(self, pipeline: Any) -> None:
        """Begin before the first step."""
        self._pipeline, self.done = pipeline, -1

    @property
    def fraction(self) -> float:
        """Return the current step's place: 0 for the first one, always below 1."""
        return self.done / self._pipeline.num_timesteps

    def count(self, *_: Any) -> None:
        """Note that the UNet is called."""
        self.done += 1


@contextmanager
def sharing_attention(
    pipeline: Any, pairs: Sequence[Sharing], maps: SeenMaps | None = None
) -> Iterator[Steps]:
    """Let each pair of a pipeline's next call share attention; afterwards all is as before.

    The processors are diffusers' own. `maps` is shown the attention on the text.
    """
    steps = Steps(pipeline)
    reads_text = maps is not None or any(pair.cross_until > 0 for pair in pairs)
    with ExitStack() as undo:
        undo.callback(pipeline.unet.register_forward_pre_hook(steps.count).remove)
        for name, layer in _attention_layers(pipeline.unet):
            if name.endswith(SELF):
                share = _share_queries_and_keys(pairs, steps)
                queries_and_keys: tuple[Any, ...] = (layer.to_q, layer.to_k)
                for part in queries_and_keys:
                    undo.callback(part.register_forward_hook(share).remove)
            elif reads_text:
                undo.callback(layer.set_processor, layer.processor)
                layer.set_processor(AttnProcessor())  # the one that forms maps
                undo.callback(delattr, layer, "get_attention_scores")
                layer.get_attention_scores = _edited_maps(layer, pairs, steps, maps)
        yield steps


def _attention_layers(unet: Any) -> list[tuple[str, Attention]]:
    found = [(n, m) for n, m in unet.named_modules() if isinstance(m, Attention)]
    layers = [(name, layer) for name, layer in found if name.endswith((SELF, CROSS))]
    assert layers, "a UNet without attention layers named as diffusers does"
    return layers


def _share_queries_and_keys(
    pairs: Sequence[Sharing], steps: Steps
) -> Callable[[Any, Any, Tensor], Tensor]:
    """Give the second picture the first's queries and keys: so its map is the first's, exactly."""

    def hook(_: Any, __: Any, output_BLD: Tensor) -> Tensor:
        active = [n for n, pair in enumerate(pairs) if steps.fraction < pair.self_until]
        if not active:
            return output_BLD
        shared = output_BLD.unflatten(0, (-1, len(pairs), 2)).clone()
        shared[:, active, 1] = shared[:, active, 0]
        return shared.flatten(0, 2)

    return hook


def _edited_maps(
    layer: Attention, pairs: Sequence[Sharing], steps: Steps, maps: SeenMaps | None
) -> Callable[..., Tensor]:
    """Replace the second picture's attention on the text by what the first's tokens carry over.

    M = first carried_LM a + second (1 - a), with a = 1 for tokens that have a partner (equations of
    word swap and of adding a phrase in one).
    """
    plain = layer.get_attention_scores

    def scores(query: Tensor, key: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        probabilities = plain(query, key, attention_mask)
        rows = probabilities.unflatten(0, (-1, layer.heads))
        halves = rows.unflatten(0, (-1, len(pairs), 2))
        active = [n for n, pair in enumerate(pairs) if steps.fraction < pair.cross_until]
        if active:
            halves = halves.clone()
            for n in active:
                alignment = pairs[n].alignment
                assert alignment is not None, "shared attention on texts that are not aligned"
                carried, aligned = (
                    t.to(halves) for t in (alignment.carried_LM, alignment.aligned_M)
                )
                first, second = halves[-1, n, 0], halves[-1, n, 1]
                halves[-1, n, 1] = (first @ carried) * aligned + second * (1 - aligned)
        if maps is not None:
            maps.see(halves[-1])
        return halves.flatten(0, 3)

    return scores


@contextmanager
def guiding_each(unet: Any, guidances: Sequence[float]) -> Iterator[float]:
    """Guide each pair of the batch by a strength of its own; yields what to tell the pipeline.

    A pipeline takes one strength g for its whole batch, e = u + g (c - u); c is scaled so that
    e = u + s (c - u) for the pair's own s.
    """
    most = max(guidances)

    def hook(_: Any, __: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if most <= 1 or min(guidances) == most:
            return None
        plain, told = output[0].chunk(2)
        share = torch.tensor([s / most for s in guidances for _ in range(2)]).to(told)
        return (torch.cat((plain, plain + share.view(-1, 1, 1, 1) * (told - plain))), *output[1:])

    handle = unet.register_forward_hook(hook)
    try:
        yield most
    finally:
        handle.remove()
