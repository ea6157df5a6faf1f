"""The folder a run leaves behind: what lies where, what is finished, what may be written over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from customize.adapters.file import read_header
from customize.errors import AdapterFileError, TrainingError
from customize.files import refuse_existing, replacing
from customize.files.lock import holder, in_use
from customize.files.manifest import Manifest
from customize.recipe import Recipe


@dataclass(frozen=True)
class RunFolder:
    """Names of everything in a run's folder. The adapter is written last: it says "finished"."""

    path: Path

    @property
    def adapter(self) -> Path:
        """What was learned: the file users keep."""
        return self.path / "adapter.safetensors"

    @property
    def best(self) -> Path:
        """The adapter at the step that did best on held-out previews."""
        return self.path / "best.safetensors"

    @property
    def steps(self) -> Path:
        """Adapters after earlier steps, where the recipe keeps them."""
        return self.path / "steps"

    @property
    def rescued(self) -> Path:
        """The last good adapter of a run that broke."""
        return self.path / "last_good.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The private state from which a stopped run goes on, and a finished one further."""
        return self.path / "checkpoint.safetensors"

    @property
    def cache(self) -> Path:
        """Encoded pairs, named by their content."""
        return self.path / "cache"

    @property
    def logs(self) -> Path:
        """TensorBoard's files."""
        return self.path / "logs"

    @property
    def previews(self) -> Path:
        """Contact sheets of edits."""
        return self.path / "previews"

    @property
    def curve(self) -> Path:
        """The loss curve."""
        return self.path / "loss.png"

    def check_free(self, recipe: Recipe, *, overwrite: bool, further: bool) -> None:
        """Refuse a finished run that is neither to be replaced nor to be trained further.

        Raises OutputExistsError, and TrainingError for a run that cannot be trained further.
        """
        done = _steps_in(self.adapter) if self.adapter.exists() else None
        if further:
            if not self.checkpoint.exists():
                raise TrainingError(
                    f"{self.path}: there is no checkpoint of a run to train further; expected "
                    f"{self.checkpoint.name} there; leave --continue out, or name that run's output"
                )
            steps = recipe.train.steps
            if done is not None and steps is not None and steps <= done:
                raise TrainingError(
                    f"train.steps: {steps}, and {self.adapter} has learned {done} already; "
                    "expected more to train further; raise it, such as "
                    f"--set train.steps={2 * done}"
                )
            return
        more = "raise train.steps and pass --continue to train it further, choose another output, "
        refuse_existing(
            self.adapter, overwrite=overwrite, cure=f"{more}or pass --overwrite to train anew"
        )

    @contextmanager
    def held(self, recipe: Recipe, *, overwrite: bool) -> Iterator[Manifest]:
        """Hold the folder for one run; with `overwrite` what a run wrote there waits aside.

        It is gone when `finish` of the list given is called, and back where the run fails; a run
        that was stopped or killed while it replaced another goes on by the same call. Raises
        OutputError for a folder in use, OutputExistsError where a file lies that no run wrote.
        """
        with in_use(self.path):
            listed = Manifest(self.path, "train", self.adapter.name)
            stopped = listed.replaces and self.checkpoint.exists() and not self.adapter.exists()
            if overwrite and not stopped:
                listed.begin_anew(self.names(recipe))
            else:
                listed.begin(self.names(recipe))
            try:
                yield listed
            except Exception:
                if listed.replaces:
                    listed.undo(keep=[self.rescued.name])
                raise

    def trainer(self) -> int | None:
        """Return the id of the process that trains in the folder, None where none does."""
        return holder(self.path)

    def names(self, recipe: Recipe) -> list[str]:
        """List what a run of this recipe writes, but for the cache, whose names are hashes."""
        names = [self.adapter.name, self.rescued.name, self.checkpoint.name, self.curve.name]
        names.append(f"{self.logs.name}/events.out.tfevents.*")
        if recipe.save.keep_steps:
            names.append(f"{self.steps.name}/step_*.safetensors")
        if recipe.preview.every is not None:
            names.append(f"{self.previews.name}/step_*.png")
            if recipe.preview.images is not None and recipe.save.keep_best:
                names.append(self.best.name)
        return names

    def at_step(self, step: int) -> Path:
        """Name the adapter after a step."""
        return self.steps / f"step_{step:06d}.safetensors"

    def preview(self, step: int) -> Path:
        """Name the preview of a step."""
        return self.previews / f"step_{step:06d}.png"


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _steps_in(adapter: Path) -> int | None:
    """Return how many steps an adapter learned, None where it does not say."""
    try:
        steps = read_header(adapter).training.get("steps")
    except AdapterFileError:
        return None
    return steps if isinstance(steps, int) else None
