"""Go on from a finished adapter with choices: winners as pairs, or preference training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
from pydantic import ValidationError
from torch import Tensor

from customize.adapters.at_base import other_base
from customize.adapters.file import AdapterFile, read_adapter
from customize.errors import Fault, RecipeError, TrainingError
from customize.files import refuse_existing
from customize.files.spelling import resolved
from customize.recipe import Recipe
from customize.scoring.choices.choice import Choice, decided
from customize.scoring.choices.read import read_choices
from customize.training.finish import RunResult
from customize.training.plan import Plan
from customize.training.refining.chosen import Chosen, encode_chosen
from customize.training.refining.held_out import EVERY, HeldOut, split
from customize.training.refining.preference import Preference
from customize.training.refining.winners import with_winners
from customize.training.run import run_recipe
from customize.training.run_folder import RunFolder
from customize.training.run_loop import Log
from customize.training.session import Session

How = Literal["pairs", "preference"]
STEPS = 100


def refine(
    run: Path,
    choices: Path,
    output: Path,
    how: How,
    *,
    steps: int = STEPS,
    learning_rate: float | None = None,
    overwrite: bool = False,
    log: Log = print,
    progress: bool = True,
) -> RunResult:
    """Refine the adapter of `run` (its folder or file) by the table `choices` into `output`.

    `learning_rate` None is half of what the adapter was trained with. The run's own pairs and what
    it preserves go on being learned. Raises FaultsError, AdapterFileError, TrainingError.
    """
    file = RunFolder(run).adapter if run.is_dir() else run
    start = read_adapter(file)
    chosen = decided(read_choices(choices))
    if not chosen:
        raise TrainingError(
            f"{choices}: nothing was decided in any of its choices; expected at least one in which "
            "a result won; choose between more"
        )
    recipe = _recipe_of(file, start)
    if resolved(output) == resolved(recipe.output) or resolved(output) == resolved(run):
        raise TrainingError(
            f"output {output}: the run that is refined is there; expected another folder; name one"
        )
    refuse_existing(RunFolder(output).adapter, overwrite=overwrite)
    rate = learning_rate or recipe.train.learning_rate / 2
    train = {"steps": steps, "epochs": None, "learning_rate": rate, "ema": None, "warmup": 0}
    train |= {"word_learning_rate": None, "schedule": "constant"}
    recipe = recipe.model_copy(
        update={"output": output, "train": recipe.train.model_copy(update=train)}
    )
    facts = {
        "refined": hashlib.sha256(file.read_bytes()).hexdigest(),
        "refined_by": how,
        "choices": _digest(chosen),
    }
    match how:
        case "pairs":
            beside = choices if choices.is_dir() else choices.parent
            recipe = with_winners(recipe, chosen, beside / f"winners_{output.name}")
            amendment = FromAdapter(start, facts)
        case "preference":
            amendment = Preferring(start, facts, chosen)
        case _:
            assert_never(how)
    return run_recipe(recipe, overwrite=overwrite, log=log, progress=progress, amendment=amendment)


class FromAdapter:
    """A run that begins where another one ended."""

    def __init__(self, start: AdapterFile, facts: dict[str, Any]) -> None:
        """Take the adapter to start from, and what its header is to say of that."""
        self._start, self._facts = start, facts

    def prepare(self, plan: Plan, folder: RunFolder, device: torch.device) -> None:
        """Refuse a base that is not the one the adapter was made for."""
        if found := other_base(self._start.header, plan.base):
            raise TrainingError(f"{found}; expected its own base; name it in the recipe's `base`")

    def begin(self, session: Session, log: Log) -> None:
        """Put the adapter's tensors where the session's are."""
        state, live = dict(self._start.tensors), session.attached.tensors()
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes != {name: tuple(tensor.shape) for name, tensor in live.items()}:
            raise TrainingError(
                "the adapter's tensors are not those that its recipe trains; expected an adapter "
                "as a run left it; refine the run's own file"
            )
        session.attached.load(state)
        session.facts = self._facts

    def enough(self, session: Session) -> bool:
        """Learn to the last step."""
        return False


class Preferring(FromAdapter):
    """A run that learns which results are preferred, until choices held out agree no better."""

    def __init__(
        self, start: AdapterFile, facts: dict[str, Any], choices: Sequence[Choice]
    ) -> None:
        """Take the decided choices too."""
        super().__init__(start, facts)
        self._choices = choices
        self._learned: list[Chosen] = []
        self._kept: list[Chosen] = []
        self._held_out: HeldOut | None = None
        self._preference: Preference | None = None
        self._log: Log = print

    def prepare(self, plan: Plan, folder: RunFolder, device: torch.device) -> None:
        """Encode the choices."""
        super().prepare(plan, folder, device)
        chosen = encode_chosen(plan, self._choices, folder, device)
        self._learned, self._kept = split(chosen, plan.recipe.train.seed)

    def begin(self, session: Session, log: Log) -> None:
        """Set the loss, and the reference: a copy of the adapter as it is now."""
        super().begin(session, log)
        reference, seed = session.attached.state(), session.seed
        at_once, self._log = max(1, session.batch // 2), log
        self._preference = Preference(self._learned, reference, at_once=at_once, seed=seed)
        session.loss_of, session.beside = self._preference, self
        if self._kept:
            self._held_out = HeldOut(self._kept, reference, at_once=at_once, seed=seed)
        log(f"{len(self._learned)} choices to learn from, {len(self._kept)} held out")

    def known(self) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """Return the best adapter so far, and what was found on the way."""
        assert self._preference is not None
        best, found = self._held_out.known() if self._held_out else ({}, None)
        return best, {"preference": self._preference.known(), "held_out": found}

    def know_again(
        self, session: Session, best: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Go on where `known` was asked."""
        assert self._preference is not None
        batches = session.done * session.pace.accumulation
        self._preference.know_again(values["preference"], batches)
        if self._held_out is not None and values["held_out"]:
            self._held_out.know_again(best, values["held_out"])

    def enough(self, session: Session) -> bool:
        """Look at the held-out choices now and then; at the end the best adapter is put back."""
        last = session.done == session.pace.steps
        if self._held_out is None or (session.done % EVERY and not last):
            return False
        watch = self._held_out
        share, better = watch.look(session.family, session.attached, session.done)
        self._log(f"step {session.done}: it agrees with {share:.0%} of the held-out choices")
        if better and not last:
            return False
        session.attached.load(watch.state)
        self._log(
            f"best after step {watch.best_step}"
            if watch.best_step
            else "no step agreed with the held-out choices better than the adapter as it was: "
            "that is what is written; choose between more results"
        )
        return True


