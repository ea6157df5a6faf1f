"""Every error raised on purpose, written for the person who typed the command.

A message says what was found, what was expected and what to do. Only `cli/main.py` prints these and
exits with code 2; our own broken assumptions stay `assert`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class CustomizeError(Exception):
    """A fault the user can mend; `str(error)` is the whole message."""

    def sentences(self) -> Sequence[str]:
        """Return the message, line by line where it has several."""
        return [str(self)]


@dataclass(frozen=True)
class Fault:
    """One fault of several: where it is, what was found there, and its cure.

    An error stops what was asked for; a warning is for the user to judge.
    """

    place: str
    found: str
    cure: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """Return the fault as one line."""
        level = "warning: " if self.level == "warning" else ""
        return f"{level}{self.place}: {self.found}; {self.cure}"


MOST_FAULTS = 20
"""Faults that are told; of more, their number."""


class FaultsError(CustomizeError):
    """All faults of one input at once, so that one correction round is enough.

    `told` are the first 20, and what says how many more there are.
    """

    def __init__(self, title: str, faults: Sequence[Fault]) -> None:
        """Take at least one fault under a title such as `recipe recipes/my_dog.yaml`."""
        assert faults, "a FaultsError without faults"
        self.title, self.faults = title, tuple(faults)
        self.told = self.faults[:MOST_FAULTS]
        if len(faults) > MOST_FAULTS:
            more = f"and {len(faults) - MOST_FAULTS} more"
            self.told += (Fault("...", more, "mend these first"),)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        self.heading = f"{title}: {count}"
        super().__init__("\n".join([self.heading, *(f"  {fault}" for fault in self.told)]))


class RecipeError(FaultsError):
    """The recipe or an override of it cannot be used."""


class PairsError(FaultsError):
    """The training pairs cannot be used."""


class BaseModelError(CustomizeError):
    """The base model is missing, unreadable or of a kind that cannot be trained."""

    def __init__(self, found: str, cure: str) -> None:
        """Take what was found and expected, and what to do: faults in a recipe show them apart."""
        super().__init__(found, cure)
        self.found, self.cure = found, cure

    def __str__(self) -> str:
        """Return the whole message."""
        return f"{self.found}; {self.cure}"


class AdapterFileError(CustomizeError):
    """The adapter file is missing, foreign, damaged or made for another base; several, each."""

    def __init__(self, *messages: str) -> None:
        """Take a sentence for each file."""
        super().__init__("\n".join(messages))
        self._messages = messages

    def sentences(self) -> Sequence[str]:
        """Return them one by one."""
        return self._messages


class OutputError(CustomizeError):
    """An output cannot or must not be written: no room, no right to, or somebody's data there."""

    def __init__(self, found: str, cure: str = "") -> None:
        """Take what was found and expected, and what to do: faults in a recipe show them apart."""
        super().__init__(f"{found}; {cure}" if cure else found)
        self.found, self.cure = found, cure


class OutputExistsError(OutputError):
    """Writing would replace a result that is already there."""


class TrainingError(CustomizeError):
    """Training cannot go on: non-finite loss, an adapter that does not move, out of memory."""


class EditError(CustomizeError):
    """The edit asked for cannot be made: a setting out of range, no instruction, bad pixels."""


class ScoreError(CustomizeError):
    """Edits cannot be scored: none are there, a metric lacks what it needs, a model is no CLIP."""


class ExportError(CustomizeError):
    """A target cannot hold the adapter, or not within the limits given."""


class MergeError(CustomizeError):
    """The adapters cannot be merged, or not in the way asked for."""


class SynthesisError(CustomizeError):
    """Triplets cannot be made: a writer that cannot be reached, captions without words, no base."""


class StudioError(CustomizeError):
    """What the page is asked for cannot be done: no such name, a run that goes on already."""


class EndpointError(CustomizeError):
    """A server of OpenAI's protocol cannot be used: no answer, or it refuses key or model."""


class HubError(CustomizeError):
    """The model hub refuses an upload, or cannot be reached."""
