"""The page: tables, figures and runs in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import jinja2
import pandas as pd
from PIL import Image

from dspt_atlas.errors import UserError
from dspt_atlas.report.figures import FIGURES, figure, with_results
from dspt_atlas.report.figures.style import description_of, sized
from dspt_atlas.report.page.runs import STATES, compressed_details, described, numeric, plain, run_entries, titles
from dspt_atlas.report.table import check_baseline, make_tables
from dspt_atlas.results.read import load
from dspt_atlas.results.render import missing_in, shown
from dspt_atlas.results.tables import Table
from dspt_atlas.results.tables import wanted_seeds as seeds_of
from dspt_atlas.trainers.measures import ACCURACY

# The other two show a data set and a backbone, which this machine may not have.
REPORT_FIGURES = tuple(name for name in FIGURES if name not in ("csl", "isl"))
# Nobody looks at more figures one by one, or distinguishes more methods in one figure.
MOST_FIGURES, MOST_METHODS = 24, 24
_known: dict = {}  # files that were read, and figures that were drawn: --watch reads and draws what is new
_drawn: dict = {}
MIME = {".svg": "image/svg+xml", ".png": "image/png"}


def render_page(
    roots,
    title="",
    wanted_seeds=(),
    baseline="",
    measures=(ACCURACY.name,),
    published=False,
    missing=False,
    figures=True,
    refresh=0.0,
) -> tuple[bytes, str]:
    """Return the page on the runs below folders, in UTF-8, and a sentence on its content.

    wanted_seeds, baseline, measures, published and missing as in `report.table.report`. With refresh > 0 the page loads
    itself again every so many seconds, and the baseline's results may still come. Raises UserError for a folder that
    does not exist.
    """
    roots = [Path(root) for root in roots]
    loaded = load(roots, described, _known)
    results = loaded.frame
    if len(results) and not refresh:
        check_baseline(results, baseline)
    entries = run_entries(roots, loaded)
    tables, note = make_tables(results, measures, published)
    seeds, lacking = seeds_of(results, wanted_seeds), missing or bool(wanted_seeds)
    drawn, left_out = _figures(results) if figures and len(results) else ([], "")
    states, columns = Counter(entry.state for entry in entries), list(titles().values())
    page = fill_template(
        "page.html",
        "page.js",
        title=title or f"Results in {', '.join(root.resolve().name for root in roots)}",
        states=[(state, states[state]) for state in STATES if states[state]],
        tables=[view for table in tables for view in _table_views(table, baseline, seeds if lacking else set())],
        note=note,
        figures=drawn,
        left_out=left_out,
        columns=columns,
        numeric=numeric(),
        data={"columns": columns, "numeric": numeric(), "rows": [entry.row for entry in entries], "refresh": refresh},
        details=compressed_details(entries),
    )
    count = ", ".join(f"{count} {state}" for state, count in states.items()) or "none yet"
    return page, f"runs: {count}; {len(tables)} tables; {len(drawn)} figures"


def fill_template(name: str, script: str = "", **values) -> bytes:
    """Return a page in UTF-8: a template of `assets` that extends base.html, with the style, a script and the time."""
    environment = jinja2.Environment(
        loader=(loader := jinja2.PackageLoader("dspt_atlas.report.page", "assets")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = (loader.get_source(environment, file)[0] if file else "" for file in ("page.css", script))
    page = environment.get_template(name).render(
        time=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        policy=_policy(style, script),
        style=style,
        script=script,
        **values,
    )
    return page.encode("utf-8", "replace")


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that allows this style, this script and pictures in the page, nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _table_views(table: Table, baseline: str, seeds: set[int]) -> list[dict]:
    """Return the texts of a table, and of its differences to the baseline, with the numbers to sort by."""
    lacking = missing_in(table, seeds) if seeds else []
    views = []
    for own in shown(table, baseline):
        rows = [(key, [(cell["text"], plain(cell["value"])) for cell in row]) for key, row in own.rows]
        views.append({**vars(own), "rows": rows, "missing": [] if views else lacking})
    return views


def _figures(results: pd.DataFrame) -> tuple[list[tuple[str, str, str]], str]:
    """Return (name, description, data URL) of the figures that results give, and a sentence on those left out.

    Drawn again only when there are other results.
    """
    key = tuple(zip(results["row"], results["folder"], results["accuracy"], strict=True))
    if key not in _drawn:
        _drawn.clear()
        _drawn[key] = _draw(results[results["source"].isna()])
    return _drawn[key]


def _draw(trainings):
    groups = _groups(trainings)
    methods = trainings["row"].groupby(groups).nunique()
    crowded = methods.index[methods > MOST_METHODS]
    read = with_results(trainings[~groups.isin(crowded)])
    broken = []
    with tempfile.TemporaryDirectory() as folder, sized(columns=2):
        kinds = [_drawings(number, read, Path(folder), broken) for number in range(len(REPORT_FIGURES))]
        # One of each kind in turn, so that the first kind does not take all the room.
        drawings = filter(None, itertools.chain.from_iterable(itertools.zip_longest(*kinds)))
        shown = sorted(itertools.islice(drawings, MOST_FIGURES), key=lambda drawing: drawing[0])
        reasons = broken + [f"{group}: {methods[group]} methods" for group in crowded]
        if next(drawings, None):
            reasons.append(f"all after {MOST_FIGURES} figures")
        return [_picture(REPORT_FIGURES[kind], path) for kind, path in shown], "; ".join(sorted(reasons))


def _groups(runs: pd.DataFrame) -> pd.Series:
    """Return the words for runs that may share a figure."""
    classes = ("" if subsample == "all" else f", {subsample} classes" for subsample in runs["subsample"])
    words = [
        f"{dataset}, {shots} shots{more}"
        for dataset, shots, more in zip(runs["dataset"], runs["shots"], classes, strict=True)
    ]
    return pd.Series(words, index=runs.index, dtype=object)


def _drawings(number: int, runs: pd.DataFrame, folder: Path, broken: list[str]) -> Iterator[tuple[int, Path]]:
    """Yield a kind's number and the SVG of each of its figures, drawn when needed; note those that cannot be drawn."""
    try:
        for path in figure(REPORT_FIGURES[number])(runs, folder):
            if path.suffix == ".svg":
                yield number, path
    except UserError as error:
        broken.append(str(error).rstrip("."))


def _picture(kind: str, svg: Path) -> tuple[str, str, str]:
    """Return a figure's name, its description, and the smaller of its two pictures as a data URL."""
    words = description_of(svg)
    title = words.split(". Panels: ")[0]
    path = min((svg, svg.with_suffix(".png")), key=lambda path: path.stat().st_size)
    return f"{kind.replace('_', ' ')}: {title}", words, data_url(MIME[path.suffix], path.read_bytes())


def jpeg_url(image: Image.Image, quality: int) -> str:
    """Return an image, as JPEG of a quality, as an address that holds it."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return data_url("image/jpeg", buffer.getvalue())


def data_url(mime: str, content: bytes) -> str:
    """Return a picture as an address that holds it."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
