"""Edit what is planned: read ahead, sample, write behind, note every answer as it is written."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from customize.editing.edited_picture import Edited, carries_settings
from customize.editing.folders.group import Answer, Group, finished, make_group, strengths_in_turn
from customize.editing.folders.manifest import Done, InputFile, Manifest, described
from customize.editing.folders.plan import Edit
from customize.editing.folders.thumbnails import Store, Thumbnails, thumbnails_of
from customize.editing.photograph import Photograph, open_photograph
from customize.errors import CustomizeError, EditError, Fault, FaultsError, OutputError
from customize.files import replacing
from customize.files.disk import is_full
from customize.files.remote import Remote

if TYPE_CHECKING:
    from customize.editing import Editor

WRITERS = 2
"""Threads that scale, encode and compress answers while the next ones are sampled."""


@dataclass(frozen=True)
class Outcome:
    """What became of one item: its answer's record, or why there is none."""

    edit: Edit
    done: Done | Fault


@dataclass(frozen=True)
class Read:
    """One picture as it was read: its pixels or its error, and its file's facts."""

    photograph: Photograph | CustomizeError
    facts: InputFile | None


@dataclass(frozen=True)
class Finished:
    """One answer as the content of its file, with what its record says."""

    edit: Edit
    content: bytes
    input: InputFile
    notes: tuple[str, ...]
    thumbnails: Thumbnails
    found: tuple[bytes, ...] = ()


def unfinished(
    edits: Sequence[Edit], manifest: Manifest, folder: Path | Remote, *, overwrite: bool
) -> tuple[set[Edit], list[Outcome]]:
    """Return which edits are still to be made, and what is known of the others already.

    An answer that is there and recorded stays; a file that no record knows is not replaced unless
    `overwrite`.
    """
    wanted, known = set[Edit](), list[Outcome]()
    for edit in edits:
        output = str(edit.item.output)
        if manifest.holds(output, edit.key(), edit.item.image, folder):
            known.append(Outcome(edit, manifest.done[output]))
        elif not overwrite and not _ours(folder / output, manifest.done.get(output)):
            found = f"{output} is there already, and not from this command as it is now"
            fault = Fault(edit.item.place, found, "move it, name another -o, or add --overwrite")
            known.append(Outcome(edit, fault))
        else:
            wanted.add(edit)
    return wanted, known


def _ours(path: Path | Remote, record: Done | None) -> bool:
    """Tell whether a place is free or holds an answer of an earlier run.

    Elsewhere records come before answers: one whose answer did not come is of the one before it.
    """
    if isinstance(path, Remote):
        return record is not None or not path.exists()
    try:
        size = path.stat().st_size
    except OSError:
        return not path.is_symlink()
    return record is not None and size == record.bytes


def encoded_in_turn(
    editor: Editor, groups: Sequence[Group], wanted: Container[Edit], quality: int
) -> Iterator[Finished | Outcome]:
    """Make groups with a wanted edit in them, up to the content of files that nobody wrote yet.

    Of a group all pictures are sampled, as in a run that was never stopped, and those wanted come.
    """
    return made_in_turn(editor, groups, wanted, partial(_finish, quality=quality))


def kept(
    answers: Iterable[Finished | Outcome], manifest: Manifest, store: Store, folder: Path
) -> Iterator[Outcome]:
    """Write and note answers as they come, wherever they were made."""
    for made in answers:
        if isinstance(made, Outcome):
            yield made
        else:
            done = keep(made, manifest, folder)
            if isinstance(done, Done):
                store.add(done.output, done.key, made.thumbnails)
            yield Outcome(made.edit, done)


