"""Thresholds by a trial: a few samples are drawn first, and looked at, not kept."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

from customize.errors import SynthesisError
from customize.files import write_text
from customize.recipe.synthesis import SynthesisRecipe
from customize.synthesis.filtering.similarities import Similarities
from customize.synthesis.filtering.thresholds import Thresholds, keeping_share
from customize.synthesis.result_folder import ResultFolder
from customize.synthesis.samples import SampleStage
from customize.synthesis.texts import A_GROUP, TextStage

EACH = 2
"""Samples of each edit in a trial."""


def with_thresholds(
    recipe: SynthesisRecipe, stage: SampleStage, texts: TextStage, folder: ResultFolder
) -> SampleStage:
    """Choose thresholds by a trial where the recipe asks for a share; a later start reads them.

    Raises SynthesisError where there is nothing to try.
    """
    share = recipe.filter.keep_share
    if share is None:
        return stage
    if not folder.trial.exists():
        groups = -(-recipe.filter.trial // (EACH * A_GROUP))
        found = _trial(stage, texts, groups)
        if not found:
            raise SynthesisError(
                "filter.keep_share: the writer gave no edit to try; expected some among the first "
                f"{groups * A_GROUP}; look at texts.jsonl for the reasons"
            )
        chosen = {"thresholds": keeping_share(share, found).facts(), "samples": len(found)}
        write_text(folder.trial, json.dumps(chosen, indent=2) + "\n")
    held = json.loads(folder.trial.read_text("utf-8"))["thresholds"]
    return replace(stage, thresholds=Thresholds(**held))


def _trial(stage: SampleStage, texts: TextStage, groups: int) -> list[Similarities]:
    silent, found = replace(stage, judge=None), list[Similarities]()
    with closing(texts.groups(0, groups)) as written:
        for prompts in written:
            wanted = [(p, r, attempt) for p, r in prompts.edits() for attempt in range(EACH)]
            for start in range(0, len(wanted), stage.at_once):
                some = silent.draw(wanted[start : start + stage.at_once])
                found += [each.found for each in some]
    return found
