"""From a folder of finished pictures to pairs: each finished picture gets sources of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from customize import __version__
from customize.editing.editor import Editor
from customize.errors import Fault, PairsError, SynthesisError
from customize.files import Used, replacing
from customize.files.text import found_at
from customize.pairs.decode import load_picture
from customize.pairs.picture_files import PICTURE_SUFFIXES, visible
from customize.scoring.networks.encoders import Clip
from customize.synthesis.backward.candidates import SourceScores, best, look_gone, structure
from customize.synthesis.backward.mend import common_frame, with_random_colors, without_frame
from customize.synthesis.output.journal import Journal
from customize.synthesis.output.triplet import Triplet
from customize.synthesis.output.write_pairs import write_pairs
from customize.synthesis.provenance import licence_of
from customize.synthesis.report import write_sheet
from customize.synthesis.result_folder import ResultFolder

AWAY = (
    "make it a plain photograph",
    "turn it into an ordinary photograph",
    "take the style away",
    "give it natural colors",
)
"""How an editing base is asked to undo a look, where nothing else is said."""


@dataclass(frozen=True)
class BackwardOptions:
    """What pairs shall say, how the look is asked away, and what a source has to reach.

    Each finished picture gets `candidates` edits, the wordings of `away` by turns, each from noise
    of its own; up to `keep` are kept, and so many times `recolored` as well: for looks that set all
    colours by themselves, as bases that undo one leave little of its opposite.
    """

    instruction: str
    away: tuple[str, ...] = AWAY
    candidates: int = 12
    keep: int = 2
    least_structure: float = 0.3
    least_gone: float = 0.02
    recolored: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Backward:
    """What was made: pairs, of how many finished pictures, and those left without a source."""

    pairs: Path
    kept: int
    pictures: int
    without: tuple[str, ...]


def make_backward(
    editor: Editor,
    clip: Clip,
    folder: Path,
    output: Path,
    options: BackwardOptions,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> Backward:
    """Make sources for the pictures of `folder`; a stopped call goes on where it was.

    Raises PairsError for a folder without usable pictures, SynthesisError where no source is good,
    EditError for instructions that cannot be asked, OutputExistsError.
    """
    files, finished = _finished(folder)
    if not options.instruction.strip():
        raise SynthesisError(
            'no instruction: expected what the pairs teach; write --instruction "..."'
        )
    vectors_BD, frame = clip.image_BD(finished), common_frame(finished)
    place = ResultFolder(output)
    used = [Used("the finished pictures", folder), Used("the base", editor.base.folder)]
    with place.held(_claimed(editor, clip, files, options), used, overwrite=overwrite):
        journal = Journal(place.samples)
        numbers = range(len(journal.pieces), len(finished))
        for number in tqdm(numbers, "sources", disable=None if progress else True):
            answers = _candidates(editor, finished[number], number, options)
            edits = [without_frame(answer, frame) for answer in answers]
            gone = look_gone(vectors_BD, number, clip.image_BD(edits))
            journal.append(
                _kept(place, number, files[number].name, finished[number], edits, gone, options)
            )
        return _finish(place, journal, editor, clip, options)


def _kept(
    place: ResultFolder,
    number: int,
    name: str,
    picture: Image.Image,
    edits: Sequence[Image.Image],
    gone: Sequence[float],
    options: BackwardOptions,
) -> dict[str, Any]:
    """Write the best sources of a picture, and return what the journal is to hold of it."""
    scores = [
        SourceScores(structure(picture, edit), lost) for edit, lost in zip(edits, gone, strict=True)
    ]
    chosen = best(scores, options.keep, options.least_structure, options.least_gone)
    stem = f"{number:04}"
    if chosen:
        _save(picture, place.pictures / f"{stem}_edited.png")
    for rank in chosen:
        for variant in range(1 + options.recolored):
            rng = np.random.default_rng((options.seed, number, rank, variant))
            source = with_random_colors(edits[rank], rng) if variant else edits[rank]
            _save(source, place.pictures / f"{_name(number, rank, variant)}_source.png")
    return {"picture": name, "scores": [score.facts() for score in scores], "chosen": chosen}


def _candidates(
    editor: Editor, picture: Image.Image, number: int, options: BackwardOptions
) -> list[Image.Image]:
    """Ask the look away `candidates` times, all from different noise.

    Nothing of the picture itself may stay: its pixels and detail are part of the look.
    """
    asked = [options.away[n % len(options.away)] for n in range(options.candidates)]
    seed = options.seed + number * options.candidates
    answers = editor.batch([picture] * len(asked), asked, seed=seed, detail="scaled")
    return [answer.image for answer in answers]


def _finish(
    place: ResultFolder, journal: Journal, editor: Editor, clip: Clip, options: BackwardOptions
) -> Backward:
    """Write the pairs the right way round: the finished picture is what the edit shall give."""
    models = {
        "base": {
            "name": Path(editor.base.name).name,
            "fingerprint": editor.base.fingerprint,
            "licence": licence_of(editor.base.folder),
        },
        "clip": {"name": Path(clip.name).name, "fingerprint": clip.fingerprint},
        "customize": __version__,
    }
    triplets, without = list[Triplet](), list[str]()
    for number, piece in enumerate(journal.pieces):
        if not piece["chosen"]:
            without.append(piece["picture"])
        triplets += [
            _triplet(number, rank, variant, piece, models, options)
            for rank in piece["chosen"]
            for variant in range(1 + options.recolored)
        ]
    if not triplets:
        raise SynthesisError(
            f"{place.path}: no source was good enough for any of {len(without)} pictures; expected "
            "structure kept and look gone; lower --least-structure or --least-gone, or say with "
            "--away how this base can be asked"
        )
    write_sheet(place, triplets)
    pairs = write_pairs(place.path, triplets)
    return Backward(pairs, len(triplets), len(journal.pieces), tuple(without))


def _triplet(
    number: int,
    rank: int,
    variant: int,
    piece: Mapping[str, Any],
    models: Mapping[str, Any],
    options: BackwardOptions,
) -> Triplet:
    name = _name(number, rank, variant)
    return Triplet(
        name=name,
        source=Path("pictures") / f"{name}_source.png",
        instruction=options.instruction,
        edited=Path("pictures") / f"{number:04}_edited.png",
        source_caption=None,
        edited_caption=None,
        provenance={
            "finished": piece["picture"],
            "asked": options.away[rank % len(options.away)],
            "seed": options.seed + number * options.candidates + rank,
            "recolored": variant,
            "scores": piece["scores"][rank],
            "models": models,
        },
    )


def _name(number: int, rank: int, variant: int) -> str:
    return f"{number:04}_{rank:03}" + (f"_{variant}" if variant else "")


def finished_pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder; raises PairsError where there are none."""
    if not folder.is_dir():
        fault = Fault(str(folder), found_at(folder), "name a folder of pictures")
        raise PairsError("pictures", [fault])
    files = [file for file in visible(folder) if file.suffix.lower() in PICTURE_SUFFIXES]
    if not files:
        fault = Fault(str(folder), "holds no pictures", "put pictures into it")
        raise PairsError("pictures", [fault])
    return files


def _finished(folder: Path) -> tuple[list[Path], list[Image.Image]]:
    files = finished_pictures(folder)
    pictures, faults = list[Image.Image](), list[Fault]()
    for file in files:
        try:
            pictures.append(load_picture(file))
        except PairsError as error:
            faults += error.faults
    if faults:
        raise PairsError("pictures", faults)
    return files, pictures


def _claimed(
    editor: Editor, clip: Clip, files: Sequence[Path], options: BackwardOptions
) -> dict[str, Any]:
    named = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    models = {"base": editor.base.fingerprint, "clip": clip.fingerprint}
    return {"backward": asdict(options), "pictures": named, **models}


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
