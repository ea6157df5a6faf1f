"""Triplets as training reads them: `pairs.jsonl`, WebDataset, imagefolder, and whence they come."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from customize.files import make_folder, replacing, write_text
from customize.synthesis.output.triplet import Triplet

A_SHARD = 1000
"""Triplets in one tar file."""
_SHARD = re.compile(r"[0-9]{6}\.tar")
_PICTURE = re.compile(r"[0-9]{6}_[0-9]{3}_(source|edited)\.png")


def write_pairs(folder: Path, triplets: Sequence[Triplet]) -> Path:
    """Write `pairs.jsonl`, and `provenance.jsonl` with a line for each of its lines."""
    write_text(
        folder / "provenance.jsonl", _lines({"name": t.name, **t.provenance} for t in triplets)
    )
    return write_text(folder / "pairs.jsonl", _lines(triplet.row() for triplet in triplets))


def write_shards(folder: Path, triplets: Sequence[Triplet]) -> list[Path]:
    """Write WebDataset shards, `shards/000000.tar` and on: NAME.source.png, .edited.png, .json.

    The same triplets give the same bytes. What an earlier call wrote is replaced.
    """
    shards, starts = folder / "shards", range(0, len(triplets), A_SHARD)
    written = [
        _write_shard(shards / f"{n:06}.tar", folder, triplets[start : start + A_SHARD])
        for n, start in enumerate(starts)
    ]
    _remove_others(shards, _SHARD, written)
    return written


def _write_shard(path: Path, folder: Path, triplets: Sequence[Triplet]) -> Path:
    with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
        for triplet in triplets:
            for role, picture in (("source", triplet.source), ("edited", triplet.edited)):
                content = (folder / picture).read_bytes()
                _add(tar, f"{triplet.name}.{role}{picture.suffix}", content)
            about = {**triplet.row(), "provenance": dict(triplet.provenance)}
            _add(tar, f"{triplet.name}.json", json.dumps(about, ensure_ascii=False).encode())
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))


def write_imagefolder(folder: Path, triplets: Sequence[Triplet]) -> Path:
    """Write `imagefolder/train/` as Hugging Face's `load_dataset("imagefolder")` reads it.

    Columns are those of its instruction-editing examples. Pictures are hard links where the disk
    has them, so they take no room.
    """
    whole = folder / "imagefolder"
    train, rows = make_folder(whole / "train"), list[dict[str, Any]]()
    for triplet in triplets:
        for picture in (triplet.source, triplet.edited):
            with replacing(train / picture.name) as temporary:
                _link(folder / picture, temporary)
        rows.append(
            {
                "file_name": triplet.source.name,
                "edited_image_file_name": triplet.edited.name,
                "edit_prompt": triplet.instruction,
                "original_prompt": triplet.source_caption or "",
                "edited_prompt": triplet.edited_caption or "",
            }
        )
    write_text(train / "metadata.jsonl", _lines(rows))
    pictures = [picture for triplet in triplets for picture in (triplet.source, triplet.edited)]
    _remove_others(train, _PICTURE, [train / picture.name for picture in pictures])
    return whole


def _remove_others(folder: Path, ours: re.Pattern[str], kept: Iterable[Path]) -> None:
    """Remove what an earlier call wrote more than this one."""
    names = {path.name for path in kept}
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.name not in names:
            path.unlink()


def _link(picture: Path, place: Path) -> None:
    place.unlink(missing_ok=True)
    try:
        os.link(picture, place)
    except OSError:
        shutil.copyfile(picture, place)


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
