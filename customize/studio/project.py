"""The project folder, and the one door for names and paths that come from the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from customize.errors import StudioError
from customize.files.spelling import resolved
from customize.studio.pair_folder import PairFolder
from customize.training.run_folder import RunFolder

Kind = Literal["pairs", "recipes", "runs"]
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
UPLOADS = "uploads"
"""What browsers send lies here, inside the project, until it is read."""


@dataclass(frozen=True)
class Project:
    """A folder with `pairs/`, `recipes/`, `runs/` and `choices/`; `root` is absolute and real."""

    root: Path

    def place(self, kind: Kind, name: object) -> Path:
        """Return where the pairs, the recipe or the run of that name lies, there or not.

        Raises StudioError for what is no plain name: nothing else leads to a path.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise StudioError(
                f"the name {name!r:.80}: expected small letters, digits, _ and -, such as my_dog; "
                "write such a one"
            )
        return self._checked(self.root / kind / (f"{name}.yaml" if kind == "recipes" else name))

    def inside(self, written: object) -> Path:
        """Return the path that is written from the project folder on; raises StudioError."""
        if not isinstance(written, str) or not written.strip() or "\0" in written:
            raise StudioError("no folder: expected one inside the project folder; write its name")
        return self._checked(self.root / written.strip())

    def _checked(self, path: Path) -> Path:
        """Refuse what is outside of the project, also by way of a link."""
        if not resolved(path).is_relative_to(self.root):
            raise StudioError(
                f"{path.name!r:.80} is outside of the project folder; expected a place inside; "
                "copy it into the project, or start the studio in another folder"
            )
        return path

    def names(self, kind: Kind) -> list[str]:
        """List what is there of a kind, by name."""
        folder = self.root / kind
        found = folder.glob("*.yaml") if kind == "recipes" else folder.glob("*/")
        return sorted(path.stem for path in found if _NAME.fullmatch(path.stem))

    def adapters(self) -> dict[str, Path]:
        """Return the adapters of all runs, `my_dog`, `my_dog best`, `my_dog step 50`, by label."""
        found: dict[str, Path] = {}
        for name in self.names("runs"):
            run = RunFolder(self.root / "runs" / name)
            labelled = {name: run.adapter, f"{name} best": run.best}
            for path in sorted(run.steps.glob("step_*.safetensors")):
                if number := re.fullmatch(r"step_0*([1-9][0-9]*)", path.stem):
                    labelled[f"{name} step {number[1]}"] = path
            found |= {label: path for label, path in labelled.items() if path.is_file()}
        return found

    def adapter(self, label: object) -> Path:
        """Return the file of an adapter by its label; raises StudioError for one not there."""
        found = self.adapters()
        if not isinstance(label, str) or label not in found:
            known = ", ".join(found) or "none yet: train one"
            raise StudioError(f"adapter {label!r:.80}: not there; expected one of {known}")
        return found[label]

    def pair_folder(self, name: object) -> PairFolder:
        """Return the set of pairs of that name; raises StudioError."""
        return PairFolder(self.place("pairs", name), self.root)

    @property
    def choices(self) -> Path:
        """The folder of choices."""
        return self.root / "choices"
