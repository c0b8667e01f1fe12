"""Shared code of figures: one look per method, sizes of a paper's columns, and a picture with its numbers."""

from __future__ import annotations

import contextlib
import html
import io
import math
import re
import statistics
import textwrap
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dspt_atlas.paths import write_atomically
from dspt_atlas.results.cells import write_csv

WIDTHS = {1: 3.25, 2: 6.875}  # inches of one and of both columns of a page, as in CVPR and ICML
NARROWEST = 2.1  # inches of a panel
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
# A method's colour (of Okabe and Ito, then Tol), marker and line: with the last two it can be read in grey.
LOOKS = {
    "CE": ("#0072b2", "o", "-"),
    "DSPT": ("#d55e00", "s", "-"),
    "GCE": ("#009e73", "^", "--"),
    "ATLaS": ("#cc79a7", "h", "-."),
    "JoAPR": ("#e69f00", "D", ":"),
    "MAE": ("#56b4e9", "X", "--"),
    "NLPrompt": ("#000000", "P", "-."),
    "": ("#777777", "*", ":"),  # zero-shot
    "LS": ("#882255", "v", "--"),
    "TFKD": ("#999933", "<", "-."),
    "OLS": ("#332288", ">", ":"),
}
_OTHERS = (("#44aa99", "d", "-"), ("#661100", "p", "--"), ("#aa4499", "H", "-."))
COLOURS = tuple(colour for colour, *_ in LOOKS.values())
FORMATS = ("png", "svg", "pdf")


def looks(methods: Mapping[str, str]) -> dict[str, dict]:
    """Return {label: colour, line style and marker} for {label: method}, a method's colour and marker being its own.

    Labels of one method, such as those of two learners, differ by line and by filled or empty marks.
    """
    found, counts = {}, {}
    for label, method in methods.items():
        colour, marker, line = LOOKS.get(method) or _OTHERS[zlib.crc32(method.encode()) % len(_OTHERS)]
        variant = counts[method] = counts.get(method, -1) + 1
        style = {"color": colour, "marker": marker, "linestyle": LINES[(LINES.index(line) + variant) % len(LINES)]}
        found[label] = style | ({"markerfacecolor": "white"} if variant % 2 else {})
    return found


def sized(columns: int) -> contextlib.AbstractContextManager:
    """Return a context in which figures are as wide as one or two columns of a page, with letters to be read there."""
    small, usual = 7, 8  # points
    return matplotlib.rc_context(
        {
            "figure.figsize": (WIDTHS[columns], 2.3),
            "figure.titlesize": usual + 1,
            "font.size": usual,
            "axes.titlesize": usual,
            "axes.labelsize": usual,
            "xtick.labelsize": small,
            "ytick.labelsize": small,
            "legend.fontsize": small,
            "lines.linewidth": 1.1,
            "lines.markersize": 3.5,
            "pdf.fonttype": 42,  # fonts that conferences accept
        }
    )


