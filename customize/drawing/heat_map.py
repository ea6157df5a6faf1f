"""A table of shares drawn as a map, coloured by how much they are."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from customize.drawing.escape import plotted

_DOTS = 150


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    shares: Sequence[Sequence[float | None]],
    sides: tuple[str, str] = ("asked for", "shows"),
) -> Image.Image:
    """Draw shares (1 is all) as a map with its numbers in percent; None is left blank.

    `sides` say what the rows and the columns are.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells = np.array([[np.nan if s is None else 100 * s for s in row] for row in shares])
    assert cells.shape == (len(rows), len(columns))
    figure = Figure(figsize=(2.2 + 1.3 * len(columns), 1.6 + 0.75 * len(rows)), dpi=_DOTS)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(cells, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), map(plotted, columns))
    axes.set_yticks(range(len(rows)), map(plotted, rows))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(sides[1])
    axes.set_ylabel(sides[0])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(cells):
        if not np.isnan(value):
            ink = "white" if value > 55 else "#1a1a1a"
            axes.text(column, row, f"{value:.0f} %", ha="center", va="center", color=ink)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file)
    return Image.open(file).convert("RGB")
