"""Laws of every method on one layer, and proofs of the closed form by general solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from customize.merging.by_edits.regression import regress
from customize.merging.constrained.constraints import Rows, Solver, constrained, wanted
from customize.merging.sums import concat, dare, drop, linear, ties, trim

Merge = Callable[[Sequence[Tensor], Sequence[float]], Tensor]
SUMS: dict[str, Merge] = {
    "linear": linear,
    "ties": lambda deltas, weights: ties(deltas, weights, density=1),
    "dare": lambda deltas, weights: dare(deltas, weights, density=1, seeds=range(len(deltas))),
}
THINNED: dict[str, Merge] = {
    **SUMS,
    "ties 0.3": lambda deltas, weights: ties(deltas, weights, density=0.3),
    "dare 0.4": lambda deltas, weights: dare(
        deltas, weights, density=0.4, seeds=[int(1e4 * abs(float(d.sum()))) for d in deltas]
    ),
    "dare, ties": lambda deltas, weights: dare(
        deltas,
        weights,
        density=0.4,
        seeds=[int(1e4 * abs(float(d.sum()))) for d in deltas],
        then="ties",
    ),
}


def _by_constraints(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    rows, generic = _rows(0, [2] * len(deltas), 5), _rows(1, [20], 5)[0]
    pairs = zip(deltas, weights, rows, strict=True)
    return constrained(
        [wanted(d, w, Rows(r, r)) for d, w, r in pairs], Solver(rows, generic).maps()
    )


def _by_regression(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    moments = [rows.T @ rows for rows in _rows(0, [3] * (len(deltas) + 1), 5)]
    scaled = [weight * delta for weight, delta in zip(weights, deltas, strict=True)]
    return regress(scaled, moments[1:], moments[0])


SCALED = {**THINNED, "constrained": _by_constraints, "regress": _by_regression}
few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)
counts = st.integers(1, 4)


def _deltas(seed: int, count: int, shape: tuple[int, ...] = (6, 5)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def _rows(seed: int, counts: Sequence[int], width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=generator).double() for n in counts]


@pytest.mark.parametrize("name", SUMS)
@few
@given(seed=seeds)
def test_a_merge_of_one_is_that_one(name: str, seed: int) -> None:
    (delta,) = _deltas(seed, 1)
    assert torch.equal(SUMS[name]([delta], [1.0]), delta)


@pytest.mark.parametrize("name", SCALED)
@few
@given(seed=seeds, count=counts, factor=st.sampled_from([-2.0, 0.5, 4.0]))
def test_weights_scale_linearly(name: str, seed: int, count: int, factor: float) -> None:
    deltas, weights = _deltas(seed, count), [1.0, 0.5, -0.25, 2.0][:count]
    scaled = SCALED[name](deltas, [factor * weight for weight in weights])
    expected = factor * SCALED[name](deltas, weights)
    torch.testing.assert_close(scaled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", THINNED)
@few
@given(seed=seeds, order=st.permutations(range(4)))
def test_order_does_not_matter(name: str, seed: int, order: list[int]) -> None:
    deltas, weights = _deltas(seed, 4), [1.0, 0.5, -0.25, 2.0]
    merged = THINNED[name](deltas, weights)
    turned = THINNED[name]([deltas[i] for i in order], [weights[i] for i in order])
    torch.testing.assert_close(turned, merged, rtol=1e-6, atol=1e-6)


@few
@given(seed=seeds, ranks=st.lists(st.integers(1, 5), min_size=1, max_size=4), conv=st.booleans())
def test_concat_is_the_sum_and_ranks_add_up(seed: int, ranks: list[int], conv: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    kernel, one = ((3, 3), (1, 1)) if conv else ((), ())
    downs = [torch.randn(r, 7, *kernel, generator=generator) for r in ranks]
    ups = [torch.randn(6, r, *one, generator=generator) for r in ranks]
    weights = [1.0, -0.5, 2.0, 0.3][: len(ranks)]
    down, up = concat(downs, ups, weights)
    assert down.shape == (sum(ranks), 7, *kernel)
    assert up.shape == (6, sum(ranks), *one)
    products = [(u.flatten(1) @ d.flatten(1)) for u, d in zip(ups, downs, strict=True)]
    expected = linear(products, weights)
    torch.testing.assert_close(up.flatten(1) @ down.flatten(1), expected, rtol=1e-5, atol=1e-5)


def test_ties_follows_the_papers_example_by_hand() -> None:
    deltas = [torch.tensor([5.0, -0.1, 3.0, 2.0]), torch.tensor([1.0, -4.0, -4.0, 0.2])]
    # Trimmed to two entries each: (5, 0, 3, 0) and (0, -4, -4, 0); signs +, -, -, none.
    expected = torch.tensor([5.0, -4.0, -4.0, 0.0])
    assert torch.equal(ties(deltas, [1.0, 1.0], density=0.5), expected)


def test_trim_keeps_the_greatest_and_no_others() -> None:
    delta = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    trimmed = trim(delta, 0.1)
    kept = trimmed != 0
    assert int(kept.sum()) == 100
    assert torch.equal(trimmed[kept], delta[kept])
    assert delta[kept].abs().min() > delta[~kept].abs().max()


def test_dropping_keeps_the_mean_and_its_share_and_follows_the_seed() -> None:
    delta = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    dropped = torch.stack([drop(delta, 0.25, seed) for seed in range(4000)])
    share = float((dropped != 0).float().mean())
    assert share == pytest.approx(0.25, abs=1e-3)
    # The mean's deviation is sqrt(3 / 4000) of each entry; six of these bound 1,200 entries.
    assert ((dropped.mean(0) - delta).abs() <= 6 * (3 / 4000) ** 0.5 * delta.abs()).all()
    assert torch.equal(drop(delta, 0.25, 7), drop(delta, 0.25, 7))
    assert not torch.equal(drop(delta, 0.25, 7), drop(delta, 0.25, 8))


def _solved(
    deltas: Sequence[Tensor],
    rows: Sequence[Tensor],
    generic: Tensor,
    ridge: float | None,
    floor: float,
) -> Tensor:
    maps = Solver(rows, generic, floor=floor).maps(ridge)
    pairs = zip(deltas, rows, strict=True)
    return constrained([wanted(d, 1.0, Rows(row, row)) for d, row in pairs], maps)


@few
@given(seed=seeds, outputs=st.integers(1, 9), count=st.integers(1, 4))
def test_constraints_are_kept_to_a_ten_thousandth(seed: int, outputs: int, count: int) -> None:
    rows, generic = _rows(seed, [3] * count, 24), _rows(seed + 1, [60], 24)[0]
    deltas = _deltas(seed, count, (outputs, 24))
    merged = _solved(deltas, rows, generic, 1e-6, 1e-3)
    for delta, row in zip(deltas, rows, strict=True):
        kept, asked = merged @ row.T.float(), delta @ row.T.float()
        assert float((kept - asked).norm() / asked.norm()) < 1e-4


@few
@given(seed=seeds)
def test_the_constrained_merge_is_the_minimizer(seed: int) -> None:
    """Solve the optimality conditions of the constrained problem as one linear system."""
    width = 12
    rows, generic = _rows(seed, [2, 3], width), _rows(seed + 1, [30], width)[0]
    deltas = _deltas(seed, 2, (4, width))
    merged = _solved(deltas, rows, generic, 1e-10, 1e-3)
    gram = generic.T @ generic / len(generic)
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(width)
    asked = torch.cat(rows)
    targets = torch.cat([d.double() @ r.T for d, r in zip(deltas, rows, strict=True)], dim=1)
    system = torch.zeros(width + 5, width + 5, dtype=torch.float64)
    system[:width, :width] = gram
    system[:width, width:], system[width:, :width] = asked.T, asked
    answers = torch.cat([torch.zeros(width, 4, dtype=torch.float64), targets.T])
    expected = torch.linalg.solve(system, answers)[:width].T
    torch.testing.assert_close(merged.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counts", [[2, 3], [9, 14]], ids=["fewer rows", "more rows"])
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_with_a_ridge_it_is_the_least_squares_solution(counts: list[int], ridge: float) -> None:
    """Stack both terms as rows of one problem for torch's general least-squares solver."""
    width = 12
    rows, generic = _rows(3, counts, width), _rows(4, [30], width)[0]
    deltas = _deltas(3, len(counts), (4, width))
    merged = _solved(deltas, rows, generic, ridge, 1e-2)
    gram = generic.T @ generic / len(generic)
    gram += 1e-2 * gram.diagonal().mean() * torch.eye(width)
    asked = torch.cat(rows)
    slack = ridge * torch.trace(asked @ torch.linalg.inv(gram) @ asked.T) / len(asked)
    targets = torch.cat([d.double() @ r.T for d, r in zip(deltas, rows, strict=True)], dim=1)
    left = torch.cat([torch.linalg.cholesky(gram).T, asked / slack.sqrt()])
    right = torch.cat([torch.zeros(width, 4, dtype=torch.float64), targets.T / slack.sqrt()])
    expected = torch.linalg.lstsq(left, right).solution.T
    torch.testing.assert_close(merged.double(), expected, rtol=1e-4, atol=1e-4)


