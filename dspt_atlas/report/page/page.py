"""The page: tables, figures and runs in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import jinja2

from dspt_atlas.errors import UserError
from dspt_atlas.report.figures import FIGURES
from dspt_atlas.report.page.runs import COLUMNS, STATES, compressed_details, plain, run_entries
from dspt_atlas.report.table import check_baseline
from dspt_atlas.results.published import add_published
from dspt_atlas.results.read import Record, load_all, result_of
from dspt_atlas.results.tables import Table, baseline_rows, build_tables, cell_text, missing_cells
from dspt_atlas.results.tables import wanted_seeds as seeds_of

# The other two show a data set and a backbone, which the machine of the report need not have.
REPORT_FIGURES = tuple(name for name in FIGURES if name not in ("csl", "isl"))
# More figures are not looked at one by one, and more methods are not told apart in one.
MOST_FIGURES, MOST_METHODS = 24, 24
NUMERIC = ("shots", "seed", "accuracy", "macro F1", "seconds")
MIME = {".svg": "image/svg+xml", ".png": "image/png"}


def render_page(
    roots, title="", wanted_seeds=(), baseline="", measure="accuracy", published=False, figures=True, refresh=0.0
) -> tuple[bytes, str]:
    """Return the page on the runs below folders, in UTF-8, and a sentence on what it holds.

    wanted_seeds, baseline, measure and published as in `reports.report`; with refresh > 0 the page loads itself again
    every so many seconds, and the baseline's results may still come. Raises UserError for a folder that does not exist.
    """
    roots = [Path(root) for root in roots]
    loaded = load_all(roots)
    records = loaded.records
    if records and not refresh:
        check_baseline(records, baseline)
    entries = run_entries(roots, loaded)
    tables = build_tables(records, measure)
    note = add_published(tables) if published else ""
    seeds = seeds_of(records, wanted_seeds)
    known = tuple((run, run.folder, run.values["accuracy"]) for run in records) if figures else ()
    drawn, left_out = _figures(known)
    states = Counter(entry.state for entry in entries)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dspt_atlas.report.page", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = (environment.loader.get_source(environment, name)[0] for name in ("page.css", "page.js"))
    page = environment.get_template("page.html").render(
        title=title or f"Results in {', '.join(root.resolve().name for root in roots)}",
        time=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        policy=_policy(style, script),
        style=style,
        script=script,
        states=[(state, states[state]) for state in STATES if states[state]],
        tables=[_table_view(table, seeds, baseline) for table in tables],
        measure=measure.replace("macro_f1", "macro F1"),
        note=note,
        figures=drawn,
        left_out=left_out,
        columns=COLUMNS,
        numeric=NUMERIC,
        data={"columns": COLUMNS, "numeric": NUMERIC, "rows": [entry.row for entry in entries], "refresh": refresh},
        details=compressed_details(entries),
    )
    count = ", ".join(f"{count} {state}" for state, count in states.items()) or "none yet"
    return page.encode("utf-8", "replace"), f"runs: {count}; {len(tables)} tables; {len(drawn)} figures"


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that allows this style, this script and pictures in the page, nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _table_view(table: Table, seeds: set[int], baseline: str) -> dict:
    """Return a table's texts with the numbers to sort by."""
    base = baseline_rows(table, baseline)
    rows = []
    for key, row in table.rows.items():
        other = base.get(key[:-1], {})
        cells = [
            (cell_text(row.get(name), seeds, other.get(name)), plain(row[name].mean) if name in row else None)
            for name in table.columns
        ]
        rows.append((key, cells))
    missing = list(missing_cells(table, seeds))
    texts = {"title": table.title, "note": table.note, "index": table.index, "columns": table.columns}
    return {**texts, "rows": rows, "missing": missing}


@functools.lru_cache(maxsize=1)
def _figures(runs: tuple[tuple[Record, Path, float], ...]) -> tuple[list[tuple[str, str]], str]:
    """Return (name, data URL) of the figures that (run, folder, accuracy) give, and a sentence on those left out.

    Drawn again only when there are other runs.
    """
    trainings = [(run, folder) for run, folder, _ in runs if run.source is None]
    methods = defaultdict(set)
    for run, _ in trainings:
        methods[_group(run)].add(run.method)
    crowded = {group for group, names in methods.items() if len(names) > MOST_METHODS}
    read = [(run, result) for run, _ in trainings if _group(run) not in crowded and (result := result_of(run))]
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = [_drawings(number, read, Path(folder), broken) for number in range(len(REPORT_FIGURES))]
        # One of each kind by turns, so that the first kind does not use up all the room.
        drawings = filter(None, itertools.chain.from_iterable(itertools.zip_longest(*kinds)))
        shown = sorted(itertools.islice(drawings, MOST_FIGURES), key=lambda drawing: drawing[0])
        reasons = broken + [f"{group}: {len(methods[group])} methods" for group in crowded]
        if next(drawings, None):
            reasons.append(f"all after {MOST_FIGURES} figures")
        return [_picture(path) for _, path in shown], "; ".join(sorted(reasons))


def _group(run: Record) -> str:
    """Return which runs may share a figure with this one."""
    return f"{run.dataset}, {run.shots} shots" + ("" if run.subsample == "all" else f", {run.subsample} classes")


def _drawings(
    number: int, runs: list[tuple[Record, dict]], folder: Path, broken: list[str]
) -> Iterator[tuple[int, Path]]:
    """Yield a kind's number and the SVG of each of its figures, drawn when asked for; note where one cannot be."""
    try:
        for path in FIGURES[REPORT_FIGURES[number]](runs, folder):
            if path.suffix == ".svg":
                yield number, path
    except UserError as error:
        broken.append(str(error).rstrip("."))


def _picture(svg: Path) -> tuple[str, str]:
    """Return a figure's name and the smaller of its two files as a data URL."""
    path = min((svg, svg.with_suffix(".png")), key=lambda path: path.stat().st_size)
    return svg.stem.replace("_", " "), f"data:{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
