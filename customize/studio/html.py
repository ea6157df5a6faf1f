"""Pictures and figures as HTML: every text escaped, every picture said in words too."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from customize.errors import Fault
from customize.pairs.decode import load_picture
from customize.studio.trainer import Progress

SHOWN = 512
"""Pixels of the longer side that are sent to a browser."""
SMALL = 400
"""The same where pictures stand in a list."""


def picture(image: Image.Image, says: str, caption: str = "", side: int = SHOWN) -> str:
    """Return a figure of at most `side` pixels; `says` is what it shows, in words."""
    return figure(data_url(image, side), says, caption)


def figure(url: str, says: str, caption: str = "") -> str:
    """Return a figure of a picture that is in its address."""
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{url}" alt="{html.escape(says)}">{below}</figure>'


def data_url(image: Image.Image, side: int = SHOWN) -> str:
    """Return the picture itself, so that no path of the machine is ever in a page."""
    shown = _at_most(image, side)
    content = io.BytesIO()
    shown.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


@lru_cache(maxsize=1024)
def small_url(path: Path, _: tuple[int, int]) -> str:
    """Return a picture file as a small picture, remembered while the file keeps its `stamp`.

    Raises PairsError as `load_picture` does.
    """
    content = io.BytesIO()
    _at_most(load_picture(path), SMALL).save(content, "WEBP", quality=90, method=2)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _at_most(image: Image.Image, side: int) -> Image.Image:
    shown = image.convert("RGB")
    if max(shown.size) > side:
        shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    return shown


def gallery(figures: Sequence[str]) -> str:
    """Lay figures out side by side, as many as there is room for."""
    return f'<div class="gallery">{"".join(figures)}</div>'


def before_after(before: Image.Image, after: Image.Image, says: str) -> str:
    """Lay one picture over the other, with a slider that uncovers it; arrow keys move it too."""
    return (
        '<div class="before-after" style="--cut:50%">'
        f'<img src="{data_url(before)}" alt="before: {html.escape(says)}">'
        f'<img class="over" src="{data_url(after)}" alt="after: {html.escape(says)}">'
        '<label>before <input type="range" min="0" max="100" value="50" '
        'aria-label="where before ends and after begins" '
        "oninput=\"this.closest('.before-after').style.setProperty('--cut', this.value + '%')\">"
        " after</label></div>"
    )


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts."""
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{content}</table></div>'


def folded(summary: str, content: str) -> str:
    """Hide HTML until someone asks for it."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def faults(found: Sequence[Fault], otherwise: str = "") -> str:
    """List faults, each with its cure; `otherwise` where there is none."""
    if not found:
        return f'<p class="good" role="status">{html.escape(otherwise)}</p>' if otherwise else ""
    items = "".join(
        f'<li class="{fault.level}"><strong>{html.escape(fault.level)}</strong> '
        f"{html.escape(fault.found)}; {html.escape(fault.cure)}"
        f"{_where(fault.place)}</li>"
        for fault in found
    )
    return f'<ul class="faults" role="status">{items}</ul>'


def said(text: str, kind: str = "note") -> str:
    """Return a line that screen readers say aloud when it changes."""
    return f'<p class="{kind}" role="status">{html.escape(text)}</p>' if text else ""


def progress(now: Progress) -> str:
    """Show how a run stands: words, a bar, the loss curve, and what was printed last."""
    share = 100 * now.step / now.steps if now.steps else 0
    words = [now.state, f"step {now.step} of {now.steps}" if now.steps else ""]
    if now.losses:
        words.append(f"loss {now.losses[-1][1]:.4f}")
    if now.pace is not None:
        words.append(f"{now.pace:.2f} s a step")
        words.append(f"{_clock(now.left or 0)} left" if now.running else "")
    line = " · ".join(word for word in words if word)
    printed = f"<pre>{html.escape(now.told)}</pre>" if now.told else ""
    return (
        f'<p role="status" class="state">{html.escape(line)}</p>'
        f'<progress max="100" value="{share:.1f}" aria-label="steps done">{share:.0f} %</progress>'
        f"{_curve(now.losses)}{folded('what it printed', printed)}"
    )


def _curve(points: Sequence[tuple[int, float]]) -> str:
    """Draw the loss over the steps."""
    if len(points) < 2:
        return ""
    first, last = points[0][0], points[-1][0]
    most = max(value for _, value in points) or 1.0
    spots = " ".join(
        f"{600 * (step - first) / max(1, last - first):.1f},{150 - 140 * value / most:.1f}"
        for step, value in points
    )
    says = f"loss over steps {first} to {last}, from {points[0][1]:.4f} to {points[-1][1]:.4f}"
    return (
        f'<svg class="curve" viewBox="0 0 600 160" role="img" aria-label="{says}">'
        f'<line x1="0" y1="150" x2="600" y2="150"/><polyline points="{spots}"/></svg>'
        f"<p>{says}</p>"
    )


def _where(place: str) -> str:
    return f' <span class="place">({html.escape(place)})</span>' if place else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
