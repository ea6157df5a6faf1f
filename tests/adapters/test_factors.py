"""Factors of weight changes: the best of each rank, and the least rank within the limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from customize.adapters.factors import factorize, factorize_product

SHAPES = st.sampled_from([(7, 4), (4, 7), (5, 5), (6, 3, 3, 3), (3, 5, 1, 1)])


def _delta(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _of_values(values: list[float], rows: int = 9, columns: int = 7) -> Tensor:
    """Return a matrix with these singular values."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=generator).double()).Q
    right = torch.linalg.qr(torch.randn(columns, len(values), generator=generator).double()).Q
    return (left @ torch.diag(torch.tensor(values).double()) @ right.T).float()


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 10**6), st.integers(1, 9))
def test_no_matrix_of_that_rank_is_nearer(shape: tuple[int, ...], seed: int, rank: int) -> None:
    delta = _delta(shape, seed)
    factors = factorize(delta, rank=rank)
    values = torch.linalg.svdvals(delta.double().flatten(1))
    tail = float(values[rank:].norm())  # Eckart-Young
    assert factors.rank == min(rank, len(values))
    assert factors.product().shape == delta.shape
    missing = float((factors.product() - delta).double().norm())
    assert missing == pytest.approx(tail, abs=1e-5 * float(values.norm()))
    assert factors.relative_error == pytest.approx(tail / float(values.norm()), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 10**6))
def test_without_limits_nothing_is_lost(shape: tuple[int, ...], seed: int) -> None:
    delta = _delta(shape, seed)
    factors = factorize(delta)
    torch.testing.assert_close(factors.product(), delta, rtol=0, atol=1e-5)
    assert factors.down.shape == (factors.rank, *shape[1:])
    assert factors.up.shape == (shape[0], factors.rank, *[1] * (len(shape) - 2))


def test_the_rank_without_limits_is_the_changes_own() -> None:
    assert factorize(_of_values([3.0, 2.0, 0.5])).rank == 3


@pytest.mark.parametrize(
    ("limits", "rank"),
    [
        ({"energy": 0.39}, 1),
        ({"energy": 0.41}, 2),
        ({"energy": 0.69}, 2),
        ({"energy": 0.71}, 3),
        ({"energy": 0.95}, 4),
        ({"energy": 1.0}, 4),
        ({"error": math.sqrt(14 / 30) + 1e-6}, 1),
        ({"error": math.sqrt(14 / 30) - 1e-6}, 2),
        ({"error": 0.0}, 4),
        ({"error": 1.0}, 1),
        ({"energy": 0.4, "error": 0.2}, 3),
        ({"energy": 1.0, "rank": 2}, 2),
        ({"error": 0.0, "rank": 1}, 1),
    ],
)
def test_limits_take_the_least_rank_that_satisfies_all(limits: dict[str, Any], rank: int) -> None:
    delta = _of_values([4.0, 3.0, 2.0, 1.0])
    assert factorize(delta, **limits).rank == rank


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3, 3)])
@pytest.mark.parametrize("limits", [{}, {"rank": 2}, {"energy": 0.9}, {"error": 0.1}])
def test_no_change_has_factors_of_rank_one_and_no_error(
    shape: tuple[int, ...], limits: dict[str, Any]
) -> None:
    factors = factorize(torch.zeros(shape), **limits)
    assert factors.rank == 1
    assert factors.relative_error == 0
    assert not factors.product().any()


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([((4, 9), (8, 4)), ((3, 5, 3, 3), (7, 3, 1, 1)), ((12, 5), (6, 12))]),
    st.integers(0, 10**6),
    st.sampled_from([{}, {"rank": 2}, {"energy": 0.8}, {"error": 0.3}]),
)
def test_thin_factors_are_cut_as_their_product_would_be(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], seed: int, limits: dict[str, Any]
) -> None:
    down, up = _delta(shapes[0], seed), _delta(shapes[1], seed + 1)
    product = (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])
    thin, whole = factorize_product(down, up, **limits), factorize(product, **limits)
    assert thin.rank == whole.rank
    assert thin.relative_error == pytest.approx(whole.relative_error, abs=1e-6)
    assert thin.down.shape == whole.down.shape
    assert thin.up.shape == whole.up.shape
    torch.testing.assert_close(thin.product(), whole.product(), rtol=0, atol=1e-4)
