"""The steps of a run, and everything that happens beside them: reports, previews, files."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from customize.editing.sample import at_once_on_cpu
from customize.errors import TrainingError
from customize.training.best_preview import Best, judge
from customize.training.finish import RunResult, late_loss, write_adapter, write_results
from customize.training.learning_left import still_falling
from customize.training.plan import Plan
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


class RunLoop:
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
        """Take what is learned and the folder; `enough` looks after each step whether to end."""
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
                    ended = self._enough(session)  # first: a checkpoint knows what it found
                    self._after(step, reports)
                    if ended:
                        break
                    if stop.everywhere(session.accelerator) and step.step < session.pace.steps:
                        return self._stopped()
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
            if self._plan.recipe.save.keep_steps:
                write_adapter(self._plan, self._session, self._folder.at_step(step.step))
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
    device, at_once = session.accelerator.device, max(1, plan.recipe.train.batch // 3)
    if device.type == "cpu":
        cells = session.samples[0].edited.target_mean_Chw[0].numel()
        at_once = max(at_once, at_once_on_cpu(cells))
    return Previewer(
        plan.base,
        session.live,
        session.attached,
        choose_shown(plan),
        sampling,
        scheduler=scheduler,
        device=device,
        seed=plan.recipe.preview.seed,
        at_once=at_once,
    )


def _told(best: Best, result: RunResult) -> str:
    """Say which step did best on held-out edits, and where it is kept."""
    if best.step == result.steps:
        return " (no earlier step was surely better on held-out edits)"
    kept = f": {result.best}" if result.best else ""
    return f" (better on held-out edits after step {best.step}{kept})"
