"""What of a folder was edited already: one line of JSON a picture, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from customize.errors import EditError
from customize.files import write_text
from customize.files.disk import naming_disk
from customize.files.lock import in_use
from customize.files.remote import Remote

FORMAT = "customize folder 1"
MANIFEST = "manifest.jsonl"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class InputFile:
    """A file that an answer follows from; its size and time tell cheaply that it is the same."""

    size: int
    modified: int
    sha256: str


@dataclass(frozen=True)
class Done:
    """One answer in the run's folder: what it follows from, and the size of its file in bytes."""

    output: str
    key: str
    input: InputFile
    bytes: int
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """Write the record as one line of JSON."""
        fields = {**vars(self), "input": vars(self.input)}
        return json.dumps(fields) + "\n"


@dataclass
class Manifest:
    """The records of one output folder, added to as answers are written."""

    path: Path
    at_once: int
    done: dict[str, Done] = field(default_factory=dict)
    _file: IO[str] | None = None

    def add(self, record: Done) -> None:
        """Keep a record at once: what a killed process wrote is on disk."""
        assert self._file is not None, "records are added while the manifest is open"
        self.done[record.output] = record
        with naming_disk(self.path):
            self._file.write(record.line())
            self._file.flush()

    def holds(self, output: str, key: str, image: Path | Remote, folder: Path | Remote) -> bool:
        """Tell whether an answer is there and still follows from the same input and settings."""
        record = self.done.get(output)
        if record is None or record.key != key:
            return False
        try:
            if (folder / output).stat().st_size != record.bytes:
                return False
            return same_file(image, record.input)
        except OSError:
            return False


@contextmanager
def opened_manifest(path: Path, at_once: int | None, usual: int) -> Iterator[Manifest]:
    """Open a folder's manifest to add to it, one process at a time; rewritten whole at first.

    `at_once` None keeps the number of pictures sampled together that earlier runs had (it decides
    the last bits of the answers), else takes `usual`. Raises EditError for a foreign or damaged
    file, OutputError where another run works in the folder.
    """
    _read(path)  # a damaged one is told before anything is touched
    with in_use(path.parent):
        head, done = _read(path)
        together = at_once or int(head.get("at_once", usual))
        manifest = Manifest(path, together, done)
        facts = json.dumps({"format": FORMAT, "at_once": together})
        write_text(path, "".join([f"{facts}\n", *(record.line() for record in done.values())]))
        with naming_disk(path), path.open("a", encoding="utf-8") as manifest._file:
            yield manifest
        manifest._file = None


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, Done]]:
    """Return the head and the last record of each output; a line cut short by a kill is dropped."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        lines = path.read_text("utf-8").split("\n")
    except FileNotFoundError:
        return {}, {}
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, 1, error) from None
    *whole, _ = lines  # what stands behind the last line end was cut short
    done: dict[str, Done] = {}
    head: dict[str, Any] = {}
    for number, line in enumerate(whole, start=1):
        try:
            fields = json.loads(line)
            if number == 1:
                head = fields
                if head.get("format") != FORMAT or not 0 < int(head["at_once"]) < 10_000:
                    raise ValueError("its first line is none of this format")
                continue
            record = Done(
                output=str(fields["output"]),
                key=str(fields["key"]),
                input=InputFile(**fields["input"]),
                bytes=int(fields["bytes"]),
                notes=tuple(map(str, fields["notes"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path, number, error) from None
        done[record.output] = record
    return head, done


def _damaged(path: Path, number: int, error: Exception) -> EditError:
    return EditError(
        f"{path}:{number}: no record of finished edits ({type(error).__name__}: {error}); expected "
        "what `customize edit-folder` writes; remove the file to edit all pictures anew, or name "
        "another output"
    )


def described(path: Path | Remote) -> InputFile:
    """Hash a file, and note by what it may later be known to be the same."""
    before = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") if isinstance(path, Path) else path.open() as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return InputFile(before.st_size, before.st_mtime_ns, digest.hexdigest())


def same_file(path: Path | Remote, known: InputFile) -> bool:
    """Tell whether a file is as it was: by size and time, and where time moved by its content."""
    found = path.stat()
    if found.st_size != known.size:
        return False
    return found.st_mtime_ns == known.modified or described(path).sha256 == known.sha256


def key_of(facts: Mapping[str, Any]) -> str:
    """Return a short name of settings: the same settings, the same name."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
