"""The folder of a synthesis: what lies where, and what its journal makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from customize.errors import OutputExistsError
from customize.files import Used, check_place, replacing, write_text
from customize.files.lock import in_use
from customize.files.manifest import Manifest
from customize.synthesis.filtering.thresholds import CRITERIA, Criterion
from customize.synthesis.output.journal import Journal
from customize.synthesis.output.triplet import Triplet
from customize.synthesis.samples import Sample

SHOWN = 6
"""Rejected samples whose pictures are kept for the report, of each threshold the nearest."""

MARK = "recipe.json"
WRITTEN = (
    *(
        "pictures/[0-9][0-9][0-9][0-9]*.png",
        "pictures/changed_[0-9]*.png",
        "pictures/new_[0-9]*.png",
    ),
    *("rejected/[0-9]*.jpg", "shards/[0-9]*.tar"),
    *("imagefolder/train/[0-9]*.png", "imagefolder/train/metadata.jsonl"),
    *("texts.jsonl", "samples.jsonl", "trial.json", "pairs.jsonl", "provenance.jsonl"),
    *("sheet.png", "report.html", MARK),
)
"""Names of all that a synthesis writes, and all that `--overwrite` replaces."""


@dataclass(frozen=True)
class ResultFolder:
    """Names of everything; the journal is what counts, all else can be made again from it."""

    path: Path

    @property
    def pictures(self) -> Path:
        """The kept pairs: NAME_source.png and NAME_edited.png."""
        return self.path / "pictures"

    @property
    def rejected(self) -> Path:
        """Rejected pairs near a threshold, both pictures side by side."""
        return self.path / "rejected"

    @property
    def texts(self) -> Path:
        """The journal of the first stage."""
        return self.path / "texts.jsonl"

    @property
    def samples(self) -> Path:
        """The journal of the second stage."""
        return self.path / "samples.jsonl"

    @property
    def trial(self) -> Path:
        """Thresholds that a trial chose."""
        return self.path / "trial.json"

    @contextmanager
    def held(
        self, recipe: Mapping[str, Any], used: Iterable[Used] = (), *, overwrite: bool
    ) -> Iterator[None]:
        """Hold the folder for the recipe told, whose stopped run goes on.

        With `overwrite` what a synthesis left there waits aside, until this one is done; it comes
        back where this one fails. Raises OutputError for a place that is `used` or in use, and
        OutputExistsError where it is another recipe's, or holds other things.
        """
        check_place(self.path, used, folder=True)
        told = json.dumps(recipe, indent=2, sort_keys=True) + "\n"
        with in_use(self.path):
            listed, mark = Manifest(self.path, "synthesize"), self.path / MARK
            same = mark.is_file() and mark.read_text("utf-8") == told
            if overwrite and mark.exists() and not (same and listed.replaces):
                listed.begin_anew(WRITTEN)
            else:
                self._check_whose(same)
                listed.begin(WRITTEN)
            write_text(mark, told)
            try:
                yield
            except Exception:
                if listed.replaces:
                    listed.undo()
                raise
            listed.finish()

    def _check_whose(self, same: bool) -> None:
        """Refuse another recipe's folder, and one with other things in it."""
        if not same and (self.path / MARK).exists():
            raise OutputExistsError(
                f"{self.path}: triplets of another recipe, base or CLIP are there already; "
                "expected a free folder or those of this one; choose another output, or allow "
                "replacing it (--overwrite)"
            )
        if not same and any(not path.name.startswith(".customize") for path in self.path.iterdir()):
            raise OutputExistsError(
                f"{self.path}: this folder holds other things; expected a free one, or triplets "
                "begun earlier; choose another output"
            )

    def keep(self, samples: Sequence[Sample], journal: Journal, about: Mapping[str, Any]) -> None:
        """Write a group's pictures, then its line in the journal, which makes them count."""
        for sample in samples:
            if sample.verdict == "kept":
                for role, picture in (
                    ("source", sample.pair.first),
                    ("edited", sample.pair.second),
                ):
                    _save(picture, self.pictures / f"{sample.name}_{role}.png")
        earlier = list(facts(journal))
        rows = [_facts(sample) for sample in samples]
        shown = nearest_rejected([*earlier, *rows], about["thresholds"])
        for sample in samples:
            if sample.name in shown:
                _save(_side_by_side(sample), self.rejected / f"{sample.name}.jpg")
        journal.append({"samples": rows, **about})
        for old in self.rejected.glob("*.jpg"):
            if old.stem not in shown:
                old.unlink()


def facts(journal: Journal) -> Iterator[Mapping[str, Any]]:
    """Yield what the journal holds of every sample."""
    for piece in journal.pieces:
        yield from piece["samples"]


def kept_triplets(journal: Journal, most: int | None = None) -> list[Triplet]:
    """List the kept triplets in the order they were made, `most` at most."""
    found = list[Triplet]()
    for piece in journal.pieces:
        for sample in piece["samples"]:
            if sample["verdict"] == "kept":
                found.append(_triplet(sample, piece["models"]))
    return found[:most]


def nearest_rejected(
    samples: Sequence[Mapping[str, Any]], thresholds: Mapping[Criterion, float]
) -> dict[str, Criterion]:
    """Name the rejected samples nearest below each threshold, the nearest first."""
    shown = dict[str, Criterion]()
    criterion: Criterion
    for criterion in CRITERIA:
        missed = [sample for sample in samples if sample["verdict"] == criterion]
        missed.sort(key=lambda s: (thresholds[criterion] - s["scores"][criterion], s["name"]))
        for sample in missed[:SHOWN]:
            shown[sample["name"]] = criterion
    return shown


def _facts(sample: Sample) -> dict[str, Any]:
    rewrite = sample.pair.rewrite
    facts: dict[str, Any] = {
        "name": sample.name,
        "prompt": sample.prompt,
        "caption": rewrite.caption,
        "instruction": rewrite.instruction,
        "edited_caption": rewrite.edited_caption,
        "settings": sample.pair.settings.facts(),
        "scores": sample.found.facts(),
        "verdict": sample.verdict,
    }
    if sample.opinion is not None:
        facts["judge"] = sample.opinion.scores or sample.opinion.failure
    return facts


def _triplet(sample: Mapping[str, Any], models: Mapping[str, Any]) -> Triplet:
    told = ("prompt", "settings", "scores", "judge")
    return Triplet(
        name=sample["name"],
        source=Path("pictures") / f"{sample['name']}_source.png",
        instruction=sample["instruction"],
        edited=Path("pictures") / f"{sample['name']}_edited.png",
        source_caption=sample["caption"],
        edited_caption=sample["edited_caption"],
        provenance={name: sample[name] for name in told if name in sample} | {"models": models},
    )


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, "JPEG" if path.suffix == ".jpg" else "PNG")


def _side_by_side(sample: Sample) -> Image.Image:
    first, second = sample.pair.first, sample.pair.second
    both = Image.new("RGB", (first.width + second.width, first.height))
    both.paste(first, (0, 0))
    both.paste(second, (first.width, 0))
    return both
