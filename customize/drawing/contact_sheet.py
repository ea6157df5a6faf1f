"""Contact sheets: rows of pictures and texts under titles, to judge pairs and previews by eye."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from customize.drawing.escape import visible
from customize.errors import PairsError
from customize.files import replacing
from customize.pairs.decode import load_picture, opened_picture
from customize.shapes import Pair

Cell = Image.Image | str
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
INK, FAINT, PAPER, RULE = "#1a1a1a", "#6b6b6b", "#ffffff", "#e4e4e4"
MOST_ROWS = 40
SMALLEST = 9
_MARK = ("customize", "contact sheet of pairs")


def contact_sheet(
    rows: Sequence[Sequence[Cell]], titles: Sequence[str], cell: int = 192
) -> Image.Image:
    """Return the sheet of `rows`, a column for each of `titles`, each `cell` pixels wide.

    Pictures keep their shape, centred; small ones are enlarged without smoothing, so that
    training-size previews can be judged. Texts wrap, and shrink to fit.
    """
    assert rows, "a sheet without rows"
    assert all(len(row) == len(titles) for row in rows)
    gap, head = max(8, cell // 16), max(24, cell // 6)
    heights = [_row_height(row, cell) for row in rows]
    width = gap + len(titles) * (cell + gap)
    sheet = Image.new("RGB", (width, head + gap + sum(height + gap for height in heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        box = (gap + column * (cell + gap), gap // 2, cell, head)
        _write(draw, title, box, cell // 11, FAINT)
    top = head + gap // 2
    for row, height in zip(rows, heights, strict=True):
        draw.line([(gap, top), (width - gap, top)], fill=RULE)
        for column, content in enumerate(row):
            box = (gap + column * (cell + gap), top + gap // 2 + 1, cell, height)
            if isinstance(content, str):
                _write(draw, content, box, cell // 11, INK)
            else:
                _paste(sheet, content, box)
        top += height + gap
    return sheet


def pairs_sheet(
    pairs: Sequence[Pair], alpha_color: str = "#ffffff", cell: int = 192
) -> Image.Image:
    """Return the sheet of pairs: source, instruction and place, target, as training reads them.

    A picture that cannot be read is replaced by the reason; beyond 40 pairs a last row says how
    many are left out.
    """
    rows: list[list[Cell]] = [
        [
            _picture(pair.source, alpha_color, cell),
            _label(pair),
            _picture(pair.target, alpha_color, cell),
        ]
        for pair in pairs[:MOST_ROWS]
    ]
    if len(pairs) > MOST_ROWS:
        rows.append(["", f"and {len(pairs) - MOST_ROWS} pairs more", ""])
    return contact_sheet(rows or [["", "no pairs", ""]], ("source", "instruction", "target"), cell)


def save_pairs_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet whole or not at all; a PNG says in a text chunk what it is."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(*_MARK)
    kind = Image.registered_extensions()[path.suffix.lower()]
    options = {"pnginfo": chunks} if kind == "PNG" else {}
    with replacing(path) as temporary:
        sheet.save(temporary, kind, **options)


def is_pairs_sheet(path: Path) -> bool:
    """Tell a PNG that `save_pairs_sheet` wrote from any other file."""
    try:
        with opened_picture(path) as picture:
            return getattr(picture, "text", {}).get(_MARK[0]) == _MARK[1]
    except PairsError:
        return False


def _label(pair: Pair) -> str:
    return f"{pair.instruction}\n\n{pair.place}" if pair.place else pair.instruction


def _picture(path: Path, alpha_color: str, cell: int) -> Cell:
    try:
        picture = load_picture(path, alpha_color)
    except PairsError as error:
        return f"{path.name}: {error.faults[0].found}"
    picture.thumbnail((cell * 2, cell * 2))  # a sheet of many giants would not fit in memory
    return picture


def _fitted(size: tuple[int, int], cell: int) -> tuple[int, int]:
    scale = cell / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _row_height(row: Sequence[Cell], cell: int) -> int:
    """Return the tallest picture's height, or what texts need."""
    heights = [_fitted(c.size, cell)[1] for c in row if not isinstance(c, str)]
    return max([*heights, cell // 3 if not heights else cell // 2])


def _paste(sheet: Image.Image, picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    size = _fitted(picture.size, width)
    grows = size[0] > picture.width
    how = (
        Image.Resampling.NEAREST if grows and max(picture.size) <= 64 else Image.Resampling.LANCZOS
    )
    fitted = picture.convert("RGB").resize(size, how)
    sheet.paste(fitted, (left + (width - size[0]) // 2, top + (height - size[1]) // 2))


def _write(
    draw: ImageDraw.ImageDraw, text: str, box: tuple[int, int, int, int], size: int, ink: str
) -> None:
    """Write `text` centred in the box, wrapped, as large as fits; a rest ends in dots."""
    left, top, width, height = box
    points = max(size, SMALLEST)
    while len(_wrapped(text, width, _font(points))) * _step(points) > height and points > SMALLEST:
        points -= 1
    font, step = _font(points), _step(points)
    lines, room = _wrapped(text, width, font), max(1, height // step)
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1][:-1] + "…"]
    y = top + (height - len(lines) * step) // 2
    for line in lines:
        ink = ink if line else FAINT  # what follows an empty line is a note
        x = left + (width - font.getlength(line)) / 2
        draw.text((x, y), line, font=font, fill=ink)
        y += step


def _step(points: int) -> int:
    return round(points * 1.3)


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Return `text` in lines at most `width` pixels wide; words longer than a line are cut."""
    lines: list[str] = []
    for paragraph in visible(text, keep="\n").split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if font.getlength(joined := f"{line} {word}".strip()) <= width:
                line = joined
                continue
            lines += [line] if line else []
            *full, line = _cut_word(word, width, font)
            lines += full
        lines.append(line)
    return lines


def _cut_word(word: str, width: int, font: Font) -> list[str]:
    parts = [""]
    for letter in word:
        if parts[-1] and font.getlength(parts[-1] + letter) > width:
            parts.append("")
        parts[-1] += letter
    return parts


@lru_cache(maxsize=16)
def _font(points: int) -> Font:
    """Return DejaVu Sans where the system has it (many scripts), else Pillow's own font."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", points)
    except OSError:
        return ImageFont.load_default(points)


def to_picture(pixels_HWC: np.ndarray) -> Image.Image:
    """Round (H, W, 3) in 0..1 to eight bits."""
    return Image.fromarray(np.rint(pixels_HWC * 255).clip(0, 255).astype(np.uint8))
