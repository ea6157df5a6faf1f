"""The memory estimate: what a real step holds, counted on the same step without content."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from builders.bases import toy_base, toy_example, toy_resolved, toy_xl_base
from builders.runs import toy_recipe
from builders.saved_tensors import saved_bytes

from customize.adapters import CrossAttentionKV, LowRank, attach
from customize.errors import RecipeError
from customize.families import open_encoder, open_family
from customize.families.base import Base, resolve_base
from customize.families.words import Word
from customize.training.cpu_attention import CpuAttention
from customize.training.memory import advice
from customize.training.memory.advice import advise, smaller_settings, smallest_change
from customize.training.memory.card import card_bytes
from customize.training.memory.estimate import CPU_LIBRARIES, Estimate, optimizer_bytes
from customize.training.memory.estimate import estimate as estimate_anew
from customize.training.memory.workload import Load, load_of
from customize.training.optimizer import make_optimizer
from customize.training.plan import plan_run

estimate = cache(estimate_anew)
"""An estimate takes seconds, and many tests ask for the same ones."""


@pytest.fixture(autouse=True)
def _advice_by_the_same_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "estimate", estimate)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return replace(toy_resolved(tmp_path_factory.mktemp("base")), precision="float32")


@pytest.fixture(scope="module")
def load(base: Base) -> Load:
    """Load what a GPU would: tensors alone."""
    return Load(
        *(base, LowRank(rank=2)), size=(32, 32), batch=4, preserved_share=0.3, optimizer="adamw",
        device="cuda",
    )  # fmt: skip


def test_weights_adapter_and_optimizer_are_counted_exactly(base: Base, load: Load) -> None:
    found = estimate(load)
    family = open_family(base)
    weights = sum(p.numel() * p.element_size() for p in family.denoiser.parameters())
    assert found.weights == pytest.approx(weights, rel=0.02)  # the schedule is there too
    attached = attach(family, load.method)
    learned = [*attached.adapter_parameters()]
    assert found.adapter == sum(4 * parameter.numel() for parameter in learned)
    optimizer = make_optimizer("adamw", attached, learning_rate=1e-3)
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    states = [s for state in optimizer.state.values() for s in state.values() if s.dim()]
    assert found.optimizer == sum(4 * state.numel() for state in states)


def test_eight_bits_take_a_quarter_of_what_is_large(base: Base) -> None:
    """Toy layers are smaller than bitsandbytes' least: full precision; large ranks are not."""
    small, large = (attach(open_family(base), LowRank(rank=rank)) for rank in (2, 256))
    assert optimizer_bytes("adamw8bit", small) == optimizer_bytes("adamw", small)
    assert optimizer_bytes("adamw8bit", large) < 0.8 * optimizer_bytes("adamw", large)


def test_a_step_grows_with_the_batch_and_shrinks_by_recomputing(load: Load) -> None:
    small, large = (estimate(replace(load, batch=batch)).step for batch in (4, 8))
    assert 1.75 < large / small < 2.1
    assert estimate(replace(load, batch=8, checkpointing=True)).step < 0.8 * large


def test_a_steps_saved_tensors_are_what_autograd_really_keeps(base: Base, load: Load) -> None:
    """At least what autograd saves of the real step must be in the estimate, and not twice that."""
    family = open_family(base)
    attached = attach(family, load.method)
    family.denoiser.set_attn_processor(CpuAttention())  # pyright: ignore
    saved = saved_bytes(family, attached, open_encoder(base), toy_example(), load.batch)
    assert saved < estimate(load).step < 1.6 * saved


@pytest.mark.parametrize("kind", ["words", "text encoder", "SDXL"])
def test_every_kind_of_run_is_estimated(kind: str, base: Base, load: Load, tmp_path: Path) -> None:
    match kind:
        case "words":
            changed = replace(load, method=CrossAttentionKV(), words=(Word("<my-dog>", "dog"),))
        case "text encoder":
            changed = replace(load, method=LowRank(rank=2, text_encoder_rank=2))
        case _:
            larger = resolve_base(str(toy_xl_base(tmp_path / "xl")))
            changed = replace(load, base=replace(larger, precision="float32"))
    found, plain = estimate(changed), estimate(load)
    assert found.weights > plain.weights
    assert found.peak >= found.training_peak > found.weights
    # Words are cached as tokens, so that encoding them needs no text encoder.
    assert (found.encoding < plain.encoding) == (kind in ("words", "text encoder"))


