"""From a plan to a session: pairs encoded, base loaded, adapter attached, optimizer made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from customize.adapters import Attached, CrossAttentionKV, attach, learns_text
from customize.families import Dropout, Family, open_family
from customize.families.flow_matching import FlowMatching
from customize.training.batches import Sample
from customize.training.cache import Setting, View, encode_all
from customize.training.device import use_channels_last, use_cpu_attention
from customize.training.loss import Goal
from customize.training.memory.offload import offload_family
from customize.training.memory.quantize import quantize
from customize.training.optimizer import Average, Pace, make_optimizer
from customize.training.plan import LENGTH, Plan, count_steps, shaping_facts, views_of
from customize.training.run_folder import RunFolder
from customize.training.session import Resuming, Session


def open_session(plan: Plan, accelerator: Any, folder: RunFolder, *, progress: bool) -> Session:
    """Open a run at step 0; the encoders are gone from memory before the denoiser comes."""
    recipe, device = plan.recipe, accelerator.device
    with accelerator.main_process_first():
        samples, texts = encode_plan(plan, device, folder, progress=progress)
    live = _open_base(plan, device)
    if recipe.train.levels is not None:
        assert isinstance(live.objective, FlowMatching), "refused for other objectives"
        objective = replace(live.objective, levels=recipe.train.levels)
        live = replace(live, objective=objective)
    attached = attach(live, plan.method, plan.words, seed=recipe.train.seed)
    if not recipe.train.compile:
        use_cpu_attention(live.denoiser, device)
    family = _prepare(plan, accelerator, live, attached)
    train = recipe.train
    optimizer = make_optimizer(
        train.optimizer,
        attached,
        learning_rate=train.learning_rate,
        word_learning_rate=train.word_learning_rate,
        weight_decay=train.weight_decay,
    )
    processes, pairs = accelerator.num_processes, len(plan.pairs())
    return Session(
        accelerator=accelerator,
        family=family,
        live=live,
        attached=attached,
        optimizer=accelerator.prepare_optimizer(optimizer, device_placement=False),
        average=None if train.ema is None else Average(attached, train.ema),
        samples=samples,
        goal=_goal(plan, texts, device),
        pace=Pace(
            steps=count_steps(recipe, pairs, processes),
            accumulation=train.accumulation,
            clip_norm=train.clip_norm,
            schedule=train.schedule,
            warmup=train.warmup,
        ),
        batch=train.batch,
        seed=train.seed,
        resuming=Resuming(
            shaping={**shaping_facts(plan), "train.batch": train.batch * processes},
            same="recipe and pairs",
            anew="begin anew with --overwrite (or pass --continue where the steps alone differ)",
            length=LENGTH,
        ),
    )


def encode_plan(
    plan: Plan, device: torch.device, folder: RunFolder, *, progress: bool
) -> tuple[list[Sample], Mapping[str, Tensor]]:
    """Return the samples at their shares of the batches, and all texts, none first."""
    recipe = plan.recipe
    own, rehearsed = recipe.preservation.regularization_share, list[tuple[float, list[View]]]()
    total = sum(concept.weight for concept in recipe.concepts)
    for concept in recipe.concepts:
        views = views_of(plan.concepts[concept.name], recipe, plan.base)
        rehearsed.append(((1 - own) * concept.weight / total, views))
    if plan.regularization:
        rehearsed.append((own, views_of(plan.regularization, recipe, plan.base)))
    setting = Setting(plan.base, plan.words, as_tokens=learns_text(plan.method, plan.words))
    cached, texts = encode_all(
        folder.cache,
        setting,
        [view for _, views in rehearsed for view in views],
        ["", *plan.instructions],
        device=device,
        progress=progress,
    )
    wanted = [(view, share / len(views)) for share, views in rehearsed for view in views]
    samples = [
        Sample(found.edited, found.unedited, frequency, view.pair.weight)
        for found, (view, frequency) in zip(cached, wanted, strict=True)
    ]
    return samples, texts


def _open_base(plan: Plan, device: torch.device) -> Family:
    """Open the frozen base as the recipe asks; what is offloaded never meets the device whole."""
    learns, options = learns_text(plan.method, plan.words), plan.recipe.base
    if options.offload:
        if device.type in ("cpu", "mps"):
            warnings.warn(
                f"base.offload: {device.type} computes in the CPU's memory, so that nothing is "
                "saved; expected a GPU with memory of its own; set it to false",
                stacklevel=2,
            )
        live = open_family(plan.base, dtype=plan.base.dtype(device), learns_text=learns)
        use_channels_last(live.denoiser, device)
        return offload_family(live, device)
    live = open_family(plan.base, device=device, learns_text=learns)
    use_channels_last(live.denoiser, device)
    if options.quantization != "none":
        in_full = isinstance(plan.method, CrossAttentionKV)
        layers = live.profile.layers
        quantize(live.denoiser, layers, options.quantization, keep_text_kv=in_full)
    return live


def _goal(plan: Plan, texts: Mapping[str, Tensor], device: torch.device) -> Goal:
    dropout, kept = plan.recipe.conditioning_dropout, plan.recipe.preservation
    on_device = {key: value.to(device) for key, value in texts.items()}
    others = {key: value[1:] for key, value in on_device.items()} if plan.instructions else {}
    return Goal(
        empty_text={key: value[0] for key, value in on_device.items()},
        other_texts=others,
        dropout=Dropout(text=dropout.text, both=dropout.both, image=dropout.image),
        min_snr=plan.recipe.train.min_snr,
        preserved_share=kept.share,
        preserved_weight=kept.weight,
    )


def _prepare(plan: Plan, accelerator: Any, live: Family, attached: Attached) -> Family:
    """Wrap what learns for several processes, a compiler or short memory, as the recipe asks."""
    train, family = plan.recipe.train, live
    denoiser: Any = live.denoiser
    if train.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    if train.compile:
        family = replace(family, denoiser=torch.compile(denoiser))
    if accelerator.num_processes > 1:
        family = replace(family, denoiser=accelerator.prepare_model(family.denoiser))
        if attached.learns_text:
            encoders = family.text_encoders.items()
            prepared = {name: accelerator.prepare_model(encoder) for name, encoder in encoders}
            family = replace(family, text_encoders=prepared)
    return family
