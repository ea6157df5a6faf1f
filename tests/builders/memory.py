"""Which models lie in memory that did not lie there before."""

from __future__ import annotations

import gc


class Fresh:
    """Counts objects of kinds that were made since; other tests' models may still be held."""

    def __init__(self, *kinds: type) -> None:
        gc.collect()
        self.kinds = kinds
        self._before = _alive(kinds)  # held, so that no later object gets the id of one

    def counts(self) -> tuple[int, ...]:
        """Count the new objects of each kind, without collecting garbage first."""
        known = {id(held) for held in self._before}
        fresh = [type(held) for held in _alive(self.kinds) if id(held) not in known]
        return tuple(map(fresh.count, self.kinds))


def _alive(kinds: tuple[type, ...]) -> list[object]:
    return [held for held in gc.get_objects() if type(held) in kinds]
