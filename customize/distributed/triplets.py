"""Draw and judge triplets on a Ray cluster: workers hold the models, this process keeps the groups.

Groups come back in their order and each is drawn as a single process draws it, so that the triplets
are the same however many workers there are; a group whose worker dies is drawn again.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from customize.distributed.cluster import workers_and_share
from customize.recipe.synthesis import SynthesisRecipe
from customize.synthesis.filtering.thresholds import Thresholds
from customize.synthesis.samples import Sample, SampleStage
from customize.synthesis.texts import Prompts

AHEAD = 2
"""Groups on their way for each worker: one is drawn, the next one waits there."""


class Drawer:
    """An actor that holds the base and CLIP of a recipe: one a GPU or a share of the CPUs."""

    def __init__(self, recipe: SynthesisRecipe, thresholds: Thresholds) -> None:
        """Open all models once for all groups to come."""
        import torch

        from customize.synthesis.run import open_stage

        torch.set_num_threads(1)
        self._stage = open_stage(recipe, thresholds)

    def draw(self, group: bytes) -> bytes:
        """Draw one group; pickled both ways, as the cluster need not know what is in it."""
        prompts: Prompts = pickle.loads(group)
        return pickle.dumps(self._stage.samples(prompts.edits()))


def drawn_by_workers(
    recipe: SynthesisRecipe,
    stage: SampleStage,
    groups: Iterable[Prompts],
    told: Callable[[int], None],
    *,
    workers: int | None = None,
) -> Iterator[tuple[Prompts, list[Sample]]]:
    """Yield groups in order with their samples; `told` hears how many pairs were drawn.

    `workers` None takes one for each GPU, without GPUs one for each CPU. Those that are still
    drawing when the caller has enough are stopped. Bases must lie under the same paths everywhere.
    """
    import ray  # pyright: ignore[reportMissingImports]

    count, share = workers_and_share(workers)
    actor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, **share)(Drawer)
    drawers = [actor.remote(recipe, stage.thresholds) for _ in range(count)]
    coming: deque[tuple[Prompts, Any]] = deque()

    def oldest() -> tuple[Prompts, list[Sample]]:
        prompts, answer = coming.popleft()
        samples: list[Sample] = pickle.loads(ray.get(answer))
        told(len(samples))
        return prompts, samples

    try:
        for number, prompts in enumerate(groups):
            drawer = drawers[number % count]
            coming.append((prompts, drawer.draw.remote(pickle.dumps(prompts))))
            if len(coming) >= AHEAD * count:
                yield oldest()
        while coming:
            yield oldest()
    finally:
        for drawer in drawers:
            ray.kill(drawer)
