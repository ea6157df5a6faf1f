"""How much memory a run will take, without loading a weight: one step on tensors without content.

The step is the real one: the family's own modules, adapter, autocast and attention, on fake
tensors, while every storage is counted from its first use to its release. What a fake step cannot
show is added: the optimizer's states, and what a processor's own libraries take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from customize.adapters import Attached, CrossAttentionKV, attach, learns_text
from customize.families import open_encoder, open_family
from customize.families.loading.parts import without_weights
from customize.shapes import Example
from customize.training.batches import Sample, stack
from customize.training.device import use_cpu_attention
from customize.training.loss import Goal, loss
from customize.training.memory.ledger import Ledger
from customize.training.memory.offload import offload
from customize.training.memory.quantize import quantizable, quantized_bytes
from customize.training.memory.workload import Load
from customize.training.optimizer import OptimizerName

CPU_FRAGMENTS, CPU_STEP_FRAGMENTS = 2.0, 0.75
"""What glibc keeps of freed blocks: so many times what a step with recomputed activations takes,
which is what comes and goes, or so many times the step as it is, whichever is more.

Handing blocks back at once (a low M_MMAP_THRESHOLD) took 24 % off a run's peak and doubled the time
of its steps. Measured, as the next, by benchmarks/estimator.py.
"""
CPU_LIBRARIES = 60 * 2**20
"""What oneDNN and other libraries take on a CPU besides tensors."""
SMALLEST_EIGHT_BIT = 4096
"""bitsandbytes keeps 32-bit states for tensors with fewer elements."""


@dataclass(frozen=True)
class Estimate:
    """Expected bytes: while encoding pictures, and while training by what they are for.

    `step` is what a step takes at its peak beyond weights and adapter: activations, gradients.
    """

    encoding: int
    weights: int
    adapter: int
    optimizer: int
    step: int
    libraries: int

    @property
    def encoding_peak(self) -> int:
        """While pictures and texts are encoded; nothing, once a run's cache holds them."""
        return self.encoding + self.libraries

    @property
    def training_peak(self) -> int:
        """While the adapter learns."""
        return self.weights + self.adapter + self.optimizer + self.step + self.libraries

    @property
    def peak(self) -> int:
        """The largest of both."""
        return max(self.encoding_peak, self.training_peak)


def estimate(load: Load) -> Estimate:
    """Run one encoding and one training step of `load` on fake tensors."""
    from torch._subclasses import FakeTensorMode

    as_tokens, on_cpu = learns_text(load.method, load.words), load.device == "cpu"
    with without_weights(), FakeTensorMode(), Ledger() as ledger:
        sample, text = _encoded(load, as_tokens=as_tokens)
        encoding, before = ledger.peak, ledger.now
        encoding_tables = ledger.take_tables()
        dtype = load.base.dtype(load.device)
        family: Any = open_family(load.base, dtype=dtype, learns_text=as_tokens)
        weights = ledger.now - before
        if load.quantization != "none":
            weights -= _saved_by_quantizing(family, load)
        with mock.patch.object(nn.Module, "to", _stay):
            if load.offload and not on_cpu:
                networks = (family.denoiser, *family.text_encoders.values())
                weights -= sum(offload(network, torch.device("cpu")) for network in networks)
            attached = attach(family, load.method, load.words)
        use_cpu_attention(family.denoiser, torch.device(load.device))
        if load.checkpointing:
            family.denoiser.enable_gradient_checkpointing()
        step = _step_bytes(ledger, family, attached, sample, text, load)
        if on_cpu:
            family.denoiser.enable_gradient_checkpointing()
            passing = _step_bytes(ledger, family, attached, sample, text, load)
            step += int(max(CPU_FRAGMENTS * passing, CPU_STEP_FRAGMENTS * step))
        tables = ledger.take_tables()
    return Estimate(
        # A CPU maps weights from their files; of a table of words it holds the rows in use alone.
        encoding=encoding - (encoding_tables if on_cpu else 0),
        weights=weights - (tables if on_cpu else 0),
        adapter=sum(4 * parameter.numel() for parameter in attached.tensors().values()),
        optimizer=optimizer_bytes(load.optimizer, attached),
        step=step,
        libraries=CPU_LIBRARIES if on_cpu else 0,
    )


def _step_bytes(
    ledger: Ledger,
    family: Any,
    attached: Attached,
    sample: Sample,
    text: Mapping[str, Tensor],
    load: Load,
) -> int:
    """Count what a step takes at its peak beyond what is held before and after it."""
    held = ledger.peak = ledger.now
    others = {key: value[None] for key, value in text.items()} if load.preserved_share else {}
    goal = Goal(text, others, preserved_share=load.preserved_share)
    with torch.autocast("cpu", torch.bfloat16, enabled=load.mixed != "no"):
        losses = loss(family, attached, stack([sample] * load.batch), goal, torch.Generator())
    losses.total.backward()
    for parameter in attached.tensors().values():
        parameter.grad = None
    return ledger.peak - held


def _encoded(load: Load, *, as_tokens: bool) -> tuple[Sample, Mapping[str, Tensor]]:
    """Encode a picture of the load's size, and the text of no instruction."""
    precision: Any = str(load.base.dtype(load.device)).removeprefix("torch.")
    base = replace(load.base, precision=precision)  # as on the device: large text encoders take it
    encoder = open_encoder(base, words=load.words, reads_text=not as_tokens)
    width, height = load.size
    picture_HWC = np.zeros((height, width, 3), np.uint8)
    encoded = encoder.encode(Example(picture_HWC, picture_HWC, "a"), as_tokens=as_tokens)
    return Sample(encoded, encoded), encoder.text("", as_tokens=as_tokens)


def _saved_by_quantizing(family: Any, load: Load) -> int:
    """Count what quantized weights save: fake tensors know nothing of bitsandbytes' layers."""
    assert load.quantization != "none"
    in_full = isinstance(load.method, CrossAttentionKV)
    found = quantizable(family.denoiser, family.profile.layers, keep_text_kv=in_full)
    layers = found.values()
    before = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    return before - sum(quantized_bytes(layer, load.quantization) for layer in layers)


def _stay(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
    """Leave a module where it is: peft moves what it made, which fake parameters cannot do."""
    return module


def optimizer_bytes(name: OptimizerName, attached: Attached) -> int:
    """Count an optimizer's states; 8-bit ones add a float32 scale for every 256 elements."""
    states, total = {"lion8bit": 1, "prodigy": 4}.get(name, 2), 0
    for parameter in attached.tensors().values():
        count = parameter.numel()
        small = name in ("adamw", "prodigy") or count < SMALLEST_EIGHT_BIT
        total += states * (4 * count if small else count + 4 * math.ceil(count / 256))
    return total
