"""Keep a choice: its pictures under the name of their content, and one line more in the table."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from customize.editing.edited_picture import Edited
from customize.files import replacing
from customize.files.turn import in_turn
from customize.scoring.choices.choice import FORMAT, PERSON, TABLE, Choice, Result, Won
from customize.scoring.choices.read import read_choices


@dataclass(frozen=True)
class Made:
    """A finished edit under the name it goes by, such as its adapter's."""

    edited: Edited
    label: str


@dataclass(frozen=True)
class ChoiceFolder:
    """A folder of choices: `choices.jsonl`, and `pictures/` with what was chosen between."""

    path: Path

    @property
    def table(self) -> Path:
        """The table."""
        return self.path / TABLE

    def read(self) -> list[Choice]:
        """Read what is there, nothing where no choice was made yet; raises as `read_choices`."""
        return read_choices(self.path) if self.table.exists() and self.table.stat().st_size else []

    def add(
        self,
        source: Image.Image,
        instruction: str,
        first: Made,
        second: Made,
        won: Won,
        by: str = PERSON,
    ) -> Choice:
        """Keep a choice at once: pictures first, then its line. Others may add at the same time."""
        choice = Choice(
            self._keep(_png(source)),
            instruction,
            self._result(first),
            self._result(second),
            won,
            by,
        )
        self._append(json.dumps(self._fields(choice), ensure_ascii=False) + "\n")
        return choice

    def _result(self, made: Made) -> Result:
        picture = self._keep(made.edited.encoded(".png"))
        return Result(picture, made.label, made.edited.settings)

    def _keep(self, content: bytes) -> Path:
        path = self.path / "pictures" / f"{hashlib.sha256(content).hexdigest()[:32]}.png"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        return path

    def _fields(self, choice: Choice) -> dict[str, Any]:
        def result(of: Result) -> Mapping[str, Any]:
            """Write a result's picture by its place under the folder."""
            return {"picture": self._name(of.picture), "label": of.label} | {
                "settings": asdict(of.settings)
            }

        return {
            "format": FORMAT,
            "source": self._name(choice.source),
            "instruction": choice.instruction,
            "first": result(choice.first),
            "second": result(choice.second),
            "won": choice.won,
            "by": choice.by,
        }

    def _name(self, picture: Path) -> str:
        return picture.relative_to(self.path).as_posix()

    def _append(self, line: str) -> None:
        """Add one line, after cutting off what a kill left of another."""
        self.path.mkdir(parents=True, exist_ok=True)
        with in_turn(self.path / f".{TABLE}.lock"), self.table.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - (1 << 20)))
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.convert("RGB").save(content, "PNG")
    return content.getvalue()
