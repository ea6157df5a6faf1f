"""The memory estimate knows FLUX.2 klein: weights, adapter, and what autograd keeps of a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders.bases import toy_example
from builders.klein import resolved_klein
from builders.saved_tensors import saved_bytes

from customize.adapters import LowRank, attach
from customize.families import open_encoder, open_family
from customize.training.memory.estimate import estimate
from customize.training.memory.workload import Load


def test_a_step_is_estimated_as_it_really_is(tmp_path: Path) -> None:
    base = replace(resolved_klein(tmp_path), precision="float32")
    method = LowRank(rank=2, targets=("all",))
    load = Load(base, method, size=(64, 64), batch=2, device="cuda")
    found = estimate(load)
    family = open_family(base)
    frozen = list(family.denoiser.parameters())
    assert found.weights == pytest.approx(sum(p.nbytes for p in frozen), rel=0.02)
    attached = attach(family, method)
    assert found.adapter == sum(4 * p.numel() for p in attached.adapter_parameters())

    saved = saved_bytes(family, attached, open_encoder(base), toy_example(size=64), load.batch)
    assert saved < found.step < 1.6 * saved
    assert estimate(replace(load, checkpointing=True)).step < 0.8 * found.step
    half = estimate(replace(load, base=replace(base, precision="bfloat16")))
    assert half.weights == pytest.approx(found.weights / 2, rel=0.02)
    assert half.encoding < found.encoding  # the language model is in the base's precision
