"""Before and after of a whole folder as one HTML file: needs no network and no script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from customize.editing.folders.items import printable
from customize.editing.folders.run import Outcome
from customize.editing.folders.thumbnails import SIDE, Store
from customize.errors import Fault
from customize.files import replacing

PAGE = "index.html"

_STYLE = f"""
:root {{ --ink: #1a1a1a; --faint: #6b6b6b; --rule: #e4e4e4; --paper: #fff; --bad: #a4262c; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #ececec; --faint: #a0a0a0; --rule: #333; --paper: #161616; --bad: #ff8f8f; }}
}}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 1400px; padding: 0 1.2rem; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.1rem; margin-top: 2.5rem; }}
.faint, figcaption {{ color: var(--faint); }} .bad {{ color: var(--bad); }}
table {{ border-collapse: collapse; }} td:first-child {{ min-width: 6rem; }}
td {{ padding: .3rem 1rem .3rem 0; vertical-align: top; border-bottom: 1px solid var(--rule); }}
main {{ display: grid; gap: 1.6rem 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, {2 * SIDE + 4}px), 1fr)); }}
figure {{ margin: 0; content-visibility: auto; contain-intrinsic-size: auto {SIDE + 50}px; }}
figure a {{ display: flex; gap: 4px; }}
img {{ width: {SIDE}px; min-width: 0; aspect-ratio: 1; object-fit: contain;
  background: var(--rule); }}
a:focus-visible {{ outline: 3px solid #00897b; }}
figcaption {{ font-size: .82rem; overflow-wrap: anywhere; }}
figcaption b {{ color: var(--ink); font-weight: 600; }}
"""


def write_page(
    folder: Path,
    title: str,
    about: Sequence[str],
    outcomes: Iterable[Outcome],
    faults: Sequence[Fault],
    store: Store,
    sheets: Sequence[str] = (),
) -> Path:
    """Write the page of a run, row by row; browsers draw only the rows that are looked at.

    A row's pictures are links to the answers themselves, relative to the page, as are `sheets`.
    """
    path = folder / PAGE
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for part in _parts(title, about, sorted(outcomes, key=_order), faults, store, sheets):
            file.write(part)
    return path


def _order(outcome: Outcome) -> str:
    return str(outcome.edit.item.output)


def _parts(
    title: str,
    about: Sequence[str],
    outcomes: Sequence[Outcome],
    faults: Sequence[Fault],
    store: Store,
    sheets: Sequence[str],
) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
    yield from (f'<p class="faint">{escape(line)}</p>' for line in about)
    made = sum(not isinstance(one.done, Fault) for one in outcomes)
    yield f'<p class="faint">{made} answers here, {len(faults)} not edited</p>'
    if sheets:
        links = (f'<a href="{quote(name)}">{escape(name)}</a>' for name in sheets)
        yield f"<p>Side by side: {', '.join(links)}</p>"
    if faults:
        yield '<h2 class="bad">Not edited</h2><table>'
        yield from (f"<tr>{_cells(fault)}</tr>" for fault in faults)
        yield "</table>"
    yield "<h2>Before and after</h2><main>"
    yield from (_figure(one, store) for one in outcomes if not isinstance(one.done, Fault))
    yield "</main></body></html>\n"


def _cells(fault: Fault) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in (fault.place, fault.found, fault.cure))


def _figure(outcome: Outcome, store: Store) -> str:
    assert not isinstance(outcome.done, Fault)
    item, output = outcome.edit.item, outcome.done.output
    both = store.get(output, outcome.done.key)
    pictures = (
        "".join(
            f'<img loading="lazy" decoding="async" alt="{shows}" src="{_data(content)}">'
            for shows, content in (("before", both.before), ("after", both.after))
        )
        if both
        else escape(printable(output))
    )
    words = " → ".join(map(escape, item.instructions))
    notes = "".join(f"<br>{escape(note)}" for note in outcome.done.notes)
    link = quote(output.encode("utf-8", "surrogateescape"))
    return (
        f'<figure><a href="{link}">{pictures}</a><figcaption><b>{words}</b><br>'
        f"{escape(printable(output))}{notes}</figcaption></figure>"
    )


def _data(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