def test_prompts_that_have_nothing_in_common_are_kept_without_a_ridge_to_name() -> None:
    (rows,) = _rows(0, [24], 24)
    apart = [*torch.linalg.qr(rows).Q[:6].split(2)]
    deltas = _deltas(1, 3, (6, 24))
    merged = _solved(deltas, apart, torch.eye(24), None, 1e-3)
    for delta, row in zip(deltas, apart, strict=True):
        kept, asked = merged @ row.T.float(), delta @ row.T.float()
        assert float((kept - asked).norm() / asked.norm()) < 1e-4


@pytest.mark.parametrize("apart", [1e-7, 1e-4, 0.01, 0.1])
def test_the_ridge_chosen_keeps_the_merge_as_small_as_its_inputs(apart: float) -> None:
    row, other = torch.linalg.qr(_rows(0, [24], 24)[0]).Q[:2, None]
    near = row + apart * other
    deltas, generic = _deltas(1, 2, (6, 24)), torch.eye(24)
    inputs = sum(float((delta @ row.T.float()).norm()) for delta in deltas)
    assert float(_solved(deltas, [row, near], generic, None, 1e-3).norm()) < 1.6 * inputs
    if apart >= 1e-4:
        blind = _solved(deltas, [row, near], generic, 1e-12, 1e-3)
        assert float(blind.norm()) > 5 * inputs


