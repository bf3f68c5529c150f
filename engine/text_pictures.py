"""Pictures of texts, in Latin letters and Hangul."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from engine.fonts import font
from engine.pictures import INK, MUTED

SIZE, LINE = 14, 20  # of a letter and of a line, in pixels
PAD = 10


def wrapped(text: str, width: int, letters: ImageFont.FreeTypeFont) -> list[str]:
    """Break a text into lines that are no wider than so many pixels, between words if that can be; its breaks stay."""
    lines = []
    for line in text.expandtabs(4).split("\n"):
        start = 0
        for end in range(1, len(line) + 1):
            if letters.getlength(line[start:end]) > width:
                cut = line.rfind(" ", start + 1, end) + 1 or end - 1
                lines.append(line[start:cut])
                start = cut
        lines.append(line[start:])
    return lines


def text_table(rows: Sequence[Sequence[str]], widths: Sequence[int], most_lines: int = 8) -> Image.Image:
    """Return a table of texts.

    Args:
        rows: Cells of every row; the first row is the heading.
        widths: Width of every column in pixels.
        most_lines: Lines of a cell that are shown.
    """
    letters = font(SIZE)
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
    letters, shades = font(SIZE), colormaps["OrRd"]
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


def alignment(shares: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Return a heat-map of how much the tokens of one text have to do with those of another.

    Args:
        shares: Values in [0, 1], (rows, columns).
        rows: Tokens of the one text, at the left.
        columns: Tokens of the other, at the top, written upwards where they are long.
    """
    letters, side = font(SIZE), LINE + 4
    rows, columns = ([token.strip() or "·" for token in tokens] for tokens in (rows, columns))
    left, top = (2 * PAD + round(max(map(letters.getlength, tokens), default=0)) for tokens in (rows, columns))
    sheet = Image.new("RGB", (left + side * len(columns) + PAD, top + side * len(rows) + PAD), "white")
    draw = ImageDraw.Draw(sheet)
    for x, token in enumerate(columns):
        middle = left + x * side + side // 2
        if letters.getlength(token) <= side:
            draw.text((middle, top - PAD // 2), token, INK, letters, anchor="mb")
        else:
            label = Image.new("RGB", (top, LINE), "white")
            ImageDraw.Draw(label).text((PAD // 2, LINE // 2), token, INK, letters, anchor="lm")
            sheet.paste(label.rotate(90, expand=True), (middle - LINE // 2, 0))
    colours = (255 * colormaps["Blues"](shares)[..., :3]).round().astype(int)
    for y, token in enumerate(rows):
        draw.text((left - PAD // 2, top + y * side + side // 2), token, INK, letters, anchor="rm")
        for x in range(len(columns)):
            red, green, blue = colours[y, x].tolist()
            corner = (left + x * side, top + y * side)
            draw.rectangle([corner, (corner[0] + side - 2, corner[1] + side - 2)], (red, green, blue))
    return sheet


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures below each other."""
    size = (max(picture.width for picture in pictures), sum(picture.height for picture in pictures))
    sheet, top = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet
