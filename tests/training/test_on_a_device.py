"""Steps on a device that is not the CPU: nothing stays behind, and one thing is waited for.

`meta` stands for the GPU: its tensors refuse to meet those of the CPU, and have no values to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_base, toy_example, toy_xl_base
from torch.utils._python_dispatch import TorchDispatchMode

from customize.adapters import CrossAttentionKV, LowRank, Method, attach, learns_text
from customize.families import open_encoder, open_family
from customize.families.base import resolve_base
from customize.families.words import Word
from customize.training.batches import Sample, batches
from customize.training.device import open_accelerator
from customize.training.loss import Goal
from customize.training.optimizer import Average, Pace
from customize.training.steps import train_steps

WORDS = (Word("<my-dog>", "dog", 2),)
EVERYWHERE = ("attention", "convolutions", "feed_forward")
LEARNED: dict[str, tuple[Method, tuple[Word, ...]]] = {
    "K/V and a word": (CrossAttentionKV(), WORDS),
    "K/V": (CrossAttentionKV(), ()),
    "LoRA with text": (LowRank(rank=2, targets=EVERYWHERE, text_encoder_rank=2), ()),
}


class Copies(TorchDispatchMode):
    """Notes every copy to the device for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            places = args[0].device.type, torch.device(given.get("device") or args[0].device).type
            if places == ("cpu", "meta") and not given.get("non_blocking"):
                self.waited.append(tuple(args[0].shape))
        return func(*args, **given)


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("make", [toy_base, toy_xl_base], ids=["SD 1.5", "SDXL"])
def test_a_step_stays_on_its_device_and_waits_for_its_figures_alone(
    make: Callable[[Path], Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, words = LEARNED[kind]
    base = resolve_base(str(make(tmp_path)))
    as_tokens = learns_text(method, words)
    encoder = open_encoder(base, words=words)
    encoded = encoder.encode(toy_example(), as_tokens=as_tokens)
    empty = {k: v.to("meta") for k, v in encoder.text("", as_tokens=as_tokens).items()}
    family = open_family(base, device="meta", dtype=torch.float32, learns_text=as_tokens)
    attached = attach(family, method, words)
    assert {p.device.type for p in attached.tensors().values()} == {"meta"}
    others = {key: value[None] for key, value in empty.items()}
    asked: list[Any] = []

    def figures(_: Any, seen: Any, norm: Any) -> list[float]:
        asked.append((seen[0].total.device.type, norm.device.type))
        return [0.0] * 4

    # the one place that asks for values
    monkeypatch.setattr("customize.training.steps._figures", figures)
    count, parts = (1, 2) if kind == "K/V" else (2, 1)
    steps = train_steps(
        family,
        attached,
        batches([Sample(encoded, encoded)], 4, seed=0, device="meta"),
        Goal(empty, others, preserved_share=0.5, min_snr=5.0),
        torch.optim.SGD([{"params": [*attached.tensors().values()], "lr": 1.0, "full_lr": 1.0}]),
        Pace(count, accumulation=parts, clip_norm=1.0),
        open_accelerator("no"),
        seed=0,
        average=Average(attached, 0.9),
    )
    with Copies() as copies:
        assert len(list(steps)) == count
    assert asked == [("meta", "meta")] * count
    assert not copies.waited
