"""From a few pairs to many: kept apart from the real ones, with weights and where they are from."""

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
from customize.errors import SynthesisError
from customize.files import Used, replacing
from customize.pairs.decode import load_picture
from customize.pairs.joint_changes import draw_change
from customize.scoring.judging.chat import Chat
from customize.scoring.networks.encoders import Clip
from customize.shapes import Pair
from customize.synthesis.backward.candidates import structure
from customize.synthesis.output.journal import Journal
from customize.synthesis.output.triplet import Triplet
from customize.synthesis.output.write_pairs import write_pairs
from customize.synthesis.report import write_sheet
from customize.synthesis.result_folder import ResultFolder
from customize.synthesis.widening.reword import by_endpoint, by_patterns


@dataclass(frozen=True)
class WidenOptions:
    """How many pairs to make in all, and how often training draws each beside a real one.

    A new source is edited `candidates` times; the best is kept that is more like the real targets
    by `least_gained` than the source was, its outlines correlating with the source's by
    `least_structure`.
    """

    count: int = 40
    weight: float = 0.25
    wordings: int = 6
    candidates: int = 4
    least_gained: float = 0.02
    least_structure: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class NewSources:
    """An editor with an adapter that knows the concept, sources it has not seen, and a CLIP."""

    editor: Editor
    pictures: Sequence[Path]
    clip: Clip


@dataclass(frozen=True)
class Widened:
    """What was made: pairs changed jointly, pairs of new sources, and sources whose edit failed."""

    pairs: Path
    changed: int
    new: int
    failed: int


