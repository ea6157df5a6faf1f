"""Fit the embedded base: `customize fit-base recipes/base/embedded.yaml`, from nothing or from what
ships.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from transformers import CLIPTokenizer

from customize.embedded.fitting.autoencoder import fit_autoencoder
from customize.embedded.fitting.clip import fit_clip
from customize.embedded.fitting.compiling import compile_ahead
from customize.embedded.fitting.drawing_ahead import drawers_for
from customize.embedded.fitting.editor import Learners, fit_editor
from customize.embedded.fitting.loop import Budget
from customize.embedded.fitting.shared_state import VECTORS, Worker
from customize.embedded.folder import Parts, new_parts, read_parts, write_folder
from customize.embedded.models import new_autoencoder, size_of
from customize.embedded.tokenizer import learn_tokenizer
from customize.files import Used, check_place, make_folder, refuse_existing
from customize.files.disk import naming_disk
from customize.files.lock import in_use
from customize.recipe.embedded_base import EmbeddedBaseRecipe, FitStage

log = logging.getLogger(__name__)


def fit_embedded_base(recipe: EmbeddedBaseRecipe, start_from: Path | None = None) -> Path:
    """Fit every stage and write the finished base; return its folder.

    `start_from` is the folder of a base to go on from: its tokenizer and its latents are kept, so
    of the autoencoder only the decoder learns; or, where the recipe lets the encoder learn or asks
    for pictures of twice the size, a new autoencoder whose latents stay like the base's. A stopped
    run goes on from `output/state`.

    Raises OutputExistsError when the finished folder is already there.
    """
    model = recipe.output / "model"
    refuse_existing(model, cure="choose another output, or move it away to fit again")
    started = [] if start_from is None else [Used("the base to go on from", start_from)]
    check_place(recipe.output, started, folder=True)
    state = recipe.output / "state"
    with in_use(recipe.output):
        make_folder(state)
        if start_from is None:
            with naming_disk(state):
                learn_tokenizer(state / "tokenizer", recipe.seed)
        worker = Worker(device="cuda" if torch.cuda.is_available() else "cpu")
        if worker.device == "cpu" and recipe.workers > 1:
            _fit_in_processes(recipe, state, start_from)
        else:
            torch.backends.cudnn.benchmark = True  # every step has the same shapes
            _fit(recipe, state, start_from, worker)
    return model


def _fit_in_processes(recipe: EmbeddedBaseRecipe, state: Path, start_from: Path | None) -> None:
    """Run `workers` single-threaded processes over weights in shared memory."""
    size = largest_stage(_parts(recipe, state, start_from), recipe.size)
    barrier = multiprocessing.get_context("spawn").Barrier(recipe.workers)
    with naming_disk(Path("/dev/shm")):
        pool = torch.zeros(len(VECTORS) + recipe.workers, size).share_memory_()
        norms = torch.zeros(recipe.workers).share_memory_()
        clock = torch.zeros(1, dtype=torch.float64).share_memory_()
    worker = Worker(count=recipe.workers, pool=pool, norms=norms, barrier=barrier, clock=clock)
    multiprocessing.spawn(_process, (recipe, state, start_from, worker), recipe.workers)


def largest_stage(parts: Parts, pixels: int) -> int:
    """Count the weights of the stage that learns most; changes the parts."""
    learners = Learners(parts.unet, parts.text_encoder)  # one output more than the base has
    modules = [parts.vae, new_autoencoder(pixels), parts.clip, learners]
    return max(sum(p.numel() for p in module.parameters()) for module in modules)


def _process(
    rank: int, recipe: EmbeddedBaseRecipe, state: Path, start_from: Path | None, worker: Worker
) -> None:
    torch.set_num_threads(1)
    _fit(recipe, state, start_from, replace(worker, rank=rank))


def _parts(recipe: EmbeddedBaseRecipe, state: Path, start_from: Path | None) -> Parts:
    if start_from is not None:
        return read_parts(start_from)
    return new_parts(CLIPTokenizer.from_pretrained(state / "tokenizer"), recipe.size)


def _fit(recipe: EmbeddedBaseRecipe, state: Path, start_from: Path | None, worker: Worker) -> None:
    """Fit one stage after the other; the first worker writes the finished folder."""
    torch.manual_seed(recipe.seed)
    parts = _parts(recipe, state, start_from).to(worker.device)
    seed, going_on = recipe.seed, start_from is not None
    drawers, compiler = drawers_for(recipe.drawers, worker.device), None
    compiled, on_gpu = recipe.editor.compiles(worker.device), worker.device == "cuda"
    if compiled and on_gpu and recipe.autoencoder.samples and recipe.editor.samples:
        compiler = compile_ahead(partial(_parts, recipe, state, start_from), recipe.editor.batch)
    if recipe.autoencoder.samples:
        older = None
        if going_on and (recipe.autoencoder.encoder or size_of(parts.vae) != recipe.size):
            anew: Any = new_autoencoder(recipe.size)
            older, parts = parts.vae, replace(parts, vae=anew.to(worker.device))
        decoder_only = going_on and older is None
        budget = _budget(recipe.autoencoder)
        fit_autoencoder(parts.vae, budget, seed, state, worker, decoder_only, older, drawers)
    if recipe.clip.samples:
        fit_clip(parts.clip, parts.tokenizer, _budget(recipe.clip), seed, state, worker)
    if recipe.editor.samples:
        fit_editor(
            parts,
            _budget(recipe.editor),
            recipe.pool,
            seed,
            state,
            worker,
            going_on,
            drawers,
            compiler,
            compiled=compiled,
        )
    if worker.rank == 0:
        write_folder(parts, recipe.output / "model")


def _budget(stage: FitStage) -> Budget:
    return Budget(
        stage.samples,
        stage.batch,
        stage.learning_rate,
        stage.cooldown,
        minutes=stage.minutes,
        snapshot=stage.snapshot,
    )
