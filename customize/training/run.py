"""One run from recipe to adapter: opened, gone on with where it was stopped, and finished."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from customize.errors import TrainingError
from customize.recipe import Recipe
from customize.training.check import check_output
from customize.training.device import memory_explained, open_accelerator
from customize.training.finish import RunResult
from customize.training.memory.advice import smaller_settings
from customize.training.memory.workload import load_of
from customize.training.open_session import open_session
from customize.training.plan import Plan, plan_run
from customize.training.run_folder import RunFolder
from customize.training.run_loop import Log, RunLoop
from customize.training.session import Session


class Amendment(Protocol):
    """What a run of another kind changes: how it begins, and when it has learned enough."""

    def prepare(self, plan: Plan, folder: RunFolder, device: torch.device) -> None:
        """Encode what it needs before the denoiser comes."""
        ...

    def begin(self, session: Session, log: Log) -> None:
        """Change a session at step 0, before a stopped run is taken up."""
        ...

    def enough(self, session: Session) -> bool:
        """Look at the session after each step, and tell whether to end there."""
        ...


def run_recipe(
    recipe: Recipe,
    *,
    overwrite: bool = False,
    further: bool = False,
    log: Log = print,
    progress: bool = True,
    amendment: Amendment | None = None,
) -> RunResult:
    """Train what the recipe says into `recipe.output`; a stopped run of the same recipe goes on.

    `overwrite` trains anew where a run is finished, whose files are removed when this one is.
    `further` goes on where a run of fewer steps ended. `progress` shows a bar on a terminal. Raises
    OutputExistsError for a finished run and OutputError for an output that must not be written,
    BaseModelError and PairsError for what cannot be used, all of them before anything is touched;
    TrainingError for what breaks on the way. An `amendment` makes it a run of another kind.
    """
    accelerator = open_accelerator(recipe.train.precision)
    folder, main = RunFolder(recipe.output), accelerator.is_main_process
    say = log if main else (lambda _: None)
    with _warnings_told(say):
        check_output(recipe)
        folder.check_free(recipe, overwrite=overwrite, further=further)
        plan = plan_run(recipe, say)
        room, held = f"train.batch: {recipe.train.batch}", nullcontext()
        if main:
            held = folder.held(recipe, overwrite=overwrite)
        with held as listed, memory_explained(room, lambda: _smaller(plan, accelerator.device)):
            accelerator.wait_for_everyone()
            if amendment:
                amendment.prepare(plan, folder, accelerator.device)
            session = open_session(plan, accelerator, folder, progress=progress and main)
            if amendment:
                amendment.begin(session, say)
            saved = folder.checkpoint
            if saved.exists() and _restored(session, saved, overwrite, further):
                say(_going_on(session))
            elif listed is not None and overwrite:
                listed.begin_anew(folder.names(recipe))
            enough = amendment.enough if amendment else (lambda _: False)
            run = RunLoop(plan, session, folder, say, enough, progress=progress and main)
            result = run.to_the_end()
            if listed is not None and result.finished:
                listed.finish()
            return result


def _restored(session: Session, checkpoint: Path, overwrite: bool, further: bool) -> bool:
    """Bring a session to its checkpoint, but for one that does not fit and is to be replaced."""
    try:
        session.restore(checkpoint, further=further)
    except TrainingError:
        if not overwrite:
            raise
        return False
    return True


def _going_on(session: Session) -> str:
    """Say where a run goes on, and what becomes of the rate where it was to end before."""
    pace, done = session.pace, session.done
    said = f"going on after step {done} of {pace.steps}"
    if session.planned in (None, pace.steps) or pace.schedule == "constant":
        return said
    before = replace(pace, steps=session.planned).factor(max(0, done - 1))
    return (
        f"{said}: {session.planned} were planned, so the {pace.schedule} schedule is drawn anew "
        f"over {pace.steps}, and the rate goes on at {pace.factor(done):.0%} of the full one, "
        f"which was at {before:.0%}"
    )


def _smaller(plan: Plan, device: torch.device) -> list[str]:
    """List settings that need less memory, smaller pictures last."""
    found, options = smaller_settings(load_of(plan, device.type)), plan.recipe.pairs
    side = options.resolution or plan.base.resolution
    return [*found, f"pairs.resolution: {side * 3 // 4 // 64 * 64 or 64}"] if side >= 128 else found


@contextmanager
def _warnings_told(log: Log) -> Iterator[None]:
    """Log our own warnings once each instead of printing them with a line of code."""
    usual, told = warnings.showwarning, set[str]()

    def tell(message: Any, category: Any, filename: str, *rest: Any) -> None:
        if category is not UserWarning or str(message) in told:
            return
        told.add(str(message))
        log(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = tell
        try:
            yield
        finally:
            warnings.showwarning = usual
