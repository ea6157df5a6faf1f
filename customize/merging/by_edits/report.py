"""What a merge kept, as figures and pictures in a folder: `customize merge --report`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from customize.adapters.labels import labels_of
from customize.drawing.contact_sheet import to_picture
from customize.drawing.table import table
from customize.files import Used, check_place, refuse_existing, replacing, write_text
from customize.files.lock import in_use
from customize.files.manifest import Manifest
from customize.files.write import remove_temporaries
from customize.merging.by_edits.leaks import OWN, Leaks, find_leaks
from customize.merging.by_edits.report_pictures import edits_sheet, kept_map
from customize.merging.by_edits.retention import Judge, Retention
from customize.merging.by_edits.trial_edits import TrialEdits

if TYPE_CHECKING:
    from customize.scoring.items import Models

FIGURES, SHEET, MAP = "report.json", "edits.png", "map.png"
_RUN = "merge report"


def check_folder(folder: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse a folder that holds a report already, or that is no place for one.

    What a killed merge was writing there goes, even where its file is whole and refused next.
    Raises OutputError.
    """
    used = [Used(f"the adapter to merge {path}", path, shared=True) for path in inputs]
    check_place(folder, used, folder=True)
    if folder.is_dir():
        remove_temporaries(folder)
    listed, names = Manifest(folder, _RUN), (SHEET, MAP, FIGURES)
    places = [folder / name for name in names]
    refuse_existing(*places, overwrite=overwrite or listed.unfinished)
    listed.check(names)


@contextmanager
def write_merge_report(
    folder: Path,
    judge: Judge,
    verdict: Retention,
    files: Sequence[Path],
    facts: Mapping[str, Any],
    models: Models | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[str]:
    """Write figures, contact sheet and heat map into `folder`, and give the table of figures.

    The report is done when what is done with it given is. `files` are the merged adapters' own
    files, `facts` what else belongs into the figures. Scores by CLIP are there where `models` are
    given.
    """
    leaks = find_leaks(judge, verdict)
    figures = {**facts, **figures_of(judge, verdict, files, leaks, models)}
    sheet, drawn = edits_sheet(judge, verdict), kept_map(judge, verdict, leaks)
    with in_use(folder):
        listed, names = Manifest(folder, _RUN), (SHEET, MAP, FIGURES)
        (listed.begin_anew if overwrite else listed.begin)(names)
        try:
            for picture, name in ((sheet, SHEET), (drawn, MAP)):
                with replacing(folder / name) as temporary:
                    picture.save(temporary, "PNG")
            write_text(folder / FIGURES, json.dumps(figures, indent=2) + "\n")
            yield figures_table(judge, verdict, leaks)
        except BaseException:
            listed.undo()
            raise
        listed.finish()


def figures_of(
    judge: Judge,
    verdict: Retention,
    files: Sequence[Path],
    leaks: Leaks,
    models: Models | None,
) -> dict[str, Any]:
    """Gather every figure by concept, and of the base's own edits before and after."""
    names = labels_of(files)
    concepts: dict[str, Any] = {}
    for asked in judge.asked:
        kept = verdict.concepts[asked.name]
        concepts[asked.name] = {
            "adapter": names[asked.owner],
            "edits": len(asked.examples),
            "held_out": asked.held_out,
            "alone": kept.alone,
            "merged": kept.merged,
            "retention": kept.retention,
            "interval": kept.interval,
            "leaks_in": {of: share for (at, of), share in leaks.items() if at == asked.name},
            "scores": {
                "alone": _scores(asked, judge.alone(asked.owner, asked), models),
                "merged": _scores(asked, verdict.outputs[asked.name], models),
            },
        }
    return {
        "concepts": concepts,
        "base": {
            "edits": len(judge.own),
            "kept_alone": dict(zip(names, judge.kept_alone(), strict=True)),
            "kept_merged": verdict.base,
            "leaks_in": {of: share for (at, of), share in leaks.items() if at == OWN},
        },
    }


def figures_table(judge: Judge, verdict: Retention, leaks: Leaks) -> str:
    """Lay out the change made alone and merged, retention and leaks, a line a concept."""
    rows = list[list[str]]()
    for asked in judge.asked:
        kept = verdict.concepts[asked.name]
        seen = "never trained on" if asked.held_out else "trained on"
        rows.append(
            [
                asked.name,
                f"{len(asked.examples)} {seen}",
                _percent(kept.alone),
                _percent(kept.merged),
                str(kept) if kept.retention is not None else "-",
                _leaks_at(asked.name, leaks),
            ]
        )
    own = [OWN, str(len(judge.own)), "100 %", _percent(verdict.base), _percent(verdict.base)]
    rows.append([*own, _leaks_at(OWN, leaks)])
    return table(rows, ["concept", "edits", "alone", "merged", "retention", "leaks in"])


def _scores(
    asked: TrialEdits, outputs: Sequence[np.ndarray], models: Models | None
) -> dict[str, float] | None:
    """Score edits as `customize score` does; means over the concept's edits."""
    if models is None:
        return None
    from customize.scoring import score_edits
    from customize.scoring.items import Item

    targets = tuple(Image.fromarray(example.target_HWC) for example in asked.examples)
    items = [
        Item(
            source=Image.fromarray(example.source_HWC),
            instruction=example.instruction,
            output=to_picture(output),
            target=target,
            source_caption=example.source_caption,
            target_caption=example.target_caption,
            references=targets,
        )
        for example, output, target in zip(asked.examples, outputs, targets, strict=True)
    ]
    scores = score_edits(items, models)
    means = {str(metric): scores.mean(metric) for metric in scores.metrics()}
    return {metric: mean for metric, mean in means.items() if mean is not None}


def _leaks_at(name: str, leaks: Leaks) -> str:
    shares = [(of, share) for (at, of), share in leaks.items() if at == name]
    return ", ".join(f"{of} {_percent(share)}" for of, share in shares if share is not None) or "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
