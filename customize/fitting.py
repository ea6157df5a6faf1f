"""Fit an editing base to pairs, from a text-to-image model: every weight of the denoiser learns.

InstructPix2Pix's own training (arXiv 2211.09800, 3.2) on cached latents, in one process:
`customize fit-base recipes/base/from_stable_diffusion.yaml`. The output folder holds the widened
model, `cache` and `checkpoint.safetensors` while it learns, and `model` at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from customize.adapters import Attached
from customize.batches import Sample, batches
from customize.caching import Setting, View, encode_all, pair_digest
from customize.checkpoint import (
    Checkpoint,
    changed,
    optimizer_state,
    read_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from customize.curves import loss_curve
from customize.errors import OutputExistsError, TrainingError
from customize.families import Dropout, Family, open_family
from customize.families.bases import Base, resolve_base, resolve_plain
from customize.fitting_recipe import FittingRecipe
from customize.hardware import open_accelerator, suit_attention
from customize.optimizing import Average, Pace, make_optimizer
from customize.pairs.buckets import bucket_for
from customize.pairs.decode import load_picture
from customize.pairs.layouts import find_pairs
from customize.reporting import Reports
from customize.run_folder import save_picture
from customize.saved_configs import forget_places
from customize.stopping import stop_on_signal
from customize.training import Goal, Step, train_steps
from customize.widening import FIRST, write_widened

UNSHAPING = {"output", "start", "revision", "pairs", "save_every", "gradient_checkpointing"}
"""Fields that may change between the parts of a run; the start's and the pairs' content may not."""


class WholeDenoiser:
    """Every weight of the denoiser as what learns; float32, in place."""

    def __init__(self, denoiser: nn.Module) -> None:
        """Let the denoiser learn."""
        self._denoiser = denoiser.requires_grad_(True)

    def tensors(self) -> Mapping[str, nn.Parameter]:
        """Return all weights by name."""
        return {f"denoiser.{name}": p for name, p in self._denoiser.named_parameters()}

    def movement(self) -> float:
        """Return the norm of the source's input weights, which begin at zero."""
        first_NCkk = self.tensors()[f"denoiser.{FIRST}"].detach()
        return float(first_NCkk[:, first_NCkk.shape[1] // 2 :].norm())

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Refuse: there is no way back to the start, and nothing is preserved in a fit."""
        raise AssertionError("a fit preserves nothing")
        yield


@dataclass
class Fit:
    """A fit in progress."""

    recipe: FittingRecipe
    base: Base
    accelerator: Any
    family: Family
    learning: Attached
    optimizer: Any
    average: Average | None
    samples: list[Sample]
    goal: Goal
    shaping: dict[str, Any]
    done: int = 0
    history: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        """Where a stopped fit goes on from."""
        return self.recipe.output / "checkpoint.safetensors"

    def steps(self) -> Iterator[Step]:
        """Learn from where the fit is; it keeps count as the steps come."""
        recipe, device = self.recipe, self.accelerator.device
        pace = Pace(recipe.steps, recipe.accumulation, clip_norm=1.0, warmup=recipe.warmup)
        first = self.done * recipe.accumulation
        drawn = batches(self.samples, recipe.batch, seed=recipe.seed, device=device, first=first)
        for step in train_steps(
            self.family,
            self.learning,
            drawn,
            self.goal,
            self.optimizer,
            pace,
            self.accelerator,
            seed=recipe.seed,
            done=self.done,
            average=self.average,
        ):
            self.done = step.step
            self.history.append((step.loss, step.concept_loss, step.preserved_loss))
            yield step

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        scaler = self.accelerator.scaler
        save_checkpoint(
            self.checkpoint,
            Checkpoint(
                step=self.done,
                adapter=self.learning.state(),
                optimizer=optimizer_state(self.optimizer),
                history_SF=torch.tensor(self.history, dtype=torch.float64).reshape(-1, 3),
                average=self.average.tensors if self.average else {},
                shaping=self.shaping,
                numbers={"scaler": scaler.state_dict() if scaler is not None else None},
            ),
        )

    def restore(self) -> None:
        """Go back to the checkpoint; raises TrainingError when what shapes the fit has changed."""
        saved = read_checkpoint(self.checkpoint)
        if differences := changed(saved.shaping, self.shaping):
            raise TrainingError(
                f"{self.checkpoint}: step {saved.step} of this fit was made otherwise "
                f"({'; '.join(differences)}); expected the same recipe, start and pairs; set them "
                "back to go on, choose another output, or delete the file to begin anew"
            )
        self.learning.load(saved.adapter)
        restore_optimizer(self.optimizer, saved.optimizer)
        if self.average is not None:
            self.average.load(saved.average)
        if self.accelerator.scaler is not None and saved.numbers["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.numbers["scaler"])
        self.done = saved.step
        self.history = [(a, b, c) for a, b, c in saved.history_SF.tolist()]


def fit_editing_base(
    recipe: FittingRecipe, *, log: Callable[[str], None] = print, progress: bool = True
) -> Path | None:
    """Fit as the recipe says; return the finished base's folder, None when it was stopped.

    The same call goes on with a stopped fit. Raises OutputExistsError for a finished one,
    BaseModelError and PairsError for what cannot be used, TrainingError for what breaks.
    """
    model = recipe.output / "model"
    if model.exists():
        raise OutputExistsError(
            f"{model} holds a finished base; expected a free place; choose another output, or move "
            "it away to fit again"
        )
    fit = _open(recipe, progress=progress)
    if fit.checkpoint.exists():
        fit.restore()
        log(f"going on after step {fit.done} of {recipe.steps}")
    with _memory_explained(recipe), stop_on_signal() as stop, _reports(fit, log, progress) as told:
        for step in fit.steps():
            told.step(step)
            if stop.asked and step.step < recipe.steps:
                fit.save()
                log(f"stopped after step {fit.done} of {recipe.steps} and saved")
                return None
            if step.step % recipe.save_every == 0:
                fit.save()
    _finish(fit, model)
    return model


def _open(recipe: FittingRecipe, *, progress: bool) -> Fit:
    accelerator = open_accelerator(recipe.precision, recipe.accumulation)
    if accelerator.num_processes > 1:
        raise TrainingError(
            f"fit-base: launched as {accelerator.num_processes} processes; expected one; "
            "run it as `customize fit-base`"
        )
    plain, device = resolve_plain(recipe.start, recipe.revision), accelerator.device
    start = recipe.output / f"start-{plain.fingerprint[:12]}"
    if not start.exists():
        write_widened(plain, start)
    base = resolve_base(str(start))
    samples, goal, digests = _encode(recipe, base, device, progress=progress)
    family = open_family(base, device=device, dtype=torch.float32)
    learning = Attached(None, (), (WholeDenoiser(family.denoiser),), ())
    suit_attention(family.denoiser, device)
    if recipe.gradient_checkpointing:
        denoiser: Any = family.denoiser.train()  # diffusers recomputes in train mode alone
        denoiser.enable_gradient_checkpointing()
    rate = recipe.learning_rate
    optimizer = make_optimizer(recipe.optimizer, learning, learning_rate=rate, weight_decay=0.01)
    facts = recipe.model_dump(mode="json", exclude=UNSHAPING)
    return Fit(
        recipe=recipe,
        base=base,
        accelerator=accelerator,
        family=family,
        learning=learning,
        optimizer=accelerator.prepare_optimizer(optimizer, device_placement=False),
        average=None if recipe.ema is None else Average(learning, recipe.ema),
        samples=samples,
        goal=goal,
        shaping={**facts, "start": base.fingerprint, "pairs": digests},
    )


def _encode(
    recipe: FittingRecipe, base: Base, device: torch.device, *, progress: bool
) -> tuple[list[Sample], Goal, list[str]]:
    """Return the samples, what to learn of them, and the pairs' digests."""
    pairs = find_pairs(recipe.pairs).pairs
    views = list[View]()
    for pair in pairs:
        size = load_picture(pair.source).size
        size = bucket_for(*size, recipe.resolution, base.multiple)
        flips = (False, True) if recipe.flip else (False,)
        views += [View(pair, size, flip=flip) for flip in flips]
    cache, setting = recipe.output / "cache", Setting(base)
    cached, texts = encode_all(cache, setting, views, [""], device=device, progress=progress)
    samples = [
        Sample(each.edited, each.unedited, weight=view.pair.weight)
        for each, view in zip(cached, views, strict=True)
    ]
    hidden = recipe.dropout
    goal = Goal(
        empty_text={key: value[0].to(device) for key, value in texts.items()},
        dropout=Dropout(text=hidden.text, both=hidden.both, image=hidden.image),
    )
    return samples, goal, [pair_digest(pair)[:16] for pair in pairs]


def _reports(fit: Fit, log: Callable[[str], None], progress: bool) -> Reports:
    return Reports(
        fit.recipe.output / "logs",
        (),
        fit.shaping,
        steps=fit.recipe.steps,
        done=fit.done,
        progress=progress,
        log=log,
    )


def _finish(fit: Fit, model: Path) -> None:
    """Write the base with its averaged weights, then drop what only the fit needed."""
    if fit.average is not None:
        fit.learning.load(fit.average.tensors)
    save_picture(loss_curve([total for total, _, _ in fit.history]), model.parent / "loss.png")
    temporary = model.with_name(".model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(fit.base.folder, temporary, ignore=shutil.ignore_patterns("unet"))
    denoiser: Any = fit.family.denoiser
    denoiser.save_pretrained(temporary / "unet", safe_serialization=True)
    forget_places(temporary)
    temporary.replace(model)
    shutil.rmtree(fit.base.folder)
    fit.checkpoint.unlink(missing_ok=True)


@contextmanager
def _memory_explained(recipe: FittingRecipe) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory ({str(error).splitlines()[0]}); expected room for batch: "
            f"{recipe.batch}; set gradient_checkpointing: true, optimizer: adamw8bit, or a smaller "
            "batch with more accumulation"
        ) from error
