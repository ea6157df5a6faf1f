"""A folder of answers that lies elsewhere: its books are kept here while it is worked on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from customize.editing.edited_picture import carries_settings
from customize.editing.folders.manifest import MANIFEST, Done, Manifest
from customize.editing.folders.run import Finished, Outcome
from customize.editing.folders.thumbnails import THUMBNAILS, Store
from customize.errors import EditError, Fault
from customize.files.manifest import NAME
from customize.files.remote import Remote

EVERY = 10.0
"""Seconds after which answers are sent, with their records; `MOST_WAITING` are sent before that."""
MOST_WAITING = 64
_SENDERS = 8


@contextmanager
def books_of(output: Path | Remote, own: Sequence[str]) -> Iterator[Path]:
    """Yield the folder of manifest, thumbnails, page and sheets (`own`): the output's, or a copy.

    A copy goes back at the end, whatever the end is. Raises EditError where it cannot.
    """
    if isinstance(output, Path):
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="customize-") as name:
        here, names = Path(name), [NAME, MANIFEST, THUMBNAILS, *own]
        try:
            for each in names:
                if (output / each).exists():
                    (here / each).write_bytes((output / each).read())
        except Exception as error:  # storages raise whatever their libraries do
            raise _unreached(output, error) from None
        before = {each: (here / each).read_bytes() for each in names if (here / each).exists()}
        try:
            yield here
        finally:
            changed = [
                each
                for each in names
                if (here / each).exists() and (here / each).read_bytes() != before.get(each)
            ]
            try:
                for each in changed:
                    (output / each).write((here / each).read_bytes())
            except Exception as error:
                raise _unreached(output, error) from None


def sent(
    answers: Iterable[Finished | Outcome], manifest: Manifest, store: Store, output: Remote
) -> Iterator[Outcome]:
    """Send answers as they come, several at a time, their records before them.

    So that after a kill, or the end of this machine, every answer there has a record: one without
    its answer is made again.
    """
    waiting: list[Finished] = []
    last = time.monotonic()
    with ThreadPoolExecutor(_SENDERS) as senders:
        for made in answers:
            if isinstance(made, Outcome):
                yield made
                continue
            waiting.append(made)
            if len(waiting) >= MOST_WAITING or time.monotonic() - last > EVERY:
                yield from _send(waiting, manifest, store, output, senders)
                waiting, last = [], time.monotonic()
        yield from _send(waiting, manifest, store, output, senders)


def _send(
    made: Sequence[Finished],
    manifest: Manifest,
    store: Store,
    output: Remote,
    senders: ThreadPoolExecutor,
) -> Iterator[Outcome]:
    if not made:
        return
    records: list[Done] = []
    for each in made:
        item = each.edit.item
        record = Done(str(item.output), each.edit.key(), each.input, len(each.content), each.notes)
        manifest.add(record)
        store.add(record.output, record.key, each.thumbnails)
        records.append(record)
    try:
        (output / MANIFEST).write(manifest.path.read_bytes())
    except Exception as error:
        raise _unreached(output, error) from None
    for each, record, fault in zip(
        made, records, senders.map(lambda one: _put(one, output), made), strict=True
    ):
        yield Outcome(each.edit, record if fault is None else fault)


def _put(made: Finished, output: Remote) -> Fault | None:
    """Write an answer and its masks; what cannot be written for itself is a fault."""
    item = made.edit.item
    try:
        for number, content in enumerate(made.found, start=1):
            mask = output / item.output.with_name(f"{item.output.stem}.mask{number}.png")
            if mask.exists() and not carries_settings(mask):
                return Fault(item.place, f"{mask.name} is there already", "move it")
            mask.write(content)
        (output / item.output).write(made.content)
    except Exception as error:
        return Fault(item.place, f"cannot be written there ({error})", "check the right to write")
    return None


def _unreached(output: Remote, error: Exception) -> EditError:
    return EditError(
        f"{output}: it cannot be read and written ({error}); expected a storage that can; check "
        "the address, the network and who you are signed in as; what is there stays"
    )
