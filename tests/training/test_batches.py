"""Batches: every pair in its turn, one size at a time, the same on any resumption."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import torch
from hypothesis import given
from hypothesis import strategies as st

from customize.shapes import Encoded
from customize.training.batches import Sample, Shard, batches, draw, step_generator

SQUARE, WIDE = (4, 8, 8), (4, 6, 10)


def sample(shape: tuple[int, ...], value: float, frequency: float = 1.0) -> Sample:
    encoded = Encoded(
        torch.full(shape, value), torch.zeros(shape), {"source": torch.full(shape, value)}
    )
    return Sample(encoded, encoded, frequency, weight=value)


@given(count=st.integers(1, 9), pairs=st.integers(1, 7), seed=st.integers(0, 99))
def test_equal_pairs_come_once_an_epoch(count: int, pairs: int, seed: int) -> None:
    sequence = draw([1.0] * pairs, [SQUARE] * pairs, count, seed)
    flat = [index for batch in islice(sequence, 3 * pairs) for index in batch]
    for epoch in range(3 * count):
        assert sorted(flat[epoch * pairs : (epoch + 1) * pairs]) == list(range(pairs))


def test_pairs_come_as_often_as_they_should() -> None:
    sequence = draw([3.0, 1.0], [SQUARE] * 2, 8, seed=0)
    counts = Counter(index for batch in islice(sequence, 100) for index in batch)
    assert counts[0] / counts[1] == 3.0


def test_a_batch_holds_one_size_and_rare_sizes_get_their_turn() -> None:
    shapes = [SQUARE] * 5 + [WIDE]
    seen = list(islice(draw([1.0] * 6, shapes, 4, seed=1), 300))
    assert all(len({shapes[index] for index in batch}) == 1 for batch in seen)
    share = sum(5 in batch for batch in seen) / len(seen)
    assert abs(share - 1 / 6) < 0.01


def test_a_later_start_and_other_processes_take_their_part_of_one_sequence() -> None:
    samples = [sample(SQUARE, value) for value in range(5)]

    def weights(first: int, shard: Shard, number: int) -> list[list[float]]:
        count = 4 // shard.processes
        found = batches(samples, count, seed=3, first=first, shard=shard)
        return [batch.weight_B.tolist() for batch in islice(found, number)]

    whole = weights(0, Shard(), 12)
    assert weights(5, Shard(), 7) == whole[5:]
    assert weights(0, Shard(0, 2), 12) == [batch[0::2] for batch in whole]
    assert weights(3, Shard(1, 2), 9) == [batch[1::2] for batch in whole[3:]]
    assert whole[0] != whole[1]


@given(whole=st.integers(0, 40), processes=st.integers(1, 8), first=st.integers(0, 40))
def test_shards_share_everything_out(whole: int, processes: int, first: int) -> None:
    numbers = torch.arange(whole)
    shards = [Shard(rank, processes) for rank in range(processes)]
    taken = [shard.of(numbers).tolist() for shard in shards]
    assert sorted(number for part in taken for number in part) == numbers.tolist()
    counted = [sum(number < first for number in part) for part in taken]
    assert counted == [shard.count(min(first, whole)) for shard in shards]


def test_stacking_keeps_each_sample_together() -> None:
    batch = next(batches([sample(SQUARE, value) for value in range(3)], 3, seed=0))
    assert batch.mean_BChw.shape == (3, *SQUARE)
    assert batch.mean_BChw[:, 0, 0, 0].tolist() == batch.weight_B.tolist()
    assert batch.conditions["source"][:, 0, 0, 0].tolist() == batch.weight_B.tolist()


def test_every_step_draws_differently_and_again_the_same() -> None:
    drawn = {
        torch.rand((), generator=step_generator(seed, step)).item()
        for seed in range(3)
        for step in range(9)
    }
    assert len(drawn) == 27
    again = [torch.rand(4, generator=step_generator(1, 11)) for _ in range(2)]
    assert torch.equal(*again)
