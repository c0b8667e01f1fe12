"""The command `dspt-atlas report`."""

from __future__ import annotations

import functools
import math
import sys
import time
from pathlib import Path

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError, one_line
from dspt_atlas.paths import write_atomically
from dspt_atlas.report.table import add_table_options
from dspt_atlas.run.files import find_runs
from dspt_atlas.signals import Interrupted

SHORTEST = 1.0


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas report`."""
    parser = Parser("report", example="output/ --watch", advice="the page stays as it was last written.")
    add_table_options(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="page to write (default: report.html in the folder)"
    )
    parser.add_argument("--title", default="", help="title of the page")
    parser.add_argument("--no-figures", action="store_true", help="leave the figures out")
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=10.0,
        metavar="SECONDS",
        help="write it again every so many seconds (default 10) until Ctrl-C; an open page loads itself again",
    )
    return parser


def write_report(options) -> None:
    """Write the page, once or repeatedly; raises UserError."""
    from dspt_atlas.report.page.page import render_page  # it loads torch

    out = options.output or options.folders[0] / "report.html"
    render = functools.partial(
        render_page,
        options.folders,
        options.title,
        options.seeds,
        options.baseline,
        options.measures,
        options.published,
        options.missing,
        not options.no_figures,
    )
    if options.watch is None:
        _check_has_runs(options.folders)
        _write(out, *render())
    else:
        watch(render, out, options.watch)


def _check_has_runs(roots: list[Path]) -> None:
    missing = [root for root in roots if not root.is_dir()]
    if missing:
        raise UserError(f"Expected a folder of results, but {missing[0]} is not a folder.")
    if not find_runs(roots)[0]:
        raise UserError(
            f"No run in {', '.join(map(str, roots))}: expected folders with a result.json or config.yaml below it; "
            "give the output folder of your runs."
        )


def _write(out: Path, page: bytes, holds: str) -> None:
    if out.is_dir():
        raise UserError(f"Expected --output to be a file to write, but {out} is a folder: give a file in it.")
    write_atomically(out, page)
    print(f"Wrote {out} ({len(page) / 1e6:.1f} MB; {holds})", flush=True)


def watch(render, out: Path, seconds: float) -> None:
    """Write the page every so many seconds until SIGINT or SIGTERM, then a last page that does not load itself again.

    The pause is at least four times as long as a round takes, so that runs keep the processor. Raises UserError for a
    wrong interval, and for folders that do not exist at the start.
    """
    if not (math.isfinite(seconds) and seconds >= SHORTEST):
        raise UserError(f"Expected --watch to be at least {SHORTEST:g} second, got {seconds:g}.")
    last = 0.0
    try:
        while True:
            start = time.monotonic()
            try:
                _write(out, *render(refresh=max(seconds, 4 * last)))
            except (OSError, UserError) as error:  # such as a run's folder removed while it was read
                if not last:
                    raise
                print(f"dspt-atlas report: {one_line(error)}; trying again", file=sys.stderr)
            last = time.monotonic() - start
            time.sleep(max(seconds, 4 * last))
    except Interrupted as name:
        _write(out, *render())
        print(f"Stopped by {name}: the page no longer loads itself again")


main = main_of(build_parser, write_report)