def _recipe_of(file: Path, start: AdapterFile) -> Recipe:
    """Return the recipe in the adapter's header, whose relative paths start at the working folder.

    Raises TrainingError where there is none, RecipeError for what it names and is not there.
    """
    try:
        recipe = Recipe.model_validate(start.header.recipe)
        named = {f"concepts.{i}.pairs": each.pairs for i, each in enumerate(recipe.concepts)}
        if recipe.base.name.startswith((".", "/")):
            named["base"] = Path(recipe.base.name)
        cure = "work in the folder in which it was trained"
        missing = [
            Fault(place, f"{path} is not there", cure)
            for place, path in named.items()
            if not path.exists()
        ]
        if missing:
            raise RecipeError(f"recipe of {file}", missing)
        return recipe
    except ValidationError:
        raise TrainingError(
            f"{file}: its header holds no recipe to go on with; expected the adapter of "
            "`customize train`; merged and imported ones cannot be refined"
        ) from None


def _digest(choices: Sequence[Choice]) -> str:
    """Name the choices by all that is learned from them."""
    named = [
        (choice.source.name, choice.instruction, choice.first.picture.name, choice.won)
        for choice in choices
    ]
    seconds = [choice.second.picture.name for choice in choices]
    return hashlib.sha256(repr([named, seconds]).encode()).hexdigest()
