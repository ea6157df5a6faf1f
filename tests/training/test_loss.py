"""Training: the loss is the paper's, preservation holds the base, only what should learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, repeat
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from builders.bases import toy_example, toy_resolved
from torch import Tensor

from customize.adapters import Attached, CrossAttentionKV, LowRank, Method, attach
from customize.families import Dropout, Family, open_encoder, open_family
from customize.families.base import Base
from customize.families.objective import Objective
from customize.families.words import Word
from customize.training.batches import Batch, Sample, step_generator
from customize.training.batches import batches as batches_of
from customize.training.loss import Goal, loss, preserved_count
from customize.training.optimizer import Average, Pace, make_optimizer
from customize.training.optimizer_state import optimizer_state, restore_optimizer
from customize.training.steps import NonFiniteError, Step, train_steps

WORD = Word("<my-dog>", "dog")
NEVER = Dropout(text=0.0, both=0.0, image=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


class Bench:
    """A toy family with an adapter, encoded examples and a goal."""

    def __init__(self, base: Base, method: Method, words: tuple[Word, ...] = ()) -> None:
        as_tokens = bool(words)
        self.family: Family = open_family(base, learns_text=as_tokens)
        self.attached: Attached = attach(self.family, method, words, seed=0)
        encoder = open_encoder(base, words=words)
        instruction = "add <my-dog>" if words else "add dog"
        examples = [toy_example(seed, instruction) for seed in range(3)]
        self.samples = [
            Sample(
                encoder.encode(example, as_tokens=as_tokens),
                encoder.encode(
                    replace(example, target_HWC=example.source_HWC), as_tokens=as_tokens
                ),
            )
            for example in examples
        ]
        texts = [encoder.text(text, as_tokens=as_tokens) for text in ("make it red", "paint it")]
        self.goal = Goal(
            empty_text=encoder.text("", as_tokens=as_tokens),
            other_texts={key: torch.stack([t[key] for t in texts]) for key in texts[0]},
            preserved_share=0.5,
        )

    def batches(self, count: int = 4, first: int = 0) -> Iterator[Batch]:
        return batches_of(self.samples, count, seed=0, first=first)

    def steps(self, pace: Pace, **options: Any) -> Iterator[Step]:
        accelerator = Accelerator(cpu=True)
        optimizer = options.pop("optimizer", None) or make_optimizer(
            "adamw", self.attached, learning_rate=1e-2
        )
        optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        goal, found = options.pop("goal", self.goal), options.pop("batches", self.batches())
        options = {"seed": 0, **options}
        return train_steps(
            self.family, self.attached, found, goal, optimizer, pace, accelerator, **options
        )


def test_loss_is_the_papers(base: Base) -> None:
    """Compute the same loss by diffusers' scheduler from the same draws, sample by sample."""
    from diffusers import DDPMScheduler

    bench = Bench(base, CrossAttentionKV())
    batch = next(bench.batches())
    goal = replace(bench.goal, preserved_share=0.0, dropout=NEVER, min_snr=5.0)
    found = loss(bench.family, bench.attached, batch, goal, step_generator(0, 0))

    generator, shape = step_generator(0, 0), batch.mean_BChw.shape
    torch.rand((), generator=generator)
    clean = batch.mean_BChw + batch.std_BChw * torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    level = torch.randint(1000, (len(clean),), generator=generator)
    scheduler: Any = DDPMScheduler.from_pretrained(base.folder / "scheduler")
    predicted = bench.family.denoiser(
        torch.cat([scheduler.add_noise(clean, noise, level), batch.conditions["source"]], 1),
        level,
        encoder_hidden_states=batch.conditions["text"],
    ).sample
    error = (predicted - scheduler.get_velocity(clean, noise, level)).square().mean((1, 2, 3))
    signal = scheduler.alphas_cumprod[level]
    snr = signal / (1 - signal)
    weighted = error * snr.clamp(max=5.0) / (snr + 1)
    torch.testing.assert_close(found.total, weighted.mean())
    torch.testing.assert_close(found.concept, error.mean())
    assert found.preserved.isnan()


def test_pair_weights_count(base: Base) -> None:
    bench = Bench(base, CrossAttentionKV())
    goal = replace(bench.goal, preserved_share=0.0)
    batch = next(bench.batches())

    def total(weight: float) -> Tensor:
        weighted = replace(batch, weight_B=batch.weight_B * weight)
        return loss(bench.family, bench.attached, weighted, goal, step_generator(0, 0)).total

    torch.testing.assert_close(total(2.5), 2.5 * total(1.0))


def test_preserved_samples_have_no_error_until_something_moves(base: Base) -> None:
    bench = Bench(base, CrossAttentionKV(), (WORD,))
    batch = next(bench.batches())
    goal = replace(bench.goal, dropout=NEVER)
    before = loss(bench.family, bench.attached, batch, goal, step_generator(0, 0))
    assert before.preserved < 1e-10  # other batch sizes round otherwise
    with torch.no_grad():
        for parameter in bench.attached.adapter_parameters():
            parameter.add_(torch.randn(parameter.shape))
    after = loss(bench.family, bench.attached, batch, goal, step_generator(0, 0))
    assert after.preserved > 1e-6


