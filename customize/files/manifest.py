"""What runs wrote into a folder, so that replacing it touches nothing else.

A hidden JSON file lists names before they are written, so a killed run's files are known too. When
a run is done each has its hash: a file that somebody changed since is theirs. While a run takes
another's place, the earlier one's files wait in a hidden folder beside them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from customize.errors import OutputError, OutputExistsError
from customize.files.disk import naming_disk
from customize.files.write import make_folder, remove, write_text

NAME = ".customize.json"
_FORMAT, _VERSION = "customize-manifest", 1
_LARGEST = 2**24
_SHOWN = 5


@dataclass
class Written:
    """What one kind of run wrote: names with their sha256, None while they may still change.

    A name may be a pattern (`previews/step_*.png`). `key` says of what the run is; `parts` is what
    a run of several parts has done so far, as JSON.
    """

    names: dict[str, str | None] = field(default_factory=dict)
    key: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)


class Manifest:
    """The list in `folder`, seen by one kind of run (`train`).

    `last` is what that writes last, if it has a name that is known before: where it is there, the
    run was whole, even if the list was not finished any more.
    """

    def __init__(self, folder: Path, run: str, last: str | None = None) -> None:
        """Read the list; raises OutputError for one that is damaged."""
        self.folder, self._run, self._last = folder, run, last
        self._all = _read(folder / NAME)
        self._aside = folder / f".replaced-{run.replace(' ', '-')}"

    @property
    def own(self) -> Written:
        """What this kind of run wrote."""
        return self._all.setdefault(self._run, Written())

    @property
    def unfinished(self) -> bool:
        """Whether a run of this kind began here and has not come to its end."""
        return any(known is None for known in self.own.names.values())

    def begin(self, names: Iterable[str], key: str | None = None) -> None:
        """Note what is going to be written, or written on.

        Raises OutputExistsError, with nothing noted, where something else lies there.
        """
        self.check(names := tuple(names))
        self.own.key = key
        self.claim(names)

    def claim(self, names: Iterable[str]) -> None:
        """Note more that is going to be written; raises OutputExistsError as `begin` does."""
        self.check(names := tuple(names))
        for written in self._all.values():
            written.names = {k: v for k, v in written.names.items() if k not in names}
        self.own.names |= dict.fromkeys(names)
        self.save()

    def begin_anew(
        self,
        names: Iterable[str],
        key: str | None = None,
        *,
        replaces: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Set aside what this kind of run wrote under names that it `replaces`, and begin.

        Where an earlier such call was cut short it goes on: what waits aside is the last whole run.
        Raises OutputExistsError, with nothing moved, where something lies there that no run wrote.
        """
        self.check(names := tuple(names))
        earlier = self._earlier()
        for path in self._there(self.own):
            if not replaces(name := self._name(path)):
                continue
            if digest_of(path) == earlier.names.get(name):
                self._move(path, self._aside / name)
            else:  # of a run that was itself to take the place of what waits aside
                remove(path)
        kept = {name: known for name, known in self.own.names.items() if not replaces(name)}
        self._all[self._run] = Written(kept)
        self.begin(names, key)

    def finish(self) -> None:
        """Note what every file has become, and remove what was set aside."""
        self._all[self._run] = Written(self._hashes(), self.own.key, self.own.parts)
        self.save()
        remove(self._aside)

    def undo(self, keep: Iterable[str] = ()) -> None:
        """Remove what a failed run wrote, but for names to `keep`; bring back what was aside."""
        kept = {name for name, known in self.own.names.items() if known is not None} | {*keep}
        for path in self._there(self.own):
            if not any(fnmatch.fnmatchcase(self._name(path), name) for name in kept):
                remove(path)
                self._remove_empty(path.parent)
        mine = self._hashes()
        self._all[self._run] = Written(mine, self.own.key)
        if self.replaces:
            earlier = self._earlier()
            for path in sorted(self._aside.rglob("*")):
                back = self.folder / path.relative_to(self._aside)
                if path.is_file() and path.name != NAME and not os.path.lexists(back):
                    self._move(path, back)
            self._all[self._run] = Written(mine | earlier.names, earlier.key, earlier.parts)
        self.save()
        remove(self._aside)

    @property
    def replaces(self) -> bool:
        """Whether an earlier run's files wait aside."""
        return self._aside.is_dir()

    def check(self, names: Iterable[str]) -> None:
        """Raise OutputExistsError where what no run wrote lies under one of these names."""
        found = sorted(path for name in names for path in self._matching(name))
        if theirs := [path for path in dict.fromkeys(found) if not self.owns(path)]:
            shown = ", ".join(str(path) for path in theirs[:_SHOWN])
            more = f" and {len(theirs) - _SHOWN} more" if len(theirs) > _SHOWN else ""
            raise OutputExistsError(
                f"{shown}{more}: no run wrote what lies there; expected a free name, or what a run "
                "wrote and nobody changed since; move it away, or choose another output"
            )

    def owns(self, path: Path) -> bool:
        """Tell whether a run wrote `path`, all of it if a folder, and nobody changed it since."""
        if path.is_dir() and not path.is_symlink():
            return all(self.owns(inside) for inside in path.rglob("*") if not inside.is_dir())
        name = self._name(path)
        return any(_is_of(written, name, path) for written in self._all.values())

    def save(self) -> None:
        """Write the list, whole or not at all."""
        runs = {run: asdict(written) for run, written in self._all.items() if written.names}
        if not runs:
            (self.folder / NAME).unlink(missing_ok=True)
            return
        content = {"format": _FORMAT, "version": _VERSION, "runs": runs}
        write_text(self.folder / NAME, json.dumps(content, indent=1) + "\n")

    def _earlier(self) -> Written:
        """Return what the run that waits aside wrote; begin to set one aside where none does."""
        record = self._aside / NAME
        if record.is_file():
            earlier = _read(record).get(self._run, Written())
            if not self._whole_beside(earlier):
                return earlier
            remove(self._aside)  # only the clearing up was missed
        make_folder(self._aside)
        earlier = Written(self._hashes(), self.own.key, self.own.parts)
        content = {"format": _FORMAT, "version": _VERSION, "runs": {self._run: asdict(earlier)}}
        write_text(record, json.dumps(content))
        return earlier

    def _whole_beside(self, earlier: Written) -> bool:
        """Tell whether a whole run is in place of the one aside, not what is left of that one."""
        if self._last is not None:
            last = self.folder / self._last
            return last.is_file() and digest_of(last) != earlier.names.get(self._last)
        mine = self.own.names
        return bool(mine) and not self.unfinished and mine != earlier.names

    def _hashes(self) -> dict[str, str | None]:
        return {self._name(path): digest_of(path) for path in self._there(self.own)}

    def _there(self, written: Written) -> list[Path]:
        """List the files that are there and still as a run left them."""
        found = {path for name in written.names for path in self._matching(name)}
        return sorted(path for path in found if _is_of(written, self._name(path), path))

    def _matching(self, name: str) -> Iterator[Path]:
        if "*" in name:
            yield from self.folder.glob(name)
        elif os.path.lexists(self.folder / name):
            yield self.folder / name

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.folder and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _move(self, path: Path, target: Path) -> None:
        make_folder(target.parent)
        with naming_disk(path, everything=True):
            os.replace(path, target)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _is_of(written: Written, name: str, path: Path) -> bool:
    if name in written.names:
        known = written.names[name]
        return path.is_file() and not path.is_symlink() and known in (None, digest_of(path))
    return any("*" in one and fnmatch.fnmatchcase(name, one) for one in written.names)


def _read(path: Path) -> dict[str, Written]:
    """Read a list, empty where there is none; its names stay inside the folder."""
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise ValueError("no file, or larger than any of ours")
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != _FORMAT or content["version"] > _VERSION:
            raise ValueError("of another format or a newer version")
        found = {str(run): _written(**values) for run, values in content["runs"].items()}
        for name in (name for written in found.values() for name in written.names):
            if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
                raise ValueError(f"it names {name!r}, which is elsewhere")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(
            f"{path}: the list of what runs wrote here is damaged ({error}); expected it as it was "
            "written; choose another output, or remove it once nothing in its folder is of use"
        ) from None


def _written(names: dict[str, str | None], key: str | None, parts: dict[str, Any]) -> Written:
    return Written(dict(names.items()), key, dict(parts.items()))


def digest_of(path: Path) -> str:
    """Return a file's sha256, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
