"""Where a run tells how it goes: a bar on the terminal, TensorBoard, and wandb or trackio."""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from customize.files.disk import is_full, naming_disk
from customize.training.steps import Step


class Reports:
    """The bar and the logs of one run, open from `with` to its end."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] | None,
        facts: Mapping[str, Any],
        *,
        steps: int,
        done: int,
        progress: bool,
        log: Callable[[str], None],
    ) -> None:
        """Open TensorBoard in `folder` and, of wandb and trackio, those named; None opens nothing.

        Steps after `done` that an earlier run logged and lost are struck out.
        """
        self._folder = folder
        with naming_disk(folder):
            self._board = None if names is None else _open_board(folder, done)
        self._others = [
            opened
            for name in names or ()
            if name != "tensorboard" and (opened := _open(name, folder, facts, log)) is not None
        ]
        if self._board is not None:
            self._board.add_scalar("steps", steps, done)  # for whoever reads the folder
        self._bar = tqdm(
            total=steps, initial=done, desc="training", disable=None if progress else True
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close bar and logs."""
        self._bar.close()
        if self._board is not None:
            try:
                with naming_disk(self._folder):
                    self._board.close()
            finally:
                threading.excepthook = threading.__excepthook__
        for module in self._others:
            module.finish()

    def step(self, step: Step) -> None:
        """Tell of one step."""
        self._bar.set_postfix_str(f"loss {step.loss:.4f}, {memory_in_use()}", refresh=False)
        self._bar.update()
        figures = {
            "loss": step.loss,
            "loss/concept": step.concept_loss,
            "loss/preserved": step.preserved_loss,
            "gradient_norm": step.gradient_norm,
            "learning_rate": step.learning_rate,
        }
        self.figures(step.step, {k: v for k, v in figures.items() if not math.isnan(v)})

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Log numbers by name."""
        if self._board is not None:
            with naming_disk(self._folder):
                for name, value in figures.items():
                    self._board.add_scalar(name, value, step)
        for module in self._others:
            module.log(dict(figures), step=step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Show a picture in TensorBoard."""
        if self._board is not None:
            with naming_disk(self._folder):
                self._board.add_image(name, np.asarray(picture), step, dataformats="HWC")


def memory_in_use() -> str:
    """Say how much memory the run takes: the peak on a GPU, the process's own elsewhere."""
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB GPU"
    import psutil

    return f"{psutil.Process().memory_info().rss / 2**30:.1f} GB"


def _open_board(folder: Path, done: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    threading.excepthook = _tell_unless_full
    # every few seconds, as people look on
    return SummaryWriter(str(folder), purge_step=done + 1 if done else None, flush_secs=2)


def _tell_unless_full(arguments: threading.ExceptHookArgs) -> None:
    """Leave a full disk of TensorBoard's own thread to the step that meets it next."""
    if arguments.exc_value is None or not is_full(arguments.exc_value):
        threading.__excepthook__(arguments)


def _open(
    name: str, folder: Path, facts: Mapping[str, Any], log: Callable[[str], None]
) -> Any | None:
    """Open wandb or trackio, whose calls are alike, or say that it is not installed."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        log(f"save.log: {name} is not installed; run `pip install {name}` to report there too")
        return None
    module.init(project="customize", name=folder.parent.name, config=dict(facts))
    return module
