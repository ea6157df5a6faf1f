"""Make the edits that are to be scored, several at a time; those already on disk are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from customize import __version__
from customize.editing import Editor
from customize.editing.options import EditOptions, check_sources
from customize.errors import PairsError, ScoreError
from customize.families import profile_of
from customize.families.base import resolve_base
from customize.pairs.decode import opened_picture
from customize.scoring.edits.tasks import EditTask, in_plain_words
from customize.scoring.edits.variants import Variant
from customize.scoring.items import Item
from customize.scoring.networks.embed import Contents

_KEY = "customize-edit"
"""Name of the PNG text that binds an edit to its name: a file under another's is no edit of it."""


def make_edits(
    variants: Sequence[Variant],
    tasks: Sequence[EditTask],
    options: EditOptions,
    folder: Path,
    *,
    at_once: int = 8,
    device: str | None = None,
    progress: bool = False,
) -> Mapping[str, list[Item]]:
    """Make every task with every variant; return the finished edits by the variants' labels.

    Each edit is a PNG in `folder`, named by all that it follows from, so a stopped run goes on and
    changed inputs are made anew. Task i starts from the noise of `seed` + i. Raises EditError,
    PairsError, AdapterFileError and BaseModelError.
    """
    if not tasks:
        raise ScoreError("no edits to make; expected at least one; name a folder with pairs")
    _check_sources(variants, tasks)
    contents, made = Contents(), dict[str, list[Item]]()
    editors: dict[str, Editor] = {}
    bar = tqdm(total=len(variants) * len(tasks), desc="editing", disable=None if progress else True)
    with bar:
        for variant in variants:
            asked = [in_plain_words(task, variant.plain, variant.taught) for task in tasks]
            paths = _paths(variant, asked, options, folder, contents)
            editor: Editor | None = None
            for start in range(0, len(asked), at_once):
                part = slice(start, start + at_once)
                if not all(map(_is_made, paths[part])):
                    editor = editor or variant.put_on(_editor(variant.base, editors, device))
                    seed = options.get("seed", 0) + start
                    _make(editor, asked[part], paths[part], options, seed)
                bar.update(len(paths[part]))
            made[variant.label] = [
                task.finished(path) for task, path in zip(asked, paths, strict=True)
            ]
    return made


def _check_sources(variants: Sequence[Variant], tasks: Sequence[EditTask]) -> None:
    """Refuse edits of several sources before any is made, where a base reads one."""
    most = max(1 + len(task.further_sources) for task in tasks)
    for variant in variants:
        check_sources(most, variant.base, profile_of(resolve_base(variant.base).family))


def edit_tasks(
    editor: Editor, tasks: Sequence[EditTask], options: EditOptions, *, at_once: int = 8
) -> list[Item]:
    """Make tasks with an editor as it is, keeping the pictures in memory alone."""
    edited = editor.batch(
        [task.source for task in tasks],
        [task.instruction for task in tasks],
        further=[task.further_sources for task in tasks],
        at_once=at_once,
        **options,
    )
    return [task.finished(one.image) for task, one in zip(tasks, edited, strict=True)]


def _editor(base: str, editors: dict[str, Editor], device: str | None) -> Editor:
    """Open a base when its first edit is missing; only one is held at a time."""
    if base not in editors:
        editors.clear()
        editors[base] = Editor.from_base(base, device=device)
    return editors[base]


def _make(
    editor: Editor,
    tasks: Sequence[EditTask],
    paths: Sequence[Path],
    options: EditOptions,
    seed: int,
) -> None:
    given: Any = {**options, "seed": seed}
    edited = editor.batch(
        [task.source for task in tasks],
        [task.instruction for task in tasks],
        further=[task.further_sources for task in tasks],
        at_once=len(tasks),
        **given,
    )
    for one, path in zip(edited, paths, strict=True):
        one.save(path, overwrite=True, note=(_KEY, path.stem))


def _is_made(path: Path) -> bool:
    """Tell whether the edit of this very name is there, and whole."""
    try:
        with opened_picture(path) as picture:
            picture.load()
            return getattr(picture, "text", {}).get(_KEY) == path.stem
    except PairsError:
        return False


def _paths(
    variant: Variant,
    tasks: Sequence[EditTask],
    options: EditOptions,
    folder: Path,
    contents: Contents,
) -> list[Path]:
    """Name every edit's file by number and by what it follows from."""
    identity = variant.identity()
    paths: list[Path] = []
    for index, task in enumerate(tasks):
        facts = {
            "variant": identity,
            "source": contents.key(task.source),
            "instruction": task.instruction,
            "options": {**options, "seed": options.get("seed", 0) + index},
            "version": __version__,
        }
        if task.further_sources:
            facts["further"] = [contents.key(picture) for picture in task.further_sources]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        paths.append(folder / f"{index + 1:04}_{key[:16]}.png")
    return paths