def widen(
    pairs: Sequence[Pair],
    output: Path,
    options: WidenOptions,
    *,
    chat: Chat | None = None,
    new: NewSources | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Widened:
    """Widen pairs; new sources come first, the rest of `count` is changed jointly.

    A stopped call goes on where it was. Raises PairsError for pictures that cannot be read,
    SynthesisError, EditError and OutputExistsError.
    """
    if not pairs or options.count < 1:
        raise SynthesisError("nothing to widen: expected at least one pair and a count above 0")
    loaded = [(load_picture(pair.source), load_picture(pair.target)) for pair in pairs]
    place = ResultFolder(output)
    with place.held(_claimed(pairs, options, new), _used(pairs, new), overwrite=overwrite):
        wordings = _wordings(place, pairs, options, chat)
        triplets, failed = list[Triplet](), 0
        if new is not None:
            triplets, failed = _on_new_sources(place, loaded, wordings, options, new, progress)
        made = len(triplets)
        for number in range(max(0, options.count - made)):
            triplets.append(_changed(place, pairs, loaded, wordings, number, options))
        write_sheet(place, triplets)
        written = write_pairs(place.path, triplets)
        return Widened(written, len(triplets) - made, made, failed)


def _used(pairs: Sequence[Pair], new: NewSources | None) -> list[Used]:
    """List what is read: the real pairs' pictures, new sources and the base that edits them."""
    real = {place.parent: place for pair in pairs for place in (pair.source, pair.target)}
    found = [Used("a picture of the pairs", place) for place in real.values()]
    if new is not None:
        found.append(Used("the base", new.editor.base.folder))
        found += [Used("new sources", place) for place in {p.parent for p in new.pictures}]
    return found


def _wordings(
    place: ResultFolder, pairs: Sequence[Pair], options: WidenOptions, chat: Chat | None
) -> list[list[str]]:
    """List the wordings of each pair's instruction; a server's are kept for the next start."""
    if chat is None:
        return [by_patterns(pair.instruction) for pair in pairs]
    journal = Journal(place.texts)
    if not journal.pieces:
        texts = [pair.instruction for pair in pairs]
        found = by_endpoint(chat, texts, options.wordings, options.seed)
        journal.append({"wordings": found})
    return [list(found) for found in journal.pieces[0]["wordings"]]


def _changed(
    place: ResultFolder,
    pairs: Sequence[Pair],
    loaded: Sequence[tuple[Image.Image, Image.Image]],
    wordings: Sequence[Sequence[str]],
    number: int,
    options: WidenOptions,
) -> Triplet:
    """Make pair `number` of a real one: both pictures changed alike, the instruction reworded."""
    real = number % len(pairs)
    rng = np.random.default_rng((options.seed, 13, number))
    change = draw_change(*loaded[real], pairs[real].instruction, rng)
    instruction = str(wordings[real][int(rng.integers(len(wordings[real])))])
    name = f"changed_{number:04}"
    for role, picture in zip(("source", "edited"), loaded[real], strict=True):
        _save(change.apply(picture), place.pictures / f"{name}_{role}.png")
    provenance = {"from": pairs[real].place or f"pair {real}", "change": asdict(change)}
    return _triplet(name, instruction, provenance, options)


def _on_new_sources(
    place: ResultFolder,
    loaded: Sequence[tuple[Image.Image, Image.Image]],
    wordings: Sequence[Sequence[str]],
    options: WidenOptions,
    new: NewSources,
    progress: bool,
) -> tuple[list[Triplet], int]:
    """Edit every new source by the adapter and keep the best edit that shows the concept."""
    journal = Journal(place.samples)
    known_D = new.clip.image_BD([target for _, target in loaded]).mean(dim=0)
    texts = list(dict.fromkeys(text for each in wordings for text in each[:1]))
    for number in tqdm(
        range(len(journal.pieces), len(new.pictures)),
        "new sources",
        disable=None if progress else True,
    ):
        source = load_picture(new.pictures[number])
        asked = [texts[(number + n) % len(texts)] for n in range(options.candidates)]
        seed = options.seed + number * options.candidates
        edits = [e.image for e in new.editor.batch([source] * len(asked), asked, seed=seed)]
        likeness = (new.clip.image_BD([source, *edits]) @ known_D).tolist()
        scores = [
            {"gained": round(like - likeness[0], 4), "structure": round(structure(source, edit), 4)}
            for like, edit in zip(likeness[1:], edits, strict=True)
        ]
        best = _best(scores, options)
        if best is not None:
            name = f"new_{number:04}"
            _save(source, place.pictures / f"{name}_source.png")
            _save(edits[best], place.pictures / f"{name}_edited.png")
        chosen = {"instruction": asked[best], "score": scores[best]} if best is not None else None
        journal.append({"source": new.pictures[number].name, "chosen": chosen, "scores": scores})
    models = {"base": new.editor.base.fingerprint, "clip": new.clip.fingerprint}
    triplets = [
        _triplet(
            f"new_{number:04}",
            piece["chosen"]["instruction"],
            {"source": piece["source"], "score": piece["chosen"]["score"], "models": models},
            options,
        )
        for number, piece in enumerate(journal.pieces)
        if piece["chosen"]
    ]
    return triplets, len(journal.pieces) - len(triplets)


def _best(scores: Sequence[Mapping[str, float]], options: WidenOptions) -> int | None:
    good = [
        n
        for n, score in enumerate(scores)
        if score["gained"] >= options.least_gained and score["structure"] >= options.least_structure
    ]
    return max(good, key=lambda n: scores[n]["gained"], default=None)


def _triplet(
    name: str, instruction: str, provenance: Mapping[str, Any], options: WidenOptions
) -> Triplet:
    return Triplet(
        name=name,
        source=Path("pictures") / f"{name}_source.png",
        instruction=instruction,
        edited=Path("pictures") / f"{name}_edited.png",
        source_caption=None,
        edited_caption=None,
        provenance={**provenance, "customize": __version__},
        weight=options.weight,
    )


def _claimed(
    pairs: Sequence[Pair], options: WidenOptions, new: NewSources | None
) -> dict[str, Any]:
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    told: dict[str, Any] = {
        "widened": asdict(options),
        "pairs": [[digest(p.source), p.instruction, digest(p.target)] for p in pairs],
    }
    if new is not None:
        used = new.editor.settings((64, 64), {}).adapters
        told["sources"] = {path.name: digest(path) for path in new.pictures}
        told["editor"] = [new.editor.base.fingerprint, *(asdict(adapter) for adapter in used)]
    return told


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