def test_preserved_samples_get_other_texts_the_guessed_edit_and_the_base_itself(
    base: Base,
) -> None:
    """Spy on every prediction: which conditions it gets, and whether the adapter is on."""
    bench = Bench(base, CrossAttentionKV(), (WORD,))
    word_id = len(bench.family.tokenizers["tokenizer"]) - 1
    seen: list[tuple[bool, Tensor, dict[str, Tensor]]] = []
    clean: list[Tensor] = []

    class Spy:
        denoiser, objective = bench.family.denoiser, bench.family.objective
        drop = staticmethod(bench.family.drop)

        @staticmethod
        def predict(noisy: Tensor, level: Tensor, conditions: Any) -> Tensor:
            seen.append((torch.is_grad_enabled(), noisy, dict(conditions)))
            return bench.family.predict(noisy, level, conditions)

    objective = replace(bench.family.objective)
    object.__setattr__(
        objective,
        "corrupt",
        lambda c, n, t: clean.append(c) or bench.family.objective.corrupt(c, n, t),
    )
    Spy.objective = objective
    batch = next(bench.batches(4))
    batch = replace(batch, std_BChw=batch.std_BChw * 0, unedited_std_BChw=batch.std_BChw * 0)
    goal = replace(bench.goal, dropout=NEVER)
    spied: Any = Spy
    loss(spied, bench.attached, batch, goal, step_generator(0, 0))

    (guess_grad, guess_noisy, guess), (off_grad, off_noisy, off), (on_grad, on_noisy, on) = seen
    assert (guess_grad, off_grad, on_grad) == (False, False, True)
    assert torch.equal(off_noisy, on_noisy[:2])
    assert torch.equal(on["source"], batch.conditions["source"])
    assert torch.equal(off["source"], batch.conditions["source"][:2])
    assert all(torch.equal(guess[key], off[key]) for key in off)
    assert not (on["token_ids"][:2] == word_id).any()
    assert (on["token_ids"][2:] == word_id).any(1).all()
    whole, unedited, guessed = clean
    assert torch.equal(whole[2:], batch.mean_BChw[2:])
    assert torch.equal(unedited, batch.unedited_mean_BChw[:2])
    level_2 = objective.guess_levels(2)
    with torch.no_grad(), bench.attached.switched_off():
        predicted = bench.family.predict(guess_noisy, level_2, guess)
    torch.testing.assert_close(guessed, objective.clean(guess_noisy, predicted, level_2))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_preserved_share_holds_on_average(base: Base, share: float) -> None:
    bench = Bench(base, CrossAttentionKV())
    goal = replace(bench.goal, preserved_share=share)
    counts = [preserved_count(8, goal, step_generator(0, step)) for step in range(500)]
    assert abs(sum(counts) / 500 - 8 * share) < 0.1
    assert {*counts} <= {math.floor(8 * share), math.ceil(8 * share)}


def snapshot(family: Family, attached: Attached) -> dict[str, Tensor]:
    """Copy every tensor of the base, the learned ones left out."""
    learned = {id(parameter) for parameter in attached.tensors().values()}
    modules = {"denoiser": family.denoiser, **family.text_encoders}
    return {
        f"{part}.{name}": tensor.detach().clone()
        for part, module in modules.items()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if id(tensor) not in learned
    }


METHODS: dict[str, Callable[[], Method]] = {
    "K/V": CrossAttentionKV,
    "LoRA": lambda: LowRank(rank=2, targets=("attention", "convolutions")),
    "DoRA": lambda: LowRank(rank=2, decompose=True),
    "LoRA with text encoder": lambda: LowRank(rank=2, text_encoder_rank=2),
}


@pytest.mark.parametrize("method", METHODS)
def test_only_the_adapter_and_its_word_learn(base: Base, method: str) -> None:
    bench = Bench(base, METHODS[method](), (WORD,))
    before, start = snapshot(bench.family, bench.attached), bench.attached.state()
    steps = list(bench.steps(Pace(3)))
    assert [step.step for step in steps] == [1, 2, 3]
    after = snapshot(bench.family, bench.attached)
    assert len(before) > 100
    assert before.keys() == after.keys()
    assert not [name for name in before if not torch.equal(before[name], after[name])]
    learned = bench.attached.state()
    assert [name for name in learned if torch.equal(learned[name], start[name])] == []
    assert bench.attached.movement().words > 0


def test_training_learns_the_pairs(base: Base) -> None:
    bench = Bench(base, LowRank(rank=4, targets=("attention", "convolutions")))
    goal = replace(bench.goal, preserved_share=0.0)
    batch = next(bench.batches(8))

    @torch.no_grad()
    def error() -> float:
        """Sum the loss over noise and levels that no step draws."""
        draws = [step_generator(1, number) for number in range(4)]
        return sum(float(loss(bench.family, bench.attached, batch, goal, g).total) for g in draws)

    before = error()
    assert len(list(bench.steps(Pace(30), goal=goal, batches=repeat(batch)))) == 30
    assert error() < 0.9 * before


