"""Edit a folder on a Ray cluster: workers make groups, this process writes and notes them.

The groups are those of a single process, so the answers are bit for bit the same; a group whose
worker dies is made again by another (Ray Data repeats it), and what was written stays.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from customize.distributed.cluster import workers_and_share
from customize.editing import Editor
from customize.editing.folders.group import Group
from customize.editing.folders.plan import Edit
from customize.editing.folders.run import Finished, Outcome, encoded_in_turn
from customize.editing.options import EditOptions


@dataclass(frozen=True)
class Opening:
    """How a worker opens its own editor: what `Editor.from_base` and `load` are given.

    Paths must name the same files on every machine. `texts` and `options` are what `prepare` is
    given.
    """

    base: str
    revision: str | None
    precision: Any
    device: str | None
    adapters: tuple[tuple[str, float], ...]
    texts: tuple[str, ...]
    options: EditOptions

    def editor(self) -> Editor:
        """Open the base and load the adapters."""
        editor = Editor.from_base(
            self.base, revision=self.revision, precision=self.precision, device=self.device
        )
        for path, strength in self.adapters:
            editor.load(path, strength)
        editor.prepare(list(self.texts), self.options)
        return editor


class Worker:
    """An actor that holds the model: one a GPU or a share of the CPUs."""

    def __init__(self, opening: Opening, quality: int) -> None:
        """Open the base once for all groups to come."""
        import torch

        torch.set_num_threads(1)
        self._editor, self._quality = opening.editor(), quality

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make one group; rows are pickled, as Ray's tables know no pictures."""
        made: list[bytes] = []
        for content in batch["group"]:
            group, wanted = pickle.loads(content)
            made += map(pickle.dumps, encoded_in_turn(self._editor, [group], wanted, self._quality))
        return {"made": made}


def made_by_workers(
    groups: Sequence[Group], wanted: set[Edit], opening: Opening, quality: int, workers: int | None
) -> Iterator[Finished | Outcome]:
    """Yield the answers of all groups with a wanted edit, in the order workers finish them.

    `workers` None takes one for each GPU, without GPUs one for each CPU.
    """
    import ray.data  # pyright: ignore[reportMissingImports]

    due = [(group, wanted.intersection(group)) for group in groups if wanted.intersection(group)]
    if not due:
        return
    count, share = workers_and_share(workers)
    count = min(count, len(due))
    rows = [{"group": pickle.dumps(one)} for one in due]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,  # type: ignore[arg-type]
        fn_constructor_args=(opening, quality),
        batch_size=1,
        concurrency=count,
        **share,
    )
    for row in made.iter_rows():
        yield pickle.loads(row["made"])
