"""Pictures of texts, in Latin letters and Hangul."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from engine.pictures import INK, MUTED

SIZE, LINE = 14, 20  # of a letter and of a line, in pixels
PAD = 10


def font() -> ImageFont.FreeTypeFont:
    """Return a font that has Hangul (Nanum Gothic, OFL)."""
    package = find_spec("koreanize_matplotlib")  # not imported: that would change the font of all figures
    folder = package.submodule_search_locations[0] if package and package.submodule_search_locations else ""
    return ImageFont.truetype(str(Path(folder, "fonts", "NanumGothic.ttf")), SIZE)


def wrapped(text: str, width: int, letters: ImageFont.FreeTypeFont) -> list[str]:
    """Break a text into lines that are no wider than so many pixels; the breaks that it has stay."""
    lines = []
    for line in text.expandtabs(4).split("\n"):
        start = 0
        for end in range(1, len(line) + 1):
            if letters.getlength(line[start:end]) > width:
                lines.append(line[start : end - 1])
                start = end - 1
        lines.append(line[start:])
    return lines


def text_table(rows: Sequence[Sequence[str]], widths: Sequence[int], most_lines: int = 8) -> Image.Image:
    """Return a table of texts.

    Args:
        rows: Cells of every row; the first row is the heading.
        widths: Width of every column in pixels.
        most_lines: Lines of a cell that are shown.
    """
    letters = font()
    cells = [
        [wrapped(cell, width - 2 * PAD, letters)[:most_lines] for cell, width in zip(row, widths, strict=True)]
        for row in rows
    ]
    heights = [LINE * max(map(len, row)) + PAD for row in cells]
    sheet = Image.new("RGB", (sum(widths), sum(heights) + PAD), "white")
    draw = ImageDraw.Draw(sheet)
    top = PAD // 2
    for row, height in zip(cells, heights, strict=True):
        left = 0
        for lines, width in zip(row, widths, strict=True):
            for number, line in enumerate(lines):
                draw.text((left + PAD, top + PAD // 2 + number * LINE), line, INK, letters)
            left += width
        top += height
        draw.line([(0, top), (sheet.width, top)], MUTED)
    return sheet


def text_heat(pieces: Sequence[tuple[str, float]], most: float, width: int = 900) -> Image.Image:
    """Return a text whose pieces are the darker the higher their values are.

    Args:
        pieces: Pieces of the text, each with a value from 0 on.
        most: Value of the darkest colour.
        width: Width of the picture in pixels.
    """
    letters, shades = font(), colormaps["OrRd"]
    placed: list[tuple[float, int, str, float]] = []
    left, top = float(PAD), PAD
    for piece, value in pieces:
        for number, part in enumerate(piece.expandtabs(4).split("\n")):
            length = letters.getlength(part)
            if number or left + length > width - PAD:
                left, top = float(PAD), top + LINE
            placed.append((left, top, part, value))
            left += length
    sheet = Image.new("RGB", (width, top + LINE + PAD), "white")
    draw = ImageDraw.Draw(sheet)
    for left, top, part, value in placed:
        red, green, blue, _ = (round(255 * shade) for shade in shades(min(value / most, 1.0) * 0.8))
        if part:
            draw.rectangle([left, top, left + letters.getlength(part), top + LINE - 2], (red, green, blue))
            draw.text((left, top + 1), part, INK, letters)
    return sheet
