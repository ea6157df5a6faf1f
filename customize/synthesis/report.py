"""What was rejected and why, as one HTML page: counts, and pictures around each threshold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from customize.drawing.contact_sheet import contact_sheet
from customize.files import replacing, write_text
from customize.synthesis.filtering.thresholds import CRITERIA, Criterion
from customize.synthesis.output.triplet import Triplet
from customize.synthesis.result_folder import SHOWN, ResultFolder, nearest_rejected
from customize.synthesis.writing.rewrite import Rejection

EXAMPLES = 3
"""Answers shown for each reason that an edit was not drawn."""
ON_THE_SHEET = 12

WHY: Mapping[str, str] = {
    "kept": "kept",
    "pictures": "the two pictures are too different",
    "first": "the first picture does not show its caption",
    "second": "the second picture does not show its caption",
    "direction": "the picture did not change as its caption did",
    "near-duplicate": "too like a pair that is kept",
    "enough": "good, but better ones of its edit are enough",
    "judge": "the judge spoke against it",
}
_STYLE = """
:root { --ink: #1a1a1a; --faint: #6b6b6b; --rule: #e4e4e4; --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --faint: #a0a0a0; --rule: #333; --paper: #161616; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 1100px; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } .faint { color: var(--faint); }
th, td { padding: .4rem 1rem .4rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 260px; }
.row img { height: 128px; max-width: 50%; } .row img.both { max-width: 100%; }
figcaption { font-size: .8rem; }
"""


def write_report(
    folder: ResultFolder,
    samples: Sequence[Mapping[str, Any]],
    rejections: Sequence[Rejection],
    thresholds: Mapping[Criterion, float],
) -> Path:
    """Write `report.html` beside the pictures it shows."""
    page = "\n".join(_page(samples, rejections, thresholds))
    return write_text(folder.path / "report.html", page)


def write_sheet(folder: ResultFolder, triplets: Sequence[Triplet]) -> Path:
    """Draw `sheet.png`, a contact sheet of kept triplets spread over all of them."""
    step = max(1, len(triplets) // ON_THE_SHEET)
    rows = [
        [
            Image.open(folder.path / triplet.source),
            triplet.instruction,
            Image.open(folder.path / triplet.edited),
        ]
        for triplet in triplets[::step][:ON_THE_SHEET]
    ]
    path = folder.path / "sheet.png"
    with replacing(path) as temporary:
        contact_sheet(rows, ["source", "instruction", "edited"], cell=128).save(temporary, "PNG")
    return path


def _page(
    samples: Sequence[Mapping[str, Any]],
    rejections: Sequence[Rejection],
    thresholds: Mapping[Criterion, float],
) -> Iterator[str]:
    title = "What was kept, and what was not"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
    yield from _counts(samples)
    if rejections:
        yield from _texts(rejections)
    yield from _thresholds(samples, thresholds)
    yield "</body></html>\n"


def _counts(samples: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    counted = Counter(sample["verdict"] for sample in samples)
    prompts = len({sample["prompt"] for sample in samples})
    yield f'<p class="faint">{len(samples)} pairs drawn of {prompts} edits</p><table>'
    for verdict, why in WHY.items():
        if counted[verdict]:
            share = counted[verdict] / len(samples)
            yield f"<tr><td>{counted[verdict]}</td><td>{share:.0%}</td><td>{why}</td></tr>"
    yield "</table>"


def _texts(rejections: Sequence[Rejection]) -> Iterator[str]:
    yield f"<h2>Captions without an edit: {len(rejections)}</h2><table>"
    reasons = Counter(rejection.reason for rejection in rejections)
    for reason, count in reasons.most_common():
        shown = [r.found or r.caption for r in rejections if r.reason == reason][:EXAMPLES]
        examples = "<br>".join(escape(text) for text in shown)
        yield f"<tr><td>{count}</td><td>{escape(reason)}</td>"
        yield f'<td class="faint">{examples}</td></tr>'
    yield "</table>"


def _thresholds(
    samples: Sequence[Mapping[str, Any]], thresholds: Mapping[Criterion, float]
) -> Iterator[str]:
    below = nearest_rejected(samples, thresholds)
    by_name = {sample["name"]: sample for sample in samples}
    kept = [sample for sample in samples if sample["verdict"] == "kept"]
    for criterion in CRITERIA:
        yield f"<h2>{escape(criterion)}: at least {thresholds[criterion]:.3f}</h2>"
        rejected = [by_name[name] for name, missed in below.items() if missed == criterion]
        above = sorted(kept, key=lambda s, c=criterion: s["scores"][c])[:SHOWN]
        for side, some in (("just below, rejected", rejected), ("just above, kept", above)):
            if some:
                yield f'<p class="faint">{side}</p><div class="row">'
                yield from (_figure(sample, criterion) for sample in some)
                yield "</div>"


def _figure(sample: Mapping[str, Any], criterion: Criterion) -> str:
    name = escape(sample["name"])
    if sample["verdict"] == "kept":
        pictures = "".join(
            f'<img src="pictures/{name}_{role}.png" alt="{role}">' for role in ("source", "edited")
        )
    else:
        pictures = f'<img class="both" src="rejected/{name}.jpg" alt="source and edited">'
    words = f"{sample['scores'][criterion]:.3f} {escape(sample['instruction'])}"
    return f"<figure>{pictures}<figcaption>{words}</figcaption></figure>"
