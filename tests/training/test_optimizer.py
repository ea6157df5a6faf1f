"""Optimizers by name, rates as pure functions, the running average."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from builders.bases import toy_family

from customize.adapters import Attached, CrossAttentionKV, attach
from customize.errors import TrainingError
from customize.families.loading.quiet import hush
from customize.families.words import Word
from customize.training.lion import Lion
from customize.training.optimizer import Average, Pace, eight_bit_fault, make_optimizer, set_rates


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> Attached:
    family = toy_family(tmp_path_factory.mktemp("base"))
    return attach(family, CrossAttentionKV(), [Word("<my-dog>", "dog")])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw8bit", "AdamW8bit"), ("paged_adamw8bit", "PagedAdamW8bit"), ("lion8bit", "Lion8bit")],
)
def test_8_bit_optimizers_run_on_the_cpu(attached: Attached, name: str, kind: str) -> None:
    optimizer = make_optimizer(name, attached, learning_rate=1e-3)  # pyright: ignore
    assert type(optimizer).__name__ == kind
    assert eight_bit_fault(name, torch.device("cpu")) is None  # pyright: ignore


def test_words_have_their_own_rate_and_no_decay(attached: Attached) -> None:
    optimizer = make_optimizer(
        "adamw", attached, learning_rate=1e-3, word_learning_rate=5e-3, weight_decay=0.1
    )
    weights, words = optimizer.param_groups
    assert (weights["lr"], weights["weight_decay"]) == (1e-3, 0.1)
    assert (words["lr"], words["weight_decay"]) == (5e-3, 0.0)
    assert len(words["params"]) == 1
    assert set_rates(optimizer, 0.5) == pytest.approx(5e-4)
    assert words["lr"] == pytest.approx(2.5e-3)
    set_rates(optimizer, 0.5)  # again from the full rate, not from the halved one
    assert words["lr"] == pytest.approx(2.5e-3)


@pytest.mark.parametrize(("name", "kind"), [("adamw8bit", torch.optim.AdamW), ("lion8bit", Lion)])
def test_without_bitsandbytes_full_precision_is_used_and_said(
    attached: Attached, monkeypatch: pytest.MonkeyPatch, name: str, kind: type
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.warns(UserWarning, match=r"full-precision (AdamW|Lion) is used instead"):
        optimizer = make_optimizer(name, attached, learning_rate=1e-3)  # pyright: ignore
    assert type(optimizer) is kind


def test_prodigy_absent_is_one_clear_error(
    attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(TrainingError, match="pip install prodigyopt"):
        make_optimizer("prodigy", attached, learning_rate=1.0)


def test_prodigy_has_one_rate(attached: Attached) -> None:
    optimizer = make_optimizer("prodigy", attached, learning_rate=1.0)
    assert type(optimizer).__name__ == "Prodigy"
    with pytest.raises(TrainingError, match=r"word_learning_rate.*remove it"):
        make_optimizer("prodigy", attached, learning_rate=1.0, word_learning_rate=0.5)


def test_lion_agrees_with_bitsandbytes() -> None:
    hush()
    from bitsandbytes.optim import Lion32bit

    start, gradients = torch.randn(64), torch.randn(5, 64)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    options = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}
    optimizers = [(ours, Lion([ours], **options)), (theirs, Lion32bit([theirs], **options))]
    for gradient in gradients:
        for parameter, optimizer in optimizers:
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_rates_warm_up_and_fall() -> None:
    cosine = [Pace(10, schedule="cosine", warmup=2).factor(step) for step in range(10)]
    assert cosine[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert cosine[2:] == sorted(cosine[2:], reverse=True)
    assert 0 < cosine[-1] < 0.1
    assert [Pace(10, warmup=1).factor(step) for step in (0, 1, 9)] == [0.5, 1.0, 1.0]
    linear = [Pace(4, schedule="linear").factor(step) for step in range(4)]
    assert linear == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_average_follows_the_adapter(attached: Attached) -> None:
    average = Average(attached, decay=0.5)
    with torch.no_grad():
        attached.adapter_parameters()[0].add_(1.0)
    name = next(iter(attached.tensors()))
    before = average.tensors[name].clone()
    average.update(attached, step=100)
    torch.testing.assert_close(average.tensors[name], before.lerp(attached.tensors()[name], 0.5))
    average.update(attached, step=0)  # nearly all of the new at the start of a run
    torch.testing.assert_close(
        average.tensors[name],
        before.lerp(attached.tensors()[name], 0.5).lerp(attached.tensors()[name], 0.9),
    )


def test_a_trial_leaves_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert eight_bit_fault("paged_adamw8bit", torch.device("cpu")) is None