def keep(made: Finished, manifest: Manifest, folder: Path) -> Done | Fault:
    """Write an answer, its record first, so that after a kill every file there has one.

    Raises OutputError where the disk is full; what cannot be written for itself is a fault.
    """
    output, place = made.edit.item.output, made.edit.item.place
    path = folder / output
    record = Done(str(output), made.edit.key(), made.input, len(made.content), made.notes)
    masks = {
        path.with_name(f"{path.stem}.mask{number}.png"): content
        for number, content in enumerate(made.found, start=1)
    }
    if theirs := [mask for mask in masks if os.path.lexists(mask) and not carries_settings(mask)]:
        return Fault(place, f"{theirs[0].name} is there already", "move it, or name another -o")
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(made.content)
            for mask, content in masks.items():
                with replacing(mask) as aside:
                    aside.write_bytes(content)
            path.unlink(missing_ok=True)
            manifest.add(record)
    except OutputError as error:
        if is_full(error, path):
            raise
        return Fault(place, error.found, error.cure)
    return record


Finish = Callable[[Edit, Read, Answer | CustomizeError], "Made"]
Made = TypeVar("Made")


def made_in_turn(
    editor: Editor, groups: Sequence[Group], wanted: Container[Edit], finish: Finish[Made]
) -> Iterator[Made]:
    """Make groups with a wanted edit in them; reading and finishing go on beside sampling."""
    due = [group for group in groups if any(edit in wanted for edit in group)]
    with (
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(WRITERS) as writers,
        strengths_in_turn(editor, due) as turns,
    ):
        ahead = deque([reader.submit(_read_group, group) for group in due[:1]])
        behind = deque[list[Future[Made]]]()
        for number, group in enumerate(turns):
            read = ahead.popleft().result()
            ahead.extend(
                reader.submit(_read_group, later) for later in due[number + 1 : number + 2]
            )
            photographs = {edit: one.photograph for edit, one in read.items()}
            answers = make_group(editor, group, photographs)
            behind.append(
                [
                    writers.submit(finish, edit, read[edit], answers[edit])
                    for edit in group
                    if edit in wanted
                ]
            )
            if len(behind) > 1:
                yield from (future.result() for future in behind.popleft())
        for futures in behind:
            yield from (future.result() for future in futures)


def _read_group(group: Group) -> dict[Edit, Read]:
    return {edit: read(edit.item.image) for edit in group}


def read(path: Path | Remote) -> Read:
    """Read a picture and its file's facts, or why it cannot be."""
    try:
        if isinstance(path, Remote):
            return _fetched(path)
        return Read(open_photograph(path), described(path))
    except CustomizeError as error:
        return Read(error, None)
    except OSError as error:
        return Read(EditError(f"{path}: cannot be read: {error.strerror}; check the file"), None)


def _fetched(path: Remote) -> Read:
    """Read a picture that lies elsewhere, once and whole, by way of a file here."""
    try:
        before = path.stat()
        with tempfile.NamedTemporaryFile(prefix="customize-", suffix=path.suffix[:16]) as here:
            here.write(path.read())
            here.flush()
            photograph, facts = open_photograph(Path(here.name)), described(Path(here.name))
    except CustomizeError:
        raise
    except Exception as error:  # storages raise whatever their libraries do
        raise EditError(f"{path}: cannot be read ({error}); check the file") from None
    return Read(photograph, replace(facts, modified=before.st_mtime_ns))


def _finish(
    edit: Edit, read: Read, answer: Answer | CustomizeError, *, quality: int
) -> Finished | Outcome:
    """Bring an answer to the content of its file, or its error to a fault."""
    if isinstance(answer, CustomizeError):
        return Outcome(edit, fault_of(edit.item.place, answer))
    assert isinstance(read.photograph, Photograph)
    assert read.facts is not None
    made: Edited = finished(answer, read.photograph, edit)
    content = made.encoded(edit.item.output.suffix, quality)
    masks = tuple(Edited(mask, edit.settings).encoded(".png") for mask in answer.found)
    small = thumbnails_of(read.photograph.srgb, made.image)
    return Finished(edit, content, read.facts, read.photograph.changed, small, masks)


def fault_of(place: str, error: CustomizeError) -> Fault:
    """Write an error as a line about one item."""
    if isinstance(error, FaultsError):
        return replace(error.faults[0], place=place)
    found, _, cure = str(error).rpartition("; ")
    return Fault(place, found, cure)
