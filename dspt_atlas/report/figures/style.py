"""Shared code of figures: styles that differ without colour, and a picture with its numbers."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dspt_atlas.paths import write_atomically
from dspt_atlas.results.cells import write_csv

STYLES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ((0, (5, 1)), "v"), ((0, (1, 1)), "x"))
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#777777")  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "x", "P", "*")


def look(number: int) -> dict:
    """Return colour, line style and marker of a method by its number; lines cycle after 6, the others after 8."""
    style = STYLES[number % len(STYLES)][0]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": style, "marker": MARKERS[number % len(MARKERS)]}


def draw_band(panel: Axes, points: dict[float, list[float]], label: str, number: int, **changes) -> None:
    """Draw the means of {x: [value of each seed]} as a line with about eight marks, and the seeds' range as a band."""
    xs = sorted(points)
    marks = max(1, len(xs) // 8)
    style = {**look(number), "markevery": (number % marks, marks), "ms": 4, **changes}
    panel.plot(xs, [statistics.fmean(points[x]) for x in xs], label=label, **style)
    low, high = ([limit(points[x]) for x in xs] for limit in (min, max))
    panel.fill_between(xs, low, high, color=style["color"], alpha=0.2, lw=0)


def panels(count: int, title: str = "", width: float = 4.6, height: float = 3.8, rows: int = 1, share_y: bool = True):
    """Return a figure and the list of its panels, so many per row, with a grid; with share_y a row has one y axis."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = list(figure.subplots(rows, count, sharey="row" if share_y else False, squeeze=False).flat)
    for panel in axes:
        panel.grid(alpha=0.3)
    if title:
        figure.suptitle(literal(title))
    return figure, axes


def add_legend(figure: Figure, axes: list[Axes], most: int = 2) -> None:
    """Put one legend for all panels below them, at most so many entries per row; labels are drawn unchanged."""
    entries = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = min(len(entries), most * len(axes))
    figure.legend(
        entries.values(),
        map(literal, entries),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3,
    )


def save(figure: Figure, stem: Path, header: Iterable[str], rows: Iterable[Iterable]) -> list[Path]:
    """Write a figure as <stem>.png and .svg and its numbers as <stem>.csv; return the paths."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg", "csv")]
    for path in paths[:2]:
        save_picture(figure, path)
    write_csv(paths[2], header, rows)
    return paths


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the path's suffix, the same figure as the same bytes; return the path."""
    write_atomically(path, picture(figure, path.suffix[1:], path.stem))
    return path


def picture(figure: Figure, kind: str, name: str) -> bytes:
    """Return a figure in a format (png, svg, pdf), the same figure with the same name as the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def literal(text: object) -> str:
    r"""Return a text that matplotlib draws unchanged: a dollar in a name does not begin mathematics.

    >>> print(literal("$5 or $10"))
    \$5 or \$10
    """
    return str(text).replace("$", r"\$")


def file_name(*parts: object) -> str:
    """Return parts joined by "_", fit for a file's name.

    >>> file_name("memorisation", "Emoji", "sym 0.5")
    'memorisation_Emoji_sym-0.5'
    """
    return "_".join("".join(c if c.isalnum() or c in "._-" else "-" for c in str(part)) for part in parts if part)
