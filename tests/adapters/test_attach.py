"""Attached adapters learn what they should, switch off exactly and leave the base bit-equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from builders.bases import shake, toy_example, toy_resolved
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from customize import families
from customize.adapters import (
    Attached,
    CrossAttentionKV,
    LowRank,
    Method,
    attach,
    autocast,
    cross_attention_kv,
    learns_text,
)
from customize.errors import BaseModelError
from customize.families import Family
from customize.families.base import Base
from customize.families.words import Word

EVERY_GROUP = ("attention", "convolutions", "feed_forward")
WORDS = (Word("<my-dog>", "dog", 2), Word("<hat>", None, 1))
METHODS: dict[str, Method] = {
    "kv": CrossAttentionKV(),
    "lora": LowRank(rank=2, alpha=3.0),
    "dora": LowRank(rank=2, decompose=True, targets=EVERY_GROUP),
    "text": LowRank(rank=4, alpha=2.0, targets=("cross_attention",), text_encoder_rank=2),
}
LEVEL_B = torch.tensor([3, 800])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


@pytest.fixture
def family(base: Base) -> Family:
    return families.open_family(base, learns_text=True)


@pytest.fixture(scope="module")
def conditions(base: Base) -> dict[str, Tensor]:
    encoder = families.open_encoder(base, words=WORDS)
    examples = [toy_example(0, "add <my-dog>"), toy_example(1, "make the dog red")]
    encoded = [encoder.encode(example, as_tokens=True).conditions for example in examples]
    return {key: torch.stack([one[key] for one in encoded]) for key in encoded[0]}


def _predict(family: Family, conditions: dict[str, Tensor]) -> Tensor:
    noisy = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return family.predict(noisy, LEVEL_B, conditions)


def _snapshot(family: Family) -> dict[str, Tensor]:
    modules = {"denoiser": family.denoiser, **family.text_encoders}
    assert len(modules) == 2
    return {f"{m}.{n}": p.clone() for m, x in modules.items() for n, p in x.state_dict().items()}


def _train(family: Family, attached: Attached, conditions: dict[str, Tensor]) -> None:
    groups = [attached.adapter_parameters(), attached.word_parameters()]
    optimizer = torch.optim.AdamW([{"params": g} for g in groups if g], lr=1e-2)
    for _ in range(3):
        _predict(family, conditions).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("words", [(), WORDS], ids=["no_words", "words"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_starts_at_the_base_and_switches_off_bit_for_bit(
    family: Family, conditions: dict[str, Tensor], method: Method, words: tuple[Word, ...]
) -> None:
    plain = {**conditions, "token_ids": conditions["token_ids"][1:].repeat(2, 1)}
    with torch.no_grad():
        before = _predict(family, plain)
        attached = attach(family, method, words)
        torch.testing.assert_close(_predict(family, plain), before, rtol=1e-5, atol=1e-5)
        assert attached.movement().adapter == attached.movement().words == 0
        shake(attached)
        assert (_predict(family, plain) - before).abs().max() > 1e-3
        assert attached.movement().adapter > 0
        assert (attached.movement().words > 0) is bool(words)
        with attached.switched_off():
            assert torch.equal(_predict(family, plain), before)
        assert not torch.equal(_predict(family, plain), before)
    assert all(p.requires_grad for p in attached.tensors().values())


def test_kv_training_leaves_every_base_weight_bit_equal(
    family: Family, conditions: dict[str, Tensor]
) -> None:
    before = _snapshot(family)
    attached = attach(family, CrossAttentionKV(), WORDS)
    _train(family, attached, conditions)
    after = _snapshot(family)
    assert attached.movement().adapter > 0
    assert attached.movement().words > 0
    assert before.keys() <= after.keys()
    changed = [name for name, weight in before.items() if not torch.equal(weight, after[name])]
    assert changed == []
    learned = {n.removeprefix("denoiser.") for n in attached.state() if n.startswith("denoiser.")}
    layers = {
        n for n, _ in family.denoiser.named_modules() if n.endswith(("attn2.to_k", "attn2.to_v"))
    }
    assert learned == {f"{layer}.delta" for layer in layers}
    assert len(learned) == 20


@pytest.mark.parametrize("method", [METHODS["lora"], METHODS["dora"], METHODS["text"]])
def test_low_rank_training_leaves_every_base_weight_bit_equal(
    family: Family, conditions: dict[str, Tensor], method: Method
) -> None:
    before = _snapshot(family)
    attached = attach(family, method, WORDS)
    _train(family, attached, conditions)
    after = {name.replace(".base_layer", ""): w for name, w in _snapshot(family).items()}
    assert attached.movement().adapter > 0
    changed = [name for name, weight in before.items() if not torch.equal(weight, after[name])]
    assert changed == []


def test_only_the_words_in_use_get_a_gradient(
    family: Family, conditions: dict[str, Tensor]
) -> None:
    attached = attach(family, CrossAttentionKV(), WORDS)
    _predict(family, conditions).square().mean().backward()
    rows = {name: p.grad for name, p in attached.tensors().items() if name.startswith("words.")}
    used, unused = rows["words.text_encoder.<my-dog>"], rows["words.text_encoder.<hat>"]
    assert used is not None
    assert unused is not None
    assert bool(used.abs().sum(dim=1).gt(0).all())
    assert not unused.any()
    encoder = family.text_encoders["text_encoder"]
    assert all(p.grad is None for n, p in encoder.named_parameters() if ".words." not in n)


def test_words_start_from_their_initializer(family: Family) -> None:
    encoder: Any = family.text_encoders["text_encoder"]
    table = encoder.get_input_embeddings().weight
    dog = table[family.tokenizers["tokenizer"]("dog", add_special_tokens=False).input_ids].mean(0)
    state = attach(family, CrossAttentionKV(), WORDS).state()
    first, second = state["words.text_encoder.<my-dog>"]
    torch.testing.assert_close(first, dog)
    assert 0 < float((second - dog).norm()) < float(table.norm(dim=1).mean())
    torch.testing.assert_close(state["words.text_encoder.<hat>"][0], table.mean(0))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_seed_alone_decides_and_state_comes_back(base: Base, method: Method) -> None:
    random = torch.get_rng_state()
    states = []
    for seed in (1, 1, 2):
        family = families.open_family(base, learns_text=True)
        attached = attach(family, method, WORDS, seed=seed)
        states.append(attached.state())
    assert torch.equal(torch.get_rng_state(), random)
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    live = attached.tensors()
    attached.load(first)
    assert all(live[name] is p for name, p in attached.tensors().items())
    assert all(torch.equal(first[name], p) for name, p in attached.state().items())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_learns_in_float32_on_a_half_precision_base(
    base: Base, conditions: dict[str, Tensor], method: Method, autocast: bool
) -> None:
    family = families.open_family(base, dtype=torch.bfloat16, learns_text=True)
    attached = attach(family, method, WORDS)
    assert {p.dtype for p in attached.tensors().values()} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        predicted = _predict(family, conditions)
    predicted.square().mean().backward()
    grads = [p.grad for p in attached.tensors().values()]
    assert all(g is not None and g.dtype is torch.float32 and g.isfinite().all() for g in grads)
    assert {p.dtype for p in family.denoiser.parameters() if not p.requires_grad} == {
        torch.bfloat16
    }


@pytest.mark.parametrize("method", [CrossAttentionKV(), LowRank(rank=2)], ids=["K/V", "LoRA"])
def test_mixed_precision_keeps_one_copy_of_the_text_for_all_layers(
    method: Method, base: Base, conditions: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As exact as a copy in float32 for each layer, and cast back, would be."""
    kept: list[int] = []
    found: list[list[Tensor]] = []
    for copies in (False, True):
        family = families.open_family(base, dtype=torch.bfloat16, learns_text=True)
        attached = attach(family, method, WORDS)
        shake(attached)
        own = {p.untyped_storage().data_ptr() for p in family.denoiser.parameters()}
        saved: dict[int, int] = {}

        def note(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        if copies:
            for module in (cross_attention_kv, autocast):
                monkeypatch.setattr(module, "autocasts", lambda _: False)
        with torch.autocast("cpu", dtype=torch.bfloat16), saved_tensors_hooks(note, lambda t: t):
            predicted = _predict(family, conditions)
        kept.append(sum(size for place, size in saved.items() if place not in own))
        predicted.square().mean().backward()
        grads = [p.grad for p in attached.tensors().values() if p.grad is not None]
        found.append([predicted, *grads])
    assert len(found[0]) > 8
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
    assert kept[0] < kept[1]


def test_target_groups_name_what_they_say(base: Base) -> None:
    counts = {}
    modules = dict(families.open_family(base).denoiser.named_modules())
    for group in (*EVERY_GROUP, "cross_attention"):
        family = families.open_family(base)
        names = attach(family, LowRank(rank=1, targets=(group,))).state()
        counts[group] = len([name for name in names if name.endswith("lora_A")])
    blocks = [n for n in modules if n.endswith("transformer_blocks.0")]
    assert counts["attention"] == 8 * len(blocks)
    assert counts["cross_attention"] == 4 * len(blocks)
    assert counts["feed_forward"] == 2 * len(blocks)
    convolutions = [m for n, m in modules.items() if isinstance(m, nn.Conv2d) and "." in n]
    assert counts["convolutions"] == len(convolutions) > 2 * len(blocks)


def test_learns_text_only_with_words_or_text_rank() -> None:
    assert [learns_text(method, ()) for method in METHODS.values()] == [False, False, False, True]
    assert learns_text(CrossAttentionKV(), WORDS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((Word("<a>"), Word("<a>")), "'<a>' is already"),
        ((Word("<a>", vectors=2), Word("<a>_1")), "'<a>_1' is already"),
        ((Word("<a>", ""),), "empty"),
        ((Word("<|endoftext|>"),), "already"),
    ],
)
def test_words_must_be_new(family: Family, words: tuple[Word, ...], expected: str) -> None:
    with pytest.raises(BaseModelError, match=expected):
        attach(family, CrossAttentionKV(), words)


@pytest.mark.parametrize("method", [CrossAttentionKV(), LowRank()])
def test_a_base_without_such_layers_is_refused(family: Family, method: Method) -> None:
    bare = replace(family, denoiser=nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(BaseModelError, match="this base has no"):
        attach(bare, method)
