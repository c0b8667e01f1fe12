"""Many small images on one sheet, with text under each."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dspt_atlas.datasets.images import read_image
from dspt_atlas.paths import write_atomically

SIDE, GAP, LINE, COLUMNS = 168, 8, 15, 6  # pixels; columns


def draw_sheet(pictures: Iterable[tuple[str, str]], path: Path) -> Path:
    """Write the `contact_sheet` of (image file, lines of text) pairs as PNG; return the path."""
    buffer = io.BytesIO()
    contact_sheet(pictures).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
    return path


def contact_sheet(pictures: Iterable[tuple[str | Image.Image, str]]) -> Image.Image:
    """Draw (image or its file, lines of text) pairs on a sheet, from the left and from the top.

    Lines are cut where the image ends. Raises UserError for an image that cannot be read.
    """
    pictures = list(pictures)
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 11)
    columns = max(1, min(COLUMNS, len(pictures)))
    width, height = SIDE + GAP, SIDE + LINE * max((text.count("\n") + 1 for _, text in pictures), default=0) + GAP
    sheet = Image.new("RGB", (columns * width + GAP, -(-len(pictures) // columns) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, text) in enumerate(pictures):
        left, top = GAP + number % columns * width, GAP + number // columns * height
        small = ImageOps.contain(read_image(image), (SIDE, SIDE))
        sheet.paste(small, (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2))
        for row, line in enumerate(text.split("\n")):
            draw.text((left, top + SIDE + row * LINE), _fitting(line, font), fill="black", font=font)
    return sheet


def _fitting(line, font):
    if font.getlength(line) <= SIDE:
        return line
    while line and font.getlength(f"{line}…") > SIDE:
        line = line[:-1]
    return f"{line}…"
