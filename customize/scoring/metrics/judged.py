"""Metrics that a judge gives: how well an edit follows its instruction, and keeps the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from customize.scoring.items import Answer, Item, Models
from customize.scoring.judging.opinion import JudgedEdit, Opinion
from customize.scoring.networks.embed import Contents, opened

NO_JUDGE = "no judge was named (--judge)"
CODE_VERSION = 1
"""Raise it whenever what judges see changes; what a store holds is then asked again."""


class Opinions:
    """A judge's opinions of all items, each asked for once and then kept in the models' store."""

    def __init__(
        self,
        items: Sequence[Item],
        contents: Contents,
        models: Models,
        *,
        at_once: int,
        progress: bool,
    ) -> None:
        """Ask for what the store does not hold; raises EndpointError."""
        self._contents, self._models = contents, models
        self._failures: dict[str, str] = {}
        judge = models.judge
        if judge is None:
            return
        asked = {self._key(item): item for item in items}
        held = models.store.get(list(asked))
        missing = [(key, item) for key, item in asked.items() if key not in held]
        starts = range(0, len(missing), at_once)
        for start in tqdm(starts, "judging", disable=None if progress else True, leave=False):
            part = missing[start : start + at_once]
            opinions = judge.opinions([_edit(item) for _, item in part])
            for (key, _), opinion in zip(part, opinions, strict=True):
                self._keep(key, opinion)

    def answer(self, item: Item, place: int) -> Answer:
        """Return the first score (it follows) or the second (it keeps), or why there is none."""
        if self._models.judge is None:
            return NO_JUDGE
        key = self._key(item)
        held = self._models.store.get([key]).get(key)
        return self._failures[key] if held is None else float(held[place])

    def _keep(self, key: str, opinion: Opinion) -> None:
        if opinion.scores is None:
            self._failures[key] = f"the judge gave no scores ({opinion.failure})"
        else:
            self._models.store.put({key: np.array(opinion.scores)})

    def _key(self, item: Item) -> str:
        assert self._models.judge is not None
        pictures = [self._contents.key(picture) for picture in (item.source, item.output)]
        facts = ["judged", str(CODE_VERSION), self._models.judge.fingerprint, *pictures]
        return " ".join([*facts, item.wording])


def _edit(item: Item) -> JudgedEdit:
    return JudgedEdit(opened(item.source), item.wording, opened(item.output))
