"""Which samples each step learns from: one endless fixed sequence, so that resuming goes on."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from torch import Tensor

from customize.shapes import Encoded


@dataclass(frozen=True)
class Sample:
    """One encoded example; `frequency` says how often it is drawn, `weight` how much it counts.

    `unedited` is its source encoded as if it were the target: preserved samples' edits are guessed
    from it.
    """

    edited: Encoded
    unedited: Encoded
    frequency: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Samples of one size, stacked: the latent distributions of targets and sources, and more."""

    mean_BChw: Tensor
    std_BChw: Tensor
    unedited_mean_BChw: Tensor
    unedited_std_BChw: Tensor
    conditions: Mapping[str, Tensor]
    weight_B: Tensor


@dataclass(frozen=True)
class Shard:
    """One process's share of every batch: each `processes`th sample, from number `rank` on.

    All that is random is drawn for the whole batch by every process, which then takes its share:
    a run gives the same losses however many processes its batches are split among.
    """

    rank: int = 0
    processes: int = 1

    def of(self, whole: Tensor) -> Tensor:
        """Take this process's share of the first axis."""
        return whole[self.rank :: self.processes]

    def count(self, first: int) -> int:
        """Count those of this process among the `first` samples of a whole batch.

        >>> [Shard(rank, 3).count(5) for rank in range(3)]
        [2, 2, 1]
        """
        return len(range(self.rank, first, self.processes))


def batches(
    samples: Sequence[Sample],
    count: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    first: int = 0,
    shard: Shard = Shard(),
) -> Iterator[Batch]:
    """Yield without end, from number `first` on, `shard`'s `count` samples of each whole batch."""
    shapes = [_shapes(sample) for sample in samples]
    frequencies = [sample.frequency for sample in samples]
    indices = draw(frequencies, shapes, count * shard.processes, seed)
    for chosen in islice(indices, first, None):
        yield stack([samples[index] for index in chosen[shard.rank :: shard.processes]], device)


def draw(
    frequencies: Sequence[float], shapes: Sequence[Hashable], count: int, seed: int
) -> Iterator[tuple[int, ...]]:
    """Yield the indices of each batch; those of a batch share a shape.

    With equal frequencies each sample comes once in every epoch, in a new order. In general one of
    frequency f comes once, at a random moment, in each of its spans of 1 / f: weighted epochs.
    """
    assert frequencies
    assert min(frequencies) > 0
    random = Random(f"batches {seed}")
    # (moment, index, span number): the heap gives the next moment of all samples
    moments = [(random.random() / f, index, 0) for index, f in enumerate(frequencies)]
    heapq.heapify(moments)
    waiting: dict[Hashable, list[int]] = {}
    while True:
        _, index, span = moments[0]
        moment = (span + 1 + random.random()) / frequencies[index]
        heapq.heapreplace(moments, (moment, index, span + 1))
        alike = waiting.setdefault(shapes[index], [])
        alike.append(index)
        if len(alike) == count:
            yield tuple(alike)
            alike.clear()


def _shapes(sample: Sample) -> Hashable:
    """Tell what samples must share to be stacked: the sizes of all their pictures."""
    tensors = {"target": sample.edited.target_mean_Chw, **sample.edited.conditions}
    return tuple((name, tuple(tensors[name].shape)) for name in sorted(tensors))


def stack(samples: Sequence[Sample], device: torch.device | str = "cpu") -> Batch:
    """Put samples of one shape together on `device`."""

    def together(tensors: list[Tensor]) -> Tensor:
        return sent(torch.stack(tensors), device)

    edited, unedited = [s.edited for s in samples], [s.unedited for s in samples]
    return Batch(
        mean_BChw=together([e.target_mean_Chw for e in edited]),
        std_BChw=together([e.target_std_Chw for e in edited]),
        unedited_mean_BChw=together([e.target_mean_Chw for e in unedited]),
        unedited_std_BChw=together([e.target_std_Chw for e in unedited]),
        conditions={
            key: together([e.conditions[key] for e in edited]) for key in edited[0].conditions
        },
        weight_B=together([torch.tensor(s.weight) for s in samples]),
    )


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Send to `device` without waiting for it; Apple's would read memory that is freed by then."""
    return tensor.to(device, non_blocking=torch.device(device).type != "mps")


def step_generator(seed: int, step: int) -> torch.Generator:
    """Make the source of all that is random in one step; on the CPU, so that devices draw alike."""
    digest = hashlib.sha256(f"step {seed} 0 {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
