"""Make the triplets of a recipe: texts, pictures and filter as one stream, resumed at any stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from customize.errors import SynthesisError
from customize.families.base import Base
from customize.families.stable_diffusion.text_to_image import resolve_text_to_image
from customize.files import Used
from customize.recipe.synthesis import SynthesisRecipe
from customize.scoring.networks.encoders import open_clip
from customize.synthesis.filtering.thresholds import Thresholds
from customize.synthesis.open_stages import (
    captions_of,
    checker_of,
    claimed,
    models_of,
    open_pipeline,
    stage_of,
)
from customize.synthesis.output.journal import Journal
from customize.synthesis.output.write_pairs import write_imagefolder, write_pairs, write_shards
from customize.synthesis.report import write_report, write_sheet
from customize.synthesis.result_folder import ResultFolder, facts, kept_triplets
from customize.synthesis.samples import Sample, SampleStage
from customize.synthesis.texts import Prompts, TextStage
from customize.synthesis.trial import with_thresholds
from customize.synthesis.writing.open_writer import open_writer
from customize.synthesis.writing.rewrite import Rejection

Draw = Callable[
    [SynthesisRecipe, SampleStage, Iterable[Prompts], Callable[[int], None]],
    Iterator[tuple[Prompts, list[Sample]]],
]
"""Groups of edits to their samples, in order, as far as they are asked for."""


@dataclass(frozen=True)
class Result:
    """What was made: where, how many, and why all others are not among them."""

    folder: Path
    pairs: Path
    kept: int
    wanted: int
    reasons: Mapping[str, int]
    report: Path


def synthesize(
    recipe: SynthesisRecipe,
    *,
    overwrite: bool = False,
    progress: bool = True,
    draw: Draw | None = None,
) -> Result:
    """Make a recipe's triplets, or those still missing of a run that stopped.

    The same recipe gives the same triplets, however often it was stopped and whoever draws (`draw`
    None: this process). Raises SynthesisError,
    BaseModelError, ScoreError, PairsError and OutputExistsError, leaving what is finished.
    """
    captions = captions_of(recipe)
    base, drawing = resolve_text_to_image(
        recipe.pictures.base, recipe.pictures.revision, recipe.pictures.precision
    )
    clip = open_clip(recipe.filter.clip)
    writer = open_writer(recipe.writer)
    pipeline = open_pipeline(recipe.pictures, base)
    folder = ResultFolder(recipe.output)
    with folder.held(claimed(recipe, base, clip), _used(recipe, base), overwrite=overwrite):
        journal = Journal(folder.samples)
        texts = TextStage(
            writer,
            checker_of(recipe, pipeline.tokenizer),
            captions,
            Journal(folder.texts),
            edits_each=recipe.edits_each,
            seed=recipe.seed,
        )
        stage = stage_of(recipe, pipeline, base, drawing, clip)
        stage = with_thresholds(recipe, stage, texts, folder)
        about = {"models": models_of(writer, base, clip), "thresholds": stage.thresholds.facts()}
        _stream(recipe, stage, texts, folder, journal, about, progress, draw or draw_here)
        return _finish(recipe, folder, journal, texts)


def _used(recipe: SynthesisRecipe, base: Base) -> list[Used]:
    """List what is read, of what lies on this machine."""
    writer, captions = recipe.writer, recipe.captions
    found = [Used("the base", base.folder)]
    found += [Used("the captions", captions, shared=True)] if captions is not None else []
    found += [Used("the writer", writer.adapter)] if writer.adapter is not None else []
    models = (("the writer's model", writer.model), ("the CLIP", recipe.filter.clip))
    return found + [Used(what, Path(name)) for what, name in models if name and Path(name).exists()]


def open_stage(recipe: SynthesisRecipe, thresholds: Thresholds) -> SampleStage:
    """Open all that draws and judges, with thresholds chosen before; raises as `synthesize`."""
    pictures = recipe.pictures
    base, drawing = resolve_text_to_image(pictures.base, pictures.revision, pictures.precision)
    clip = open_clip(recipe.filter.clip)
    stage = stage_of(recipe, open_pipeline(pictures, base), base, drawing, clip)
    return replace(stage, thresholds=thresholds)


def draw_here(
    recipe: SynthesisRecipe,
    stage: SampleStage,
    groups: Iterable[Prompts],
    told: Callable[[int], None],
) -> Iterator[tuple[Prompts, list[Sample]]]:
    """Draw group after group in this process."""
    for prompts in groups:
        yield prompts, stage.samples(prompts.edits(), told)


def _stream(
    recipe: SynthesisRecipe,
    stage: SampleStage,
    texts: TextStage,
    folder: ResultFolder,
    journal: Journal,
    about: Mapping[str, Any],
    progress: bool,
    draw: Draw,
) -> None:
    """Draw group after group until there are enough, with a bar of what is kept."""
    kept = len(kept_triplets(journal))
    drawn = sum(1 for _ in facts(journal))
    begun, first = time.monotonic(), kept
    bar = tqdm(
        total=recipe.triplets,
        initial=min(kept, recipe.triplets),
        desc="triplets",
        disable=None if progress else True,
    )

    def tell(more: int) -> None:
        nonlocal drawn
        drawn += more
        an_hour = 3600 * (kept - first) / max(1e-9, time.monotonic() - begun)
        bar.set_postfix_str(f"{kept} kept, {drawn - kept} rejected, {an_hour:.0f} pairs/h")

    # Closed, so that nothing is written ahead any more when this is left, whatever the reason.
    with bar, closing(texts.groups(len(journal.pieces))) as groups:
        if kept >= recipe.triplets:
            return
        for _, samples in draw(recipe, stage, groups, tell):
            folder.keep(samples, journal, about)
            new = sum(sample.verdict == "kept" for sample in samples)
            kept += new
            tell(0)
            bar.update(min(new, recipe.triplets - bar.n))
            if kept >= recipe.triplets:
                return


def _finish(
    recipe: SynthesisRecipe, folder: ResultFolder, journal: Journal, texts: TextStage
) -> Result:
    """Write what the journal holds in every format asked for, and the report."""
    triplets = kept_triplets(journal, recipe.triplets)
    rejections = texts.rejections(len(journal.pieces))
    if not triplets:
        told = ", ".join(f"{n} {reason}" for reason, n in _reasons(journal, rejections).items())
        raise SynthesisError(
            f"{folder.path}: no pair was kept ({told}); expected some to pass; lower the "
            "thresholds, set filter.keep_share, or give more captions"
        )
    pairs = write_pairs(folder.path, triplets)
    if "webdataset" in recipe.formats:
        write_shards(folder.path, triplets)
    if "imagefolder" in recipe.formats:
        write_imagefolder(folder.path, triplets)
    reasons = _reasons(journal, rejections)
    write_sheet(folder, triplets)
    report = write_report(folder, list(facts(journal)), rejections, journal.pieces[0]["thresholds"])
    return Result(folder.path, pairs, len(triplets), recipe.triplets, reasons, report)


def _reasons(journal: Journal, rejections: Sequence[Rejection]) -> dict[str, int]:
    counted = Counter(f"text: {rejection.reason}" for rejection in rejections)
    counted.update(f"pictures: {f['verdict']}" for f in facts(journal) if f["verdict"] != "kept")
    return dict(counted)
