"""The regression merge against a generic least-squares solver, and what it captures by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from customize.merging.by_edits.moments import (
    ROWS,
    can_capture,
    capturing,
    in_groups,
    rows_of,
    width_of,
)
from customize.merging.by_edits.regression import regress


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moment(rows_NK: Tensor) -> Tensor:
    return rows_NK.T @ rows_NK / len(rows_NK)


@pytest.mark.parametrize("rows", [3, 40])  # fewer and more rows than columns
def test_the_solution_is_that_of_least_squares_on_the_stacked_problem(rows: int) -> None:
    deltas = [normal(5, 8, seed=i) for i in range(3)]
    reads = [normal(rows, 8, seed=10 + i) for i in range(3)]
    generic, preserve, ridge = normal(rows + 2, 8, seed=20), 0.3, 0.05
    moments = [moment(x) for x in reads]
    merged = regress(deltas, moments, moment(generic), preserve=preserve, ridge=ridge)
    curvature = torch.stack(moments).sum(0) + preserve * moment(generic)
    held = (ridge * curvature.diagonal().mean()).sqrt()
    left = [x / len(x) ** 0.5 for x in reads]
    left += [generic * (preserve / len(generic)) ** 0.5, held * torch.eye(8)]
    right = [rows_NK @ d.T for rows_NK, d in zip(left, deltas, strict=False)]
    right += [torch.zeros(len(generic), 5), held * sum(deltas).T]  # type: ignore[union-attr]
    wanted = torch.linalg.lstsq(torch.cat(left).double(), torch.cat(right).double()).solution.T
    assert torch.allclose(merged.double(), wanted, atol=1e-5)


def test_changes_that_read_different_things_are_all_kept() -> None:
    deltas = [normal(5, 8, seed=i) for i in range(2)]
    reads = [torch.zeros(6, 8), torch.zeros(6, 8)]
    reads[0][:, :4], reads[1][:, 4:] = normal(6, 4, seed=1), normal(6, 4, seed=2)
    merged = regress(deltas, [moment(x) for x in reads], ridge=1e-6)
    for delta, rows in zip(deltas, reads, strict=True):
        assert torch.allclose(rows @ merged.T, rows @ delta.T, atol=1e-4)


def test_what_nothing_read_is_added() -> None:
    deltas = [normal(2, 6, seed=i) for i in range(2)]
    unread = torch.zeros(6, 6)
    assert torch.allclose(regress(deltas, [unread, unread]), sum(deltas), atol=1e-6)  # type: ignore[arg-type]


def test_a_ridge_below_the_rounding_of_the_moments_still_gives_an_answer() -> None:
    rows = 100 + normal(20, 8)
    rounded = moment(rows) - 1e-3 * torch.eye(8)
    deltas = [normal(2, 8, seed=i) for i in range(2)]
    merged = regress(deltas, [rounded, rounded], ridge=1e-12)
    assert merged.isfinite().all()
    assert torch.allclose(rows @ merged.T, rows @ sum(deltas).T / 2, rtol=1e-2, atol=1)  # type: ignore[union-attr]


def test_one_change_is_returned_as_it_is_and_order_does_not_matter() -> None:
    deltas = [normal(4, 3, 2, 2, seed=i) for i in range(3)]
    moments = [moment(normal(9, 12, seed=i)) for i in range(3)]
    assert torch.equal(regress(deltas[:1], moments[:1], moments[1]), deltas[0])
    merged, turned = regress(deltas, moments), regress(deltas[::-1], moments[::-1])
    assert merged.shape == (4, 3, 2, 2)
    assert torch.allclose(merged, turned, atol=1e-5)
    doubled = regress([2 * delta for delta in deltas], moments)
    assert torch.allclose(doubled, 2 * merged, atol=1e-5)


def test_generic_rows_are_left_to_the_base_as_far_as_asked() -> None:
    deltas = [normal(5, 8, seed=i) for i in range(2)]
    moments, generic = [moment(normal(3, 8, seed=i)) for i in range(2)], normal(3, 8, seed=9)
    moved = [
        (generic @ regress(deltas, moments, moment(generic), preserve=p, ridge=1e-3).T).norm()
        for p in (0.0, 1.0, 100.0)
    ]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.1 * moved[0]


LAYERS = (
    (nn.Linear(6, 4, bias=False), (2, 5, 6)),
    (nn.Linear(6, 4, bias=False), (3, 6)),
    (nn.Conv2d(3, 4, 3, padding=1, bias=False), (2, 3, 6, 5)),
    (nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2, bias=False), (2, 3, 9, 9)),
    (nn.Conv2d(3, 4, 1, bias=False), (2, 3, 4, 4)),
)


@pytest.mark.parametrize(("module", "shape"), LAYERS)
def test_rows_times_the_flat_weight_are_what_the_layer_answers(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    inputs = normal(*shape)
    weight = module.weight
    assert isinstance(weight, Tensor)
    rows = torch.stack(list(rows_of(module, inputs)))
    answered = rows @ weight.flatten(1).T
    outputs = module(inputs)
    if outputs.ndim == 4:
        outputs = outputs.flatten(2).transpose(1, 2)
    assert can_capture(module)
    assert rows.shape[-1] == width_of(module)
    assert torch.allclose(answered.flatten(0, 1), outputs.reshape(-1, 4), atol=1e-5)


def test_moments_sum_up_over_calls_and_stop_with_the_context() -> None:
    module = nn.Linear(6, 4)
    first, second = normal(2, 5, 6), normal(1, 7, 6, seed=1)
    with capturing({"layer": module}) as found:
        module(first)
        module(second)
    module(normal(4, 4, 6))
    rows = torch.cat([first.flatten(0, 1), second.flatten(0, 1)])
    assert found["layer"].rows == len(rows) == 17
    assert torch.allclose(found["layer"].mean.float(), moment(rows), atol=1e-5)


def test_large_pictures_count_by_a_drawn_part_of_their_positions() -> None:
    module, inputs = nn.Linear(4, 4), normal(2, 40 * ROWS, 4)
    with capturing({"layer": module}) as found:
        module(inputs)
    assert found["layer"].rows == 2 * ROWS
    mean = found["layer"].mean.float()
    assert torch.allclose(mean, moment(inputs.flatten(0, 1)), atol=0.5)


def test_layers_are_grouped_by_the_memory_of_their_moments() -> None:
    modules = {
        name: nn.Linear(width, 2) for name, width in zip("abcd", (10, 10, 30, 5), strict=True)
    }
    assert list(in_groups(modules, 2, 2 * 8 * 200)) == [["a", "b"], ["c"], ["d"]]
    assert not can_capture(nn.Embedding(3, 3))