def test_nearly_equal_prompts_do_not_break_it() -> None:
    """What one asks for where both are the same is met half-way, not by a huge change."""
    generic, (row,) = _rows(0, [60], 24)[0], _rows(1, [1], 24)
    near = row + 1e-7 * _rows(2, [1], 24)[0]
    deltas = _deltas(5, 2, (6, 24))
    merged = _solved(deltas, [row, near], generic, 1e-6, 1e-3)
    expected = (deltas[0] + deltas[1]) / 2 @ row.T.float()
    torch.testing.assert_close(merged @ row.T.float(), expected, rtol=1e-3, atol=1e-3)
    assert float(merged.norm()) < 2 * float(deltas[0].norm() + deltas[1].norm())


@few
@given(seed=seeds, order=st.permutations(range(3)))
def test_order_does_not_matter_to_constraints(seed: int, order: list[int]) -> None:
    rows, generic = _rows(seed, [2, 3, 1], 16), _rows(seed + 1, [40], 16)[0]
    deltas = _deltas(seed, 3, (5, 16))
    merged = _solved(deltas, rows, generic, 1e-6, 1e-3)
    turned = _solved([deltas[i] for i in order], [rows[i] for i in order], generic, 1e-6, 1e-3)
    torch.testing.assert_close(turned, merged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [5, 40], ids=["fewer rows than columns", "more"])
@pytest.mark.parametrize("moved", [False, True])
def test_compact_rows_ask_for_the_same(count: int, moved: bool) -> None:
    alone, merged = _rows(0, [count, count], 16)
    rows = Rows(merged, alone) if moved else Rows(merged, merged)
    small = rows.compact()
    assert small.same != moved
    assert len(small.merged) == min(count, 32 if moved else 16)
    for one, other in ((rows.merged, small.merged), (rows.alone, small.alone)):
        expected = one.T @ one / count
        torch.testing.assert_close(other.T @ other, expected, rtol=1e-8, atol=1e-8)
    crossed = rows.alone.T @ rows.merged / count
    torch.testing.assert_close(small.alone.T @ small.merged, crossed, rtol=1e-8, atol=1e-8)


def test_what_is_asked_twice_is_asked_once() -> None:
    (row,) = _rows(0, [4], 16)
    twice = torch.cat([row, row])
    assert len(Rows(twice, twice).compact().merged) == 4


def test_rows_that_the_text_encoder_moved_come_out_as_they_did_alone() -> None:
    """The changed weight answers the moved rows as the input's own weight did its own rows."""
    base, delta = _deltas(0, 2, (6, 20))
    alone, moved = _rows(1, [3, 3], 20)
    generic = _rows(2, [50], 20)[0]
    rows = Rows(moved, alone)
    merged = constrained([wanted(delta, 1.0, rows, base)], Solver([moved], generic).maps(1e-9))
    answered = (base + merged) @ moved.T.float()
    torch.testing.assert_close(answered, (base + delta) @ alone.T.float(), rtol=1e-4, atol=1e-4)
