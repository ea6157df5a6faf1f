"""From a recipe to all that makes its triplets, opened and checked before anything is drawn."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from customize import __version__
from customize.editing.device import device_for
from customize.editing.samplers import scheduler_for
from customize.families import profile_of
from customize.families.base import Base, cpu_has_bfloat16
from customize.families.stable_diffusion.text_to_image import Drawing, open_text_to_image
from customize.recipe.synthesis import Pictures, SynthesisRecipe
from customize.scoring.networks.encoders import Clip
from customize.synthesis.filtering.judge import PairJudge
from customize.synthesis.filtering.thresholds import Thresholds
from customize.synthesis.provenance import licence_of
from customize.synthesis.samples import Ranges, SampleStage
from customize.synthesis.writing.captions import read_captions
from customize.synthesis.writing.check import BLOCKED, Checker
from customize.synthesis.writing.open_writer import server_options
from customize.synthesis.writing.rewrite import Writer

FREE = ("triplets", "formats", "output")
"""What a recipe may change and still go on with what is there."""


def captions_of(recipe: SynthesisRecipe) -> list[str]:
    """Read the recipe's captions, or draw them; raises PairsError."""
    if recipe.captions is not None:
        return read_captions(recipe.captions)
    from customize.synthesis.writing.drawn_world import drawn_captions

    assert recipe.drawn_captions is not None, "a recipe without captions"
    return drawn_captions(recipe.drawn_captions, recipe.seed)


def claimed(recipe: SynthesisRecipe, base: Base, clip: Clip) -> dict[str, Any]:
    """Say whose a folder is: the recipe but for what may change, and the models' fingerprints."""
    told = recipe.model_dump(mode="json", exclude=set(FREE))
    return {"recipe": told, "base": base.fingerprint, "clip": clip.fingerprint}


def models_of(writer: Writer, base: Base, clip: Clip) -> dict[str, Any]:
    """Name the models and their licences, for the provenance."""
    shown = Path(base.name).name if Path(base.name).is_absolute() else base.name
    return {
        "writer": {"name": writer.name, "licence": writer.licence},
        "base": {
            "name": shown,
            "fingerprint": base.fingerprint,
            "licence": licence_of(base.folder),
        },
        "clip": {"name": Path(clip.name).name, "fingerprint": clip.fingerprint},
        "customize": __version__,
    }


def open_pipeline(section: Pictures, base: Base) -> Any:
    """Open the base that draws, with the recipe's sampler; raises EditError for an unknown one."""
    pipeline = open_text_to_image(base, device=device_for(None))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler_for(
        section.scheduler, pipeline.scheduler, profile_of(base.family)
    )
    return pipeline


def checker_of(recipe: SynthesisRecipe, tokenizer: Any) -> Checker:
    """Make the checker of what is written: captions must fit what the base reads.

    It has a tokenizer of its own: padding is a state of theirs, and captions are checked while the
    base draws.
    """
    own = copy.deepcopy(tokenizer)

    def too_long(text: str) -> bool:
        return len(own(text)["input_ids"]) > own.model_max_length

    blocked = recipe.writer.blocked
    return Checker(too_long, BLOCKED if blocked is None else blocked)


def stage_of(
    recipe: SynthesisRecipe, pipeline: Any, base: Base, drawing: Drawing, clip: Clip
) -> SampleStage:
    """Put together what draws and judges."""
    pictures, chosen = recipe.pictures, recipe.filter
    side = pictures.resolution or base.resolution
    on_cpu = pipeline.device.type == "cpu"
    return SampleStage(
        pipeline=pipeline,
        steps=pictures.steps or drawing.steps,
        size=(side, side),
        at_once=pictures.at_once,
        ranges=Ranges(
            pictures.guidance or drawing.guidance,
            pictures.self_until,
            pictures.cross_until,
            pictures.blend,
        ),
        clip=clip,
        thresholds=Thresholds(chosen.pictures, chosen.first, chosen.second, chosen.direction),
        keep=chosen.keep,
        most=chosen.most,
        alike=chosen.alike,
        seed=recipe.seed,
        judge=PairJudge(server_options(chosen.judge, longest=1024)) if chosen.judge else None,
        least=chosen.judge.least if chosen.judge else 0.0,
        mixed=pictures.precision == "auto" and on_cpu and cpu_has_bfloat16(),
    )
