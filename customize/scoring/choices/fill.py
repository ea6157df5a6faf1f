"""Let a judge choose: edits made twice over, judged one by one, and kept as choices."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from customize.editing import Editor
from customize.editing.edited_picture import Edited
from customize.editing.options import EditOptions
from customize.errors import ScoreError
from customize.scoring.choices.choice import Choice, Won
from customize.scoring.choices.keep import ChoiceFolder, Made
from customize.scoring.edits.tasks import EditTask, in_plain_words
from customize.scoring.edits.variants import Variant
from customize.scoring.judging.opinion import Judge, JudgedEdit, Opinion
from customize.scoring.networks.embed import opened

ALIKE = 0.1
"""Of 10: results whose overall scores are nearer are a tie."""


def fill(
    folder: ChoiceFolder,
    tasks: Sequence[EditTask],
    variants: Sequence[Variant],
    judge: Judge,
    options: EditOptions,
    *,
    device: str | None = None,
    progress: bool = False,
) -> list[Choice]:
    """Make every task by two variants from the same noise, or by one from two, and have it judged.

    What the judge has no opinion of is left out. Raises ScoreError for another number of variants,
    EndpointError, and what editing raises.
    """
    if not 1 <= len(variants) <= 2:
        raise ScoreError(
            f"{len(variants)} variants to choose between; expected one or two; name one adapter "
            "for choices between its seeds, or two"
        )
    seed, count = options.get("seed", 0), len(tasks)
    seeds = [(variants[0], seed), (variants[-1], seed if len(variants) == 2 else seed + count)]
    bar = tqdm(total=2 * count, desc="editing", disable=None if progress else True, leave=False)
    with bar:
        sides, editor = list[list[Edited]](), None
        for variant, first in seeds:
            if editor is None or editor.base.name != variant.base:
                editor = Editor.from_base(variant.base, device=device)
            sides.append(edited_by(editor, variant, tasks, {**options, "seed": first}))
            bar.update(count)
    labels = [variant.label for variant, _ in seeds]
    kept: list[Choice] = []
    for number, (task, *both) in enumerate(zip(tasks, *sides, strict=True)):
        source = opened(task.source)
        asked = [JudgedEdit(source, task.wording, edited.image) for edited in both]
        won = better(*judge.opinions(asked))
        if won is None:
            continue
        one, other = (Made(edited, label) for edited, label in zip(both, labels, strict=True))
        if number % 2:  # so that the place says nothing
            one, other, won = other, one, _turned(won)
        kept.append(folder.add(source, task.instruction, one, other, won, f"judge {judge.name}"))
    return kept


def better(first: Opinion, second: Opinion) -> Won | None:
    """Return which of two results is better by its overall score, None without both opinions.

    >>> better(Opinion((8, 8)), Opinion((9, 4))), better(Opinion((0, 9)), Opinion((0, 5)))
    ('first', 'neither')
    """
    one, other = first.overall, second.overall
    if one is None or other is None:
        return None
    if one == other == 0:
        return "neither"
    if abs(one - other) < ALIKE:
        return "tie"
    return "first" if one > other else "second"


def _turned(won: Won) -> Won:
    turned: dict[Won, Won] = {"first": "second", "second": "first"}
    return turned.get(won, won)


def edited_by(
    editor: Editor, variant: Variant, tasks: Sequence[EditTask], options: EditOptions
) -> list[Edited]:
    """Make tasks as a variant makes them, with an editor that has its base open.

    Task i starts from the noise of the seed + i; words that no adapter of it teaches are said
    plainly.
    """
    variant.put_on(editor)
    asked = [in_plain_words(task, variant.plain, variant.taught) for task in tasks]
    sources, instructions = [task.source for task in asked], [task.instruction for task in asked]
    return editor.batch(sources, instructions, **options)
