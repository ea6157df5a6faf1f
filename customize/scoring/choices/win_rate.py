"""How often one adapter's results are preferred to another's, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from customize.scoring.choices.choice import Choice, Contestant

Z95 = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""


@dataclass(frozen=True)
class Interval:
    """A share with the 95 % interval around it, all in 0..1."""

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it in percent."""
        return f"{100 * self.share:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"


@dataclass(frozen=True)
class Duel:
    """All choices between two contestants: how often each won; `one` and `other` are labels."""

    one: str
    other: str
    won: int
    lost: int
    ties: int
    neither: int

    @property
    def met(self) -> int:
        """Return how often they met."""
        return self.won + self.lost + self.ties + self.neither

    @property
    def rate(self) -> Interval | None:
        """Return how often `one` was preferred, a tie being half a win for each.

        Where neither result was of use nothing was preferred: those do not count.
        """
        counted = self.won + self.lost + self.ties
        return wilson(self.won + self.ties / 2, counted) if counted else None


def wilson(wins: float, count: int) -> Interval:
    """Return the share of `wins` among `count`, with Wilson's score interval (1927, equation 5).

    >>> str(wilson(8, 10))
    '80 % (49 to 94)'
    """
    assert 0 <= wins <= count > 0
    share, z2 = wins / count, Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def duels(choices: Sequence[Choice]) -> list[Duel]:
    """Count the choices between every two contestants that met, in the order they came up.

    Results of one contestant by different seeds tell nothing of it, and are left out.
    """
    labels = names(choices)
    found = [duel_of(choices, one, other, labels) for one, other in combinations(labels, 2)]
    return [duel for duel in found if duel.met]


def first_place(choices: Sequence[Choice]) -> Interval | None:
    """Return how often the result shown first won, of all that was decided: half, if fairly."""
    decisions = [choice.won for choice in choices if choice.winner is not None]
    return wilson(decisions.count("first"), len(decisions)) if decisions else None


def names(choices: Sequence[Choice]) -> dict[Contestant, str]:
    """Name every contestant by the label it first had, those of one label by their hashes too."""
    labels: dict[Contestant, str] = {}
    for choice in choices:
        for result in (choice.first, choice.second):
            labels.setdefault(result.contestant, result.label)
    counted = list(labels.values())
    return {
        key: label if counted.count(label) == 1 else f"{label} {_short(key)}"
        for key, label in labels.items()
    }


def _short(contestant: Contestant) -> str:
    base, adapters = contestant
    return "+".join(f"{sha256[:8]}:{strength:g}" for sha256, strength in adapters) or base[:8]


def duel_of(
    choices: Sequence[Choice], one: Contestant, other: Contestant, labels: Mapping[Contestant, str]
) -> Duel:
    """Count the choices between two contestants, named as in `labels`."""
    met = [c for c in choices if {c.first.contestant, c.second.contestant} == {one, other}]
    winners = [choice.winner.contestant for choice in met if choice.winner]
    kinds = [choice.won for choice in met]
    return Duel(
        labels[one],
        labels[other],
        won=winners.count(one),
        lost=winners.count(other),
        ties=kinds.count("tie"),
        neither=kinds.count("neither"),
    )