def draw_band(panel: Axes, points: dict[float, list[float]], label: str, number: int, style: dict) -> None:
    """Draw the means of {x: [value of each seed]} as a line with about eight marks, and the seeds' range as a band."""
    xs = sorted(points)
    marks = max(1, len(xs) // 8)
    panel.plot(xs, [statistics.fmean(points[x]) for x in xs], label=label, markevery=(number % marks, marks), **style)
    low, high = ([limit(points[x]) for x in xs] for limit in (min, max))
    panel.fill_between(xs, low, high, color=style["color"], alpha=0.12, lw=0)


def draw_beside(panel: Axes, points: dict[float, list[float]], label: str, shift: float, style: dict) -> None:
    """Draw the means of {x: [value of each seed]}, shifted by so much to stand beside others, and ranges as bars."""
    xs = sorted(points)
    means = [statistics.fmean(points[x]) for x in xs]
    ranges = [(mean, min(points[x]), max(points[x])) for x, mean in zip(xs, means, strict=True)]
    # the mean of equal values may be rounded beyond them
    ends = [[max(0.0, mean - low) for mean, low, _ in ranges], [max(0.0, high - mean) for mean, _, high in ranges]]
    panel.errorbar([x + shift for x in xs], means, yerr=ends, label=label, elinewidth=0.8, capsize=1.5, **style)


def panels(
    count: int, title: str = "", height: float = 2.2, across: int = 0, share_y: str = "all", width: float = 0
) -> tuple[Figure, list[Axes]]:
    """Return a figure and the list of its panels with a grid.

    height: of a row of panels in inches; across: panels per row (0: as many as can be read); width: of the figure (0:
    that of `sized`); share_y: which panels have one y axis: all, row or none.
    """
    width = width or matplotlib.rcParams["figure.figsize"][0]
    if not across:
        rows = math.ceil(count / max(1, int(width // NARROWEST)))
        across = math.ceil(count / rows)
    rows = math.ceil(count / across)
    heading = wrapped(title, width - 0.2, matplotlib.rcParams["font.size"] + 1)
    figure = Figure(figsize=(width, height * rows + 0.2 * heading.count("\n")), layout="constrained")
    axes = list(figure.subplots(rows, across, sharey=share_y, squeeze=False).flat)
    for panel in axes[count:]:
        panel.remove()
    for panel in axes[:count]:
        panel.grid(alpha=0.3)
    if title:
        figure.suptitle(heading)
    return figure, axes[:count]


def name_panel(panel: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Give a panel its title, and its axes their names, in as many lines as they need."""
    whole, place = panel.get_figure().get_size_inches(), panel.get_subplotspec().get_gridspec()
    width, height = whole[0] / place.ncols - 0.5, whole[1] / place.nrows - 0.8
    size = matplotlib.rcParams["font.size"]
    panel.set_title(wrapped(title, width, size))
    panel.set_xlabel(wrapped(x, width, size))
    panel.set_ylabel(wrapped(y, max(height, 1), size))


def wrapped(text: str, inches: float, points: float) -> str:
    """Return a text in lines of at most so many inches, drawn unchanged."""
    return literal(textwrap.fill(str(text), max(8, int(inches * 72 / (0.55 * points)))))


def add_legend(figure: Figure, axes: list[Axes]) -> None:
    """Put one legend for all panels below them, in as many columns as fit; labels are drawn unchanged."""
    entries = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    width = figure.get_size_inches()[0]
    labels = [wrapped(label, width - 0.7, matplotlib.rcParams["font.size"]) for label in entries]
    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(min(len(labels), 8), 0, -1):
        place = {"loc": "outside lower center", "ncols": columns, "frameon": False, "handlelength": 3}
        legend = figure.legend(entries.values(), labels, columnspacing=1.2, **place)
        if columns == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            rows = math.ceil(len(labels) / columns) + sum(label.count("\n") for label in labels)
            figure.set_figheight(figure.get_figheight() + 0.16 * rows)
            return
        legend.remove()


def describe(figure: Figure) -> str:
    """Return in words what a figure shows, for those who cannot see it: titles, axes and the legend's labels."""
    panels = [panel for panel in figure.axes if panel.get_title() or panel.get_xlabel()]
    titles = dict.fromkeys(panel.get_title() for panel in panels)
    axes = {side: dict.fromkeys(getattr(panel, f"get_{side}label")() for panel in panels) for side in "xy"}
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    parts = [figure.get_suptitle(), f"Panels: {'; '.join(filter(None, titles))}" if any(titles) else ""]
    parts += [f"{side} axis: {'; '.join(filter(None, names))}" for side, names in axes.items() if any(names)]
    parts.append(f"Shown: {', '.join(labels)}" if labels else "")
    return ". ".join(filter(None, parts)).replace("\n", " ").replace(r"\$", "$") + "."


def description_of(svg: Path) -> str:
    """Return the description that `save` put into an SVG."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]) if found else ""


def save(figure: Figure, stem: Path, header: Iterable[str], rows: Iterable[Iterable]) -> list[Path]:
    """Write a figure as <stem>.png, .svg and .pdf, and its numbers as <stem>.csv; return the paths."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in (*FORMATS, "csv")]
    for path in paths[:-1]:
        save_picture(figure, path)
    write_csv(paths[-1], header, rows)
    return paths


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the path's suffix, the same figure as the same bytes; return the path."""
    write_atomically(path, picture(figure, path.suffix[1:], path.stem))
    return path


def picture(figure: Figure, kind: str, name: str) -> bytes:
    """Return a figure in a format (png, svg, pdf), with its description.

    The same figure with the same name is the same bytes.
    """
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    words = {"Subject" if kind == "pdf" else "Description": describe(figure)}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(buffer, format=kind, dpi=200, metadata=undated | words)
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
