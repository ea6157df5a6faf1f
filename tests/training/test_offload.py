"""An offloaded base: every weight sent when it is used, and nothing learned differently for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import shake, toy_resolved, toy_tokenizer
from builders.runs import toy_recipe
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.file import read_adapter
from customize.errors import RecipeError
from customize.families import Family, open_family
from customize.families.base import Base
from customize.families.words import Word
from customize.recipe import load_recipe
from customize.recipe.editing_base import load_editing_base
from customize.training.memory.advice import smallest_change
from customize.training.memory.estimate import Estimate, estimate
from customize.training.memory.offload import (
    OffloadedConv2d,
    OffloadedLinear,
    offload,
    offload_family,
)
from customize.training.memory.workload import Load, load_of
from customize.training.plan import plan_run
from customize.training.run import run_recipe

CPU, META = torch.device("cpu"), torch.device("meta")
WORDS = (Word("<my-dog>", "dog"),)
EVERYWHERE = ("attention", "convolutions", "feed_forward")
METHODS: dict[str, Method] = {
    "K/V": CrossAttentionKV(),
    "LoRA": LowRank(rank=2, targets=EVERYWHERE, text_encoder_rank=2),
    "DoRA": LowRank(rank=2, targets=EVERYWHERE, decompose=True),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def _toys_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("customize.training.memory.offload.SMALLEST", 250)


def offloaded(module: nn.Module) -> dict[str, Any]:
    kinds = OffloadedLinear, OffloadedConv2d
    return {name: m for name, m in module.named_modules() if isinstance(m, kinds)}


def predicted(family: Family, device: torch.device = CPU) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn((2, 4, 16, 16), generator=generator)
    source = torch.randn((2, 4, 16, 16), generator=generator)
    token_ids = torch.arange(48).view(2, 24)
    token_ids[:, 3] = len(toy_tokenizer())  # the word
    conditions = {"source": source, "token_ids": token_ids}
    level = torch.tensor([10, 900]).to(device)
    sent = {key: value.to(device) for key, value in conditions.items()}
    return family.predict(noisy.to(device), level, sent)


@pytest.mark.parametrize(
    ("weights", "mixed"), [("float32", False), ("float32", True), ("bfloat16", True)]
)
@pytest.mark.parametrize("kind", METHODS)
def test_predictions_and_gradients_are_those_of_the_base_bit_for_bit(
    base: Base, kind: str, weights: str, mixed: bool
) -> None:
    """With and without recomputed activations; words read by the text encoder learn along."""
    found = list[tuple[Tensor, dict[str, Tensor]]]()
    for away, recomputing in ((False, False), (True, False), (True, True)):
        live = open_family(base, dtype=getattr(torch, weights), learns_text=True)
        if away:
            live = offload_family(live, CPU)
            assert len(offloaded(live.denoiser)) > 40
            assert len(offloaded(live.text_encoders["text_encoder"])) > 5
        attached = attach(live, METHODS[kind], WORDS)
        shake(attached)
        if recomputing:
            live.denoiser.train()
            live.denoiser.enable_gradient_checkpointing()  # pyright: ignore
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            prediction = predicted(live)
        prediction.square().mean().backward()
        gradients = {name: p.grad for name, p in attached.tensors().items()}
        found.append((prediction, {n: g for n, g in gradients.items() if g is not None}))
        assert len(found[-1][1]) == len(gradients) > 8
    (expected, gradients), *others = found
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    for prediction, learned in others:
        assert torch.equal(prediction, expected)
        assert [n for n in gradients if not torch.equal(learned[n], gradients[n])] == []


def test_layers_that_an_adapter_holds_already_are_offloaded_in_place(base: Base) -> None:
    live = open_family(base)
    attached = attach(live, METHODS["DoRA"])
    shake(attached)
    conditions = {"source": torch.zeros(2, 4, 16, 16), "text": torch.ones(2, 24, 16)}
    given = torch.ones(2, 4, 16, 16), torch.tensor([10, 900]), conditions
    expected = live.predict(*given)
    kept = offload(live.denoiser, CPU)
    found = offloaded(live.denoiser)
    assert any(name.endswith("attn1.to_q.base_layer") for name in found)
    assert not [name for name in found if "lora_" in name]
    assert kept == sum(layer.weight.nbytes for layer in found.values())
    assert torch.equal(live.predict(*given), expected)
    assert offload(live.denoiser, CPU) == 0


class Sent(TorchDispatchMode):
    """Notes every copy from the CPU to the device that stands for a GPU, and if it is waited for.

    `meta` refuses to meet tensors of the CPU: what is not sent is an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes, self.waited = list[tuple[int, ...]](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        to = torch.device(given.get("device") or "cpu").type
        if func is torch.ops.aten._to_copy.default and (args[0].device.type, to) == ("cpu", "meta"):
            self.shapes.append(tuple(args[0].shape))
            self.waited += not given.get("non_blocking")
        return func(*args, **given)


def test_each_weight_is_sent_when_it_is_used_and_never_kept(base: Base) -> None:
    live = offload_family(open_family(base), META)
    layers = offloaded(live.denoiser)
    assert {layer.stored.weight.device.type for layer in layers.values()} == {"cpu"}
    assert {parameter.device.type for parameter in live.denoiser.parameters()} == {"meta"}
    assert all(p.numel() < 250 or p.dim() < 2 for p in live.denoiser.parameters())
    live.denoiser.to(META)  # as a pipeline does with what it is given
    attached = attach(live, CrossAttentionKV())
    expected = sorted(tuple(layer.stored.weight.shape) for layer in layers.values())
    saved = list[tuple[int, ...]]()

    def note(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    conditions = {"source": torch.zeros(2, 4, 16, 16), "text": torch.ones(2, 24, 16)}
    given = {key: value.to(META) for key, value in conditions.items()}
    noisy, level = torch.ones(2, 4, 16, 16, device=META), torch.tensor([10, 900]).to(META)
    with Sent() as forward, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = live.predict(noisy, level, given).square().mean()
    with Sent() as backward:
        loss.backward()
    assert sorted(forward.shapes) == expected
    assert {*backward.shapes} < {*forward.shapes}
    assert 20 < len(backward.shapes) < len(expected)  # what comes before the first K/V needs none
    assert forward.waited == backward.waited == 0
    assert saved
    assert not {shape for shape in expected if len(shape) == 4} & {*saved}
    assert all(p.grad is not None and p.grad.is_meta for p in attached.adapter_parameters())


def test_a_run_on_an_offloaded_base_ends_with_the_same_adapter(tmp_path: Path) -> None:
    told, tensors = list[str](), list[dict[str, Tensor]]()
    for away in (False, True):
        recipe = toy_recipe(
            tmp_path,
            base={"name": str(tmp_path / "base"), "offload": away},
            adapter={"method": "low_rank", "rank": 2, "decompose": True},
            train={"steps": 2, "precision": "bf16", "gradient_checkpointing": away},
            preview={"every": 2},
            output=str(tmp_path / f"{away}"),
        )
        made = run_recipe(recipe, log=told.append, progress=False).adapter
        assert made is not None
        assert read_adapter(made).header.recipe["base"]["offload"] is away
        tensors.append(load_file(made))
    assert len(tensors[0]) > 8
    assert tensors[0].keys() == tensors[1].keys()
    assert [n for n in tensors[0] if not torch.equal(tensors[0][n], tensors[1][n])] == []
    (warning,) = [line for line in told if "base.offload" in line]
    assert "nothing is saved" in warning


def test_the_estimate_counts_what_stays_and_one_weight_in_flight(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = replace(base, precision="float32")
    load = Load(base, CrossAttentionKV(), words=WORDS, size=(32, 32), batch=4, device="cuda")
    plain, away = estimate(load), estimate(replace(load, offload=True))
    live = open_family(base, learns_text=True)
    networks = live.denoiser, *live.text_encoders.values()
    kept = sum(offload(network, CPU) for network in networks)
    largest = max(layer.weight.nbytes for n in networks for layer in offloaded(n).values())
    assert plain.weights - away.weights == kept > plain.weights / 3
    assert away.step <= plain.step + 2 * largest
    assert away.training_peak < plain.training_peak
    # not called: a CPU has nothing to save
    monkeypatch.setattr("customize.training.memory.estimate.offload", None)
    on_cpu = estimate(replace(load, words=(), batch=1, device="cpu", offload=True))
    assert on_cpu.weights > away.weights


def test_offloading_is_advised_last_and_names_what_it_replaces(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[Load]()

    def weighed(load: Load) -> Estimate:
        tried.append(load)
        return Estimate(0, 50 if load.offload else 100, 0, 0, 10 * load.batch, 0)

    monkeypatch.setattr("customize.training.memory.advice.estimate", weighed)
    load = Load(base, LowRank(rank=2), batch=2, quantization="int8", device="cuda")
    settings, then = smallest_change(load, 60) or ("", None)
    assert settings.endswith("base.quantization: none and base.offload: true")
    assert then == weighed(tried[-1])
    assert [tried[-2].offload, tried[-2].batch] == [True, 1]
    assert {load.quantization for load in tried if not load.offload} == {"int8", "nf4"}
    assert {load.quantization for load in tried if load.offload} == {"none"}


def test_a_plan_says_that_it_offloads(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, base={"name": str(tmp_path / "base"), "offload": True})
    assert load_of(plan_run(recipe, lambda _: None), "cuda").offload


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("base: {offload: true, quantization: nf4}", "base.offload: base.quantization: nf4 beside"),
        ("base: {offload: true}\ntrain: {compile: true}", "base.offload: train.compile: true"),
        ("base: {offload: 1}", "base.offload: .*write true or false"),
    ],
)
def test_what_cannot_go_with_it_is_one_fault(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "pairs").mkdir()
    path = tmp_path / "x.yaml"
    path.write_text(f"concepts: [{{name: my_dog, pairs: pairs}}]\n{lines}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert len(caught.value.faults) == 1


def test_a_base_that_learns_itself_knows_no_such_field(tmp_path: Path) -> None:
    path = tmp_path / "fit.yaml"
    path.write_text(f"start: {tmp_path}\npairs: {tmp_path}\noffload: true\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"fit\.yaml:3 offload: unknown key; known here: start, "):
        load_editing_base(path)