def test_a_cpu_adds_what_its_allocator_keeps_and_leaves_out_unread_words(load: Load) -> None:
    words = replace(load, method=CrossAttentionKV(), words=(Word("<my-dog>", "dog"),))
    gpu, cpu = estimate(words), estimate(replace(words, device="cpu"))
    assert cpu.weights < gpu.weights
    assert estimate(replace(load, device="cpu")).encoding < estimate(load).encoding
    assert cpu.step > gpu.step
    assert (cpu.libraries, gpu.libraries) == (CPU_LIBRARIES, 0)


def test_a_plan_says_what_it_loads(tmp_path: Path) -> None:
    train = {"batch": 2, "gradient_checkpointing": True, "precision": "bf16"}
    plan = plan_run(toy_recipe(tmp_path, train=train), lambda _: None)
    load = load_of(plan, "cpu")
    assert (load.batch, load.checkpointing, load.mixed, load.size) == (2, True, "bf16", (32, 32))
    assert [word.text for word in load.words] == ["<my-dog>"]


@pytest.mark.parametrize(
    ("wanted", "mixed", "weights"),
    [("auto", "bf16", 2), ("bf16", "bf16", 2), ("fp16", "fp16", 2), ("no", "no", 4)],
)
def test_a_card_is_loaded_in_the_precision_asked_for(
    tmp_path: Path, wanted: str, mixed: str, weights: int
) -> None:
    """Without mixed precision the frozen weights, left to `auto`, are float32 on a GPU too."""
    plan = plan_run(toy_recipe(tmp_path, train={"precision": wanted}), lambda _: None)
    load = load_of(plan, "cuda")
    assert (load.mixed, load.base.dtype("cuda").itemsize) == (mixed, weights)
    half = toy_recipe(tmp_path, base={"precision": "bfloat16"}, train={"precision": wanted})
    assert plan_run(half, lambda _: None).base.dtype("cuda") is torch.bfloat16


def test_advice_names_what_makes_it_fit(load: Load) -> None:
    large = replace(load, batch=8)
    whole, half = estimate(large), estimate(replace(large, batch=4))
    room = (whole.peak + half.peak) // 2
    settings, then = smallest_change(large, room) or pytest.fail("nothing fits")
    assert settings == "train.batch: 4 with 2 times the train.accumulation"
    assert then == half
    assert any(settings in line for line in advise(large, room))
    assert "it fits" in advise(large, 2**40)[-1]
    assert "does not fit into 0.00 GB to encode the pictures" in advise(large, 1000)[-1]
    assert len(advise(large, None)) == 1


def test_what_needs_less_memory_is_one_list(load: Load) -> None:
    """For a card in `check` and for a run that ran out: the same settings in the same order."""
    assert smaller_settings(replace(load, batch=5)) == [
        "train.batch: 2 with 3 times the train.accumulation",
        "train.optimizer: adamw8bit",
        "train.gradient_checkpointing: true",
        "base.quantization: nf4",
        "base.offload: true",
    ]
    least = replace(load, batch=1, optimizer="adamw8bit", checkpointing=True)
    assert smaller_settings(replace(least, offload=True)) == []
    assert smaller_settings(replace(least, quantization="nf4", device="cpu")) == []


def test_a_load_is_estimated_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, sizes = list[Load](), {8: 90, 4: 70, 2: 50}

    def count(asked_for: Load) -> Estimate:
        asked.append(asked_for)
        return Estimate(10, 0, 0, 0, sizes[asked_for.batch], 0)

    monkeypatch.setattr(advice, "estimate", count)
    assert "train.batch: 2 with 4 times" in advise(replace(load, batch=8), 60)[-1]
    assert [each.batch for each in asked] == [8, 4, 2]


def test_a_card_that_is_no_size_is_a_fault() -> None:
    with pytest.raises(RecipeError, match="such as 8GB"):
        card_bytes("big")
    assert card_bytes("24 GB") == pytest.approx(3 * card_bytes("8GB"))


def test_nothing_is_loaded(tmp_path: Path) -> None:
    """An estimate needs configs only: the weights may be damaged."""
    folder = toy_base(tmp_path / "base")
    base = resolve_base(str(folder))
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(b"")
    assert estimate(Load(base, CrossAttentionKV(), size=(32, 32), device="cuda")).weights > 0