def test_preservation_holds_the_bases_other_edits(base: Base) -> None:
    """After equal training the prediction for other instructions is nearer the base's with it."""
    drifts = {}
    for share in (0.0, 0.5):
        bench = Bench(base, CrossAttentionKV())
        goal = replace(bench.goal, preserved_share=share, dropout=NEVER, preserved_weight=10.0)
        assert len(list(bench.steps(Pace(15), goal=goal, batches=bench.batches(8)))) == 15
        batch = next(bench.batches(8))
        others = bench.goal.other_texts["text"][torch.arange(8) % 2]
        conditions = {**batch.conditions, "text": others}
        noisy, level = torch.randn(batch.mean_BChw.shape), torch.arange(100, 900, 100)
        with torch.no_grad():
            changed = bench.family.predict(noisy, level, conditions)
            with bench.attached.switched_off():
                frozen = bench.family.predict(noisy, level, conditions)
        drifts[share] = float((changed - frozen).square().mean())
    assert 0 < drifts[0.5] < 0.6 * drifts[0.0]


TENSORS = ("mean_BChw", "std_BChw", "unedited_mean_BChw", "unedited_std_BChw", "weight_B")


def test_accumulated_batches_equal_one_large_batch(base: Base) -> None:
    """Two halves accumulated give the gradient of the whole: the same draws, no dropout."""
    gradients = []
    for accumulation, count in ((2, 2), (1, 4)):
        bench = Bench(base, CrossAttentionKV())
        goal = replace(bench.goal, preserved_share=0.0, dropout=NEVER)
        whole = next(bench.batches(4))
        halves = [
            replace(
                whole,
                **{name: getattr(whole, name)[start : start + count] for name in TENSORS},
                conditions={k: v[start : start + count] for k, v in whole.conditions.items()},
            )
            for start in range(0, 4, count)
        ]
        optimizer = torch.optim.SGD(bench.attached.adapter_parameters(), lr=1.0)
        optimizer.param_groups[0]["full_lr"] = 1.0
        pace = Pace(1, accumulation=accumulation)
        with same_draws():
            list(bench.steps(pace, goal=goal, batches=iter(halves), optimizer=optimizer))
        gradients.append(bench.attached.state())
    for name, tensor in gradients[0].items():
        torch.testing.assert_close(tensor, gradients[1][name], rtol=1e-4, atol=1e-7)
        assert tensor.abs().max() > 0


@contextmanager
def same_draws() -> Iterator[None]:
    """Give every sample the same noise and level, so that batches of any split agree."""
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda shape, **_: noise.expand(shape))
        patch.setattr(
            Objective, "sample_levels", lambda _self, shape, _generator: torch.full(shape[:1], 500)
        )
        yield


def test_gradients_are_clipped(base: Base) -> None:
    bench = Bench(base, CrossAttentionKV())
    optimizer = torch.optim.SGD(bench.attached.adapter_parameters(), lr=1.0)
    optimizer.param_groups[0]["full_lr"] = 1.0
    (step,) = bench.steps(Pace(1, clip_norm=1e-4), optimizer=optimizer)
    assert step.gradient_norm > 1e-4
    assert bench.attached.movement().adapter == pytest.approx(1e-4, rel=1e-2)


def test_a_loss_that_is_no_number_stops_before_it_does_harm(base: Base) -> None:
    bench = Bench(base, CrossAttentionKV())
    good = list(islice(bench.batches(), 2))
    broken = replace(good[0], mean_BChw=good[0].mean_BChw * math.nan)
    steps = bench.steps(Pace(5), batches=iter([*good, broken]))
    assert [next(steps).step, next(steps).step] == [1, 2]
    state = bench.attached.state()
    with pytest.raises(NonFiniteError, match=r"step 3: the loss became nan.*learning_rate"):
        next(steps)
    kept = bench.attached.state()
    assert all(torch.equal(state[name], kept[name]) for name in state)
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_run_taken_up_later_equals_an_unbroken_one(base: Base) -> None:
    unbroken = Bench(base, CrossAttentionKV(), (WORD,))
    average = Average(unbroken.attached, 0.9)
    optimizer = make_optimizer("adamw", unbroken.attached, learning_rate=1e-2)
    pace = Pace(6, schedule="cosine", warmup=2)
    steps = unbroken.steps(pace, optimizer=optimizer, average=average)
    first = list(islice(steps, 3))
    later = Bench(base, CrossAttentionKV(), (WORD,))
    later.attached.load(unbroken.attached.state())
    other = make_optimizer("adamw", later.attached, learning_rate=1e-2)
    restore_optimizer(other, optimizer_state(optimizer))
    rest = list(steps)
    resumed = list(later.steps(pace, optimizer=other, batches=later.batches(first=3), done=3))
    assert resumed == rest
    assert [s.step for s in first + resumed] == [1, 2, 3, 4, 5, 6]
    ends = unbroken.attached.state(), later.attached.state()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not torch.equal(
        average.tensors["words.text_encoder.<my-dog>"], ends[0]["words.text_encoder.<my-dog>"]
    )
