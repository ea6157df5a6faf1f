"""One run from recipe to adapter: the loop, and everything that happens beside the steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch

from customize.errors import TrainingError
from customize.recipe import Recipe
from customize.training.best_preview import Best, judge
from customize.training.check import check_output
from customize.training.device import memory_explained, open_accelerator
from customize.training.finish import RunResult, late_loss, write_adapter, write_results
from customize.training.learning_left import still_falling
from customize.training.memory.advice import smaller_settings
from customize.training.memory.workload import load_of
from customize.training.open_session import open_session
from customize.training.plan import Plan, plan_run
from customize.training.preview_choice import choose_sampling, choose_shown
from customize.training.previews import Previewer
from customize.training.progress import Reports
from customize.training.run_folder import RunFolder, save_picture
from customize.training.session import Session
from customize.training.steps import NonFiniteError, Step
from customize.training.stop_signal import stop_on_signal

Log = Callable[[str], None]
MOVED_BY = 10
"""Steps after which an adapter that is still where it began is given up."""


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
    say = log if main else _silent
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
            enough = amendment.enough if amendment else _never
            run = _Run(plan, session, folder, say, enough, progress=progress and main)
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


class _Run:
    """A session with what accompanies it: reports, previews, files. Only one process writes."""

    def __init__(
        self,
        plan: Plan,
        session: Session,
        folder: RunFolder,
        log: Log,
        enough: Callable[[Session], bool],
        *,
        progress: bool,
    ) -> None:
        self._plan, self._session, self._folder, self._log = plan, session, folder, log
        self._enough, self._progress = enough, progress
        self._main: bool = session.accelerator.is_main_process
        self._previewer = _previewer(plan, session) if self._main else None

    def to_the_end(self) -> RunResult:
        """Train until the last step or a stop; what is learned is written either way."""
        session, folder = self._session, self._folder
        try:
            with stop_on_signal() as stop, self._reports() as reports:
                for step in session.steps():
                    self._after(step, reports)
                    if stop.everywhere(session.accelerator) and step.step < session.pace.steps:
                        return self._stopped()
                    if self._enough(session):
                        break
        except NonFiniteError as error:
            raise self._rescued(error) from None
        self._check_moved()
        if not self._main:
            return RunResult(session.done, session.seconds, late_loss(session), folder.adapter)
        result = write_results(self._plan, session, folder)
        self._log(
            f"learned in {result.steps} steps and {result.seconds:.0f} s: {result.adapter}"
            + (_told(session.best, result) if session.best else "")
        )
        if falling := still_falling([concept for _, concept, _ in session.history]):
            self._log(str(falling))
        return result

    def _after(self, step: Step, reports: Reports) -> None:
        """Do what is due after a step. The preview comes before the checkpoint, which knows it."""
        last = step.step == self._session.pace.steps
        if step.step == min(MOVED_BY, self._session.pace.steps):
            self._check_moved()
        if not self._main:
            return
        reports.step(step)
        every = self._plan.recipe.preview.every
        if self._previewer is not None and every and (last or step.step % every == 0):
            self._preview(self._previewer, step.step, reports)
        if step.step % self._plan.recipe.save.every == 0 and not last:
            self._session.save(self._folder.checkpoint)

    def _preview(self, previewer: Previewer, step: int, reports: Reports) -> None:
        session = self._session
        with session.with_learned():
            preview = previewer.make()
        save_picture(preview.sheet, self._folder.preview(step))
        reports.picture(step, "preview", preview.sheet)
        if not preview.errors:
            return
        reports.figures(step, {"held_out_error": fmean(preview.errors)})
        session.best = judge(session.best, step, preview.errors, previewer.edits)
        if session.best.step == step and self._plan.recipe.save.keep_best:
            write_adapter(self._plan, session, self._folder.best)

    def _stopped(self) -> RunResult:
        session = self._session
        if self._main:
            session.save(self._folder.checkpoint)
        self._log(
            f"stopped after step {session.done} of {session.pace.steps} and saved; "
            "the same command goes on"
        )
        return RunResult(session.done, session.seconds, late_loss(session), adapter=None)

    def _rescued(self, error: NonFiniteError) -> TrainingError:
        """Keep the last good state, and say where."""
        if not self._main or not self._session.done:
            return TrainingError(str(error))
        write_adapter(self._plan, self._session, self._folder.rescued)
        return TrainingError(
            f"{error}, and run again with --overwrite; the adapter after step "
            f"{self._session.done} is kept in {self._folder.rescued}"
        )

    def _check_moved(self) -> None:
        movement = self._session.attached.movement()
        words_too = bool(self._plan.words)
        if movement.adapter > 0 and (movement.words > 0 or not words_too):
            return
        what = "adapter" if movement.adapter == 0 else "concept's word"
        raise TrainingError(
            f"step {self._session.done}: the {what} has not moved from where it began; expected "
            "gradients to reach it; raise train.learning_rate, and check that the pairs' weights "
            "are above 0 and preservation.share leaves room for them"
        )

    def _reports(self) -> Reports:
        recipe, session = self._plan.recipe, self._session
        return Reports(
            self._folder.logs,
            recipe.save.log if self._main else None,
            recipe.model_dump(mode="json"),
            steps=session.pace.steps,
            done=session.done,
            progress=self._progress,
            log=self._log,
        )


def _previewer(plan: Plan, session: Session) -> Previewer | None:
    """Make what makes previews, if the recipe asks for any."""
    if plan.recipe.preview.every is None:
        return None
    sampling, scheduler = choose_sampling(plan)
    return Previewer(
        plan.base,
        session.live,
        session.attached,
        choose_shown(plan),
        sampling,
        scheduler=scheduler,
        device=session.accelerator.device,
        seed=plan.recipe.preview.seed,
        at_once=max(1, plan.recipe.train.batch // 3),  # guidance makes three of each
    )


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


def _told(best: Best, result: RunResult) -> str:
    """Say which step did best on held-out edits, and where it is kept."""
    if best.step == result.steps:
        return " (no earlier step was surely better on held-out edits)"
    kept = f": {result.best}" if result.best else ""
    return f" (better on held-out edits after step {best.step}{kept})"


def _never(_: Session) -> bool:
    """Learn to the last step."""
    return False


def _silent(_: str) -> None:
    """Say nothing: another process does."""
