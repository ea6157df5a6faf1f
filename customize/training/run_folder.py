"""The folder a run leaves behind: what lies where, what is finished, what may be written over."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from customize.files import refuse_existing, replacing
from customize.files.write import remove_temporaries


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
        """The adapter at the step that scored best on held-out previews."""
        return self.path / "best.safetensors"

    @property
    def rescued(self) -> Path:
        """The last good adapter of a run that broke."""
        return self.path / "last_good.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The private state from which a stopped run goes on; gone when it is finished."""
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

    def begin(self, *, overwrite: bool) -> None:
        """Make the folder ready, and clear an earlier run's results away if that is wanted.

        Raises OutputExistsError for a finished run that is not to be overwritten.
        """
        cure = "choose another output, or pass --overwrite to train anew"
        refuse_existing(self.adapter, overwrite=overwrite, cure=cure)
        if overwrite:
            for path in (self.adapter, self.best, self.rescued, self.checkpoint, self.curve):
                path.unlink(missing_ok=True)
            for folder in (self.logs, self.previews):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.path, self.cache, self.previews):
            folder.mkdir(parents=True, exist_ok=True)
            remove_temporaries(folder)

    def preview(self, step: int) -> Path:
        """Name the preview of a step."""
        return self.previews / f"step_{step:06d}.png"


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
