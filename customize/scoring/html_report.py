"""The scores as one HTML file: a summary, and every edit with its pictures; needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from customize.files import write_text
from customize.scoring.items import METRICS, Item, MetricName, Picture
from customize.scoring.networks.embed import opened
from customize.scoring.summary import Scored, metrics_shown, missing_scores, summary

MOST_EDITS = 200
"""Edits shown; the JSON beside the report has all."""

_SIDE = 384
_SMALL = 128
"""Up to this side, in pixels, a picture is kept exactly and enlarged without smoothing."""

_STYLE = """
:root { --ink: #1a1a1a; --faint: #6b6b6b; --rule: #e4e4e4; --paper: #ffffff; --bar: #f3c9b4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --faint: #a0a0a0; --rule: #333; --paper: #161616; --bar: #6b3417; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 1280px; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
p, li { max-width: 50rem; } .faint { color: var(--faint); }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { padding: .5rem .9rem .5rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--faint); font-size: .85rem; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.best { background: linear-gradient(var(--bar), var(--bar)) left bottom / 100% 2px no-repeat; }
img { width: 168px; display: block; } img.small { image-rendering: pixelated; }
dl { display: grid; grid-template-columns: auto auto; gap: 0 .7rem; margin: .4rem 0 0;
  font-size: .8rem; width: 168px; }
dt { color: var(--faint); white-space: nowrap; } dd { margin: 0; text-align: right; }
.words { width: 13rem; }
"""


def write_score_report(
    path: Path, scored: Sequence[Scored], title: str, about: Sequence[str]
) -> Path:
    """Write the report of variants that made the same edits; `about` are lines under the title."""
    assert scored
    return write_text(path, "\n".join(_page(scored, title, about)))


def _page(scored: Sequence[Scored], title: str, about: Sequence[str]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
    yield from (f'<p class="faint">{escape(line)}</p>' for line in about)
    yield from _summary(scored)
    if notes := missing_scores(scored):
        yield '<ul class="faint">' + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ul>"
    count = len(scored[0].items)
    shown = min(count, MOST_EDITS)
    rest = f", the first {shown} of {count}; scores.json has all" if shown < count else ""
    yield f'<h2>Edits{rest}</h2><div class="wide"><table><tr>'
    titles = ["source", "", *(one.label for one in scored)]
    has_targets = any(item.target is not None for item in scored[0].items[:shown])
    titles += ["target"] if has_targets else []
    yield "".join(f"<th>{escape(text)}</th>" for text in titles) + "</tr>"
    for index in range(shown):
        yield _edit(scored, index, has_targets=has_targets)
    yield "</table></div></body></html>"


def _summary(scored: Sequence[Scored]) -> Iterator[str]:
    """Lay out the means, the best of each row underlined where one can say which is better."""
    rows, titles = summary(scored)
    best = _best(scored)
    yield '<h2>Summary</h2><div class="wide"><table><tr>'
    yield "".join(f"<th>{escape(text)}</th>" for text in (*titles, "it says")) + "</tr>"
    for metric, row in zip(metrics_shown(scored), rows, strict=True):
        cells = [f"<td>{escape(row[0])}</td>", f'<td class="faint">{escape(row[1])}</td>']
        for index, text in enumerate(row[2:]):
            kind = "number best" if best.get(metric.name) == index else "number"
            cells.append(f'<td class="{kind}">{escape(text)}</td>')
        cells.append(f'<td class="faint">{escape(metric.says)}</td>')
        yield f"<tr>{''.join(cells)}</tr>"
    marked = "; the best of a row is underlined" if best else ""
    yield f'</table></div><p class="faint">Means over the edits ± standard error{marked}.</p>'


def _best(scored: Sequence[Scored]) -> Mapping[MetricName, int]:
    """Say which variant has the best mean of each metric, where several are compared."""
    found: dict[MetricName, int] = {}
    for metric in METRICS:
        means = [(one.scores.mean(metric.name), index) for index, one in enumerate(scored)]
        known = [(mean, index) for mean, index in means if mean is not None]
        if len(known) > 1 and metric.better != "neither":
            pick = max if metric.better == "higher" else min
            found[metric.name] = pick(known)[1]
    return found


def _edit(scored: Sequence[Scored], index: int, *, has_targets: bool) -> str:
    item = _as_taught([one.items[index] for one in scored])
    words = [f"<b>{escape(item.instruction)}</b>"]
    if item.source_caption or item.target_caption:
        told = f"{item.source_caption or '?'} → {item.target_caption or '?'}"
        words.append(f'<br><span class="faint">{escape(told)}</span>')
    words.append(f'<br><span class="faint">{escape(item.name)}</span>' if item.name else "")
    cells = [_picture(item.source, "source"), f'<div class="words">{"".join(words)}</div>']
    cells += [
        _picture(one.items[index].output, one.label) + _numbers(one.scores.rows[index])
        for one in scored
    ]
    if has_targets:
        cells.append(_picture(item.target, "target") if item.target is not None else "")
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _as_taught(same: Sequence[Item]) -> Item:
    """Of one edit as it was asked of each variant, return that with taught words, if any."""
    return next((item for item in same if item.instruction != item.wording), same[0])


def _numbers(row: Mapping[MetricName, float]) -> str:
    parts = [
        f'<dt>{escape(metric.title)}</dt><dd class="number">{metric.written(row[metric.name])}</dd>'
        for metric in METRICS
        if metric.name in row
    ]
    return f"<dl>{''.join(parts)}</dl>"


def _picture(picture: Picture, shows: str) -> str:
    """Return a picture as an <img> that holds it; `shows` stands for it where none is seen."""
    image = opened(picture).convert("RGB")
    small = max(image.size) <= _SMALL
    data = io.BytesIO()
    if small:
        image.save(data, "PNG")
    else:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.save(data, "JPEG", quality=88)
    text = base64.b64encode(data.getvalue()).decode()
    kind = "png" if small else "jpeg"
    size = "small" if small else "large"
    return f'<img class="{size}" alt="{escape(shows)}" src="data:image/{kind};base64,{text}">'
