"""The trade-off as a picture, PNG and SVG, drawn by matplotlib without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from customize.drawing.escape import plotted
from customize.files import replacing
from customize.scoring.guidance.tradeoff import Curve

COLORS = ("#6b6b6b", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#b45309", "#0e7490", "#be123c")
MARKERS = "osD^vP*X"
SPAN = 0.1
"""Least width of an axis: thousandths drawn large would look like differences."""
INK, FAINT = "#1a1a1a", "#e4e4e4"


def draw_tradeoff(curves: Sequence[Curve], title: str, png: Path, svg: Path) -> None:
    """Draw direction (x) against image similarity (y), a line for each curve, to two files.

    The ends of a curve name their image guidance, s_I in the paper.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Texts stay texts in the SVG, and its ids the same from run to run.
    style: dict[Any, Any] = {"font.size": 11, "svg.fonttype": "none", "svg.hashsalt": "customize"}
    with rc_context(style):
        figure = Figure(figsize=(8, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for index, curve in enumerate(curves):
            _draw_curve(axes, curve, COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)])
        against = {point.against for curve in curves for point in curve.points}
        told = "captions" if against == {"captions"} else "instruction"
        axes.set_xlabel(f"CLIP directional similarity (change of picture and {told}) → more edit")
        axes.set_ylabel("CLIP image similarity (source and output) → more kept")
        axes.set_title(plotted(title, 120), fontsize=12, color=INK, loc="left", pad=12)
        axes.grid(color=FAINT)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(0.12)
        axes.set_xlim(_at_least(SPAN, axes.get_xlim()))
        axes.set_ylim(_at_least(SPAN, axes.get_ylim()))
        axes.legend(frameon=False, loc="best")
        for path, kind in ((svg, "svg"), (png, "png")):  # the PNG says that all is done
            about = {"Date": None} if kind == "svg" else None
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata=about)


def _at_least(span: float, limits: tuple[float, float]) -> tuple[float, float]:
    """Widen an axis to `span` about its middle, where it is narrower."""
    low, high = limits
    more = max(0.0, span - (high - low)) / 2
    return low - more, high + more


def _draw_curve(axes: Any, curve: Curve, color: str, marker: str) -> None:
    axes.plot(
        [point.direction for point in curve.points],
        [point.image for point in curve.points],
        color=color,
        marker=marker,
        markersize=6,
        linewidth=2,
        label=plotted(curve.label),
    )
    first, last = curve.points[0], curve.points[-1]
    for point, below in ((first, True), (last, False))[: len(curve.points)]:
        axes.annotate(
            f"$s_I$ = {point.image_guidance:g}",
            (point.direction, point.image),
            xytext=(0, -10 if below else 8),
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="top" if below else "bottom",
            fontsize=9,
            color=color,
        )
