"""From a recipe to the session of a fit: the model widened, pairs encoded, optimizer made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from customize.adapters import Attached
from customize.adapters.whole_denoiser import WholeDenoiser
from customize.errors import TrainingError
from customize.families import Dropout, open_family
from customize.families.base import Base, resolve_base
from customize.pairs.buckets import bucket_for
from customize.pairs.decode import load_picture
from customize.recipe.editing_base import EditingBaseRecipe
from customize.shapes import Pair
from customize.training.base_fitting.widen import write_widened
from customize.training.batches import Sample
from customize.training.cache import Setting, View, encode_all, pair_digest
from customize.training.device import open_accelerator, use_cpu_attention
from customize.training.loss import Goal
from customize.training.optimizer import Average, Pace, make_optimizer
from customize.training.session import Resuming, Session

_UNSHAPING = {"output", "start", "revision", "pairs", "save_every", "gradient_checkpointing"}
"""Fields that may change between the parts of a run; the start's and the pairs' content may not."""


def open_fit(
    recipe: EditingBaseRecipe, plain: Base, views: Sequence[View], *, progress: bool
) -> tuple[Session, Base]:
    """Open a fit at step 0, and the widened model it begins with."""
    accelerator = open_accelerator(recipe.precision)
    if accelerator.num_processes > 1:
        raise TrainingError(
            f"fit-base: launched as {accelerator.num_processes} processes; expected one; "
            "run it as `customize fit-base`"
        )
    device = accelerator.device
    start = recipe.output / f"start-{plain.fingerprint[:12]}"
    if not start.exists():
        write_widened(plain, start)
    base = resolve_base(str(start))
    samples, goal = _encode(recipe, base, views, device, progress=progress)
    digests = [pair_digest(view.pair)[:16] for view in views[:: len(_flips(recipe))]]
    family = open_family(base, device=device, dtype=torch.float32)
    attached = Attached(None, (), (WholeDenoiser(family),), ())
    use_cpu_attention(family.denoiser, device)
    if recipe.gradient_checkpointing:
        denoiser: Any = family.denoiser
        denoiser.enable_gradient_checkpointing()
    rate = recipe.learning_rate
    optimizer = make_optimizer(recipe.optimizer, attached, learning_rate=rate, weight_decay=0.01)
    facts = recipe.model_dump(mode="json", exclude=_UNSHAPING)
    session = Session(
        accelerator=accelerator,
        family=family,
        live=family,
        attached=attached,
        optimizer=accelerator.prepare_optimizer(optimizer, device_placement=False),
        average=None if recipe.ema is None else Average(attached, recipe.ema),
        samples=samples,
        goal=goal,
        pace=Pace(recipe.steps, recipe.accumulation, clip_norm=1.0, warmup=recipe.warmup),
        batch=recipe.batch,
        seed=recipe.seed,
        resuming=Resuming(
            shaping={**facts, "start": base.fingerprint, "pairs": digests},
            same="recipe, start and pairs",
            anew="delete the file to begin anew",
        ),
    )
    return session, base


def views_for(recipe: EditingBaseRecipe, plain: Base, pairs: Sequence[Pair]) -> list[View]:
    """List how each pair is looked at; raises PairsError for sources that cannot be read."""
    views = list[View]()
    for pair in pairs:
        size = load_picture(pair.source).size
        size = bucket_for(*size, recipe.resolution, plain.multiple)
        views += [View(pair, size, flip=flip) for flip in _flips(recipe)]
    return views


def _flips(recipe: EditingBaseRecipe) -> tuple[bool, ...]:
    return (False, True) if recipe.flip else (False,)


def _encode(
    recipe: EditingBaseRecipe,
    base: Base,
    views: Sequence[View],
    device: torch.device,
    *,
    progress: bool,
) -> tuple[list[Sample], Goal]:
    """Return the samples, and what to learn of them."""
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
    return samples, goal
