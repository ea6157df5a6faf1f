"""Fit an editing base to pairs, from a text-to-image model: every weight of the denoiser learns.

InstructPix2Pix's own training (arXiv 2211.09800, 3.2) on cached latents, in one process:
`customize fit-base recipes/base/from_stable_diffusion.yaml`. The output folder holds the widened
model, `cache` and `checkpoint.safetensors` while it learns, and `model` at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from customize.drawing.loss_curve import loss_curve
from customize.families.base import Base
from customize.families.stable_diffusion.text_to_image import resolve_text_to_image
from customize.files import Used, check_place, forget_places, refuse_existing, replacing_folder
from customize.files.lock import in_use
from customize.files.manifest import Manifest
from customize.pairs.find import find_pairs
from customize.recipe.editing_base import EditingBaseRecipe
from customize.training.base_fitting.open_fit import open_fit, views_for
from customize.training.cache import View
from customize.training.device import memory_explained
from customize.training.progress import Reports
from customize.training.run_folder import save_picture
from customize.training.session import Session
from customize.training.stop_signal import stop_on_signal

_WRITTEN = ("checkpoint.safetensors", "loss.png", "logs/events.out.tfevents.*")
"""Names in the output beside the folders `model`, `cache` and `start-...`, for the list of them."""


def fit_editing_base(
    recipe: EditingBaseRecipe, *, log: Callable[[str], None] = print, progress: bool = True
) -> Path | None:
    """Fit as the recipe says; return the finished base's folder, None when it was stopped.

    The same call goes on with a stopped fit. Raises OutputExistsError for a finished one,
    BaseModelError and PairsError for what cannot be used, TrainingError for what breaks.
    """
    model = recipe.output / "model"
    refuse_existing(model, cure="choose another output, or move it away to fit again")
    plain, _ = resolve_text_to_image(recipe.start, recipe.revision)
    pairs = find_pairs(recipe.pairs).pairs
    used = [Used("the pairs", recipe.pairs), Used("the model to start from", plain.folder)]
    pictures = {place.parent: place for pair in pairs for place in (pair.source, pair.target)}
    used += [Used("pictures of the pairs", place) for place in pictures.values()]
    check_place(recipe.output, used, folder=True)
    views = views_for(recipe, plain, pairs)
    with (
        in_use(recipe.output),
        memory_explained(f"batch: {recipe.batch}", lambda: _smaller(recipe)),
    ):
        listed = Manifest(recipe.output, "fit-base", "model/model_index.json")
        listed.begin(_WRITTEN)
        made = _fit(recipe, plain, views, model, log, progress=progress)
        if made is not None:
            listed.finish()
        return made


def _fit(
    recipe: EditingBaseRecipe,
    plain: Base,
    views: Sequence[View],
    model: Path,
    log: Callable[[str], None],
    *,
    progress: bool,
) -> Path | None:
    session, base = open_fit(recipe, plain, views, progress=progress)
    checkpoint = recipe.output / "checkpoint.safetensors"
    if checkpoint.exists():
        session.restore(checkpoint)
        log(f"going on after step {session.done} of {recipe.steps}")
    reports = Reports(
        recipe.output / "logs",
        (),
        session.resuming.shaping,
        steps=recipe.steps,
        done=session.done,
        progress=progress,
        log=log,
    )
    with stop_on_signal() as stop, reports:
        for step in session.steps():
            reports.step(step)
            if stop.asked and step.step < recipe.steps:
                session.save(checkpoint)
                log(f"stopped after step {session.done} of {recipe.steps} and saved")
                return None
            if step.step % recipe.save_every == 0:
                session.save(checkpoint)
    _finish(session, base, model)
    checkpoint.unlink(missing_ok=True)
    return model


def _finish(session: Session, base: Base, model: Path) -> None:
    """Write the base with its averaged weights, then drop what only the fit needed."""
    if session.average is not None:
        session.attached.load(session.average.tensors)
    save_picture(loss_curve([total for total, _, _ in session.history]), model.parent / "loss.png")
    denoiser: Any = session.live.denoiser
    part = session.live.profile.denoiser
    with replacing_folder(model) as temporary:
        rest = shutil.ignore_patterns(part)
        shutil.copytree(base.folder, temporary, ignore=rest, dirs_exist_ok=True)
        denoiser.save_pretrained(temporary / part, safe_serialization=True)
        forget_places(temporary)
    shutil.rmtree(base.folder)


def _smaller(recipe: EditingBaseRecipe) -> list[str]:
    """List settings that need less memory, the least costly first."""
    found = list[str]()
    if (half := recipe.batch // 2) > 0:
        times = recipe.accumulation * -(-recipe.batch // half)
        found.append(f"batch: {half} with accumulation: {times}")
    if recipe.optimizer == "adamw":
        found.append("optimizer: adamw8bit")
    if not recipe.gradient_checkpointing:
        found.append("gradient_checkpointing: true")
    return found
