"""Writing and reading tables in CSV; a spreadsheet does not take a cell for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.paths import write_atomically

# OWASP, "CSV injection": spreadsheets compute or skip cells that start with these; the last four are full-width.
STARTS = tuple("=+-@\t\r\n＝＋－＠")


def safe_cell(value: object) -> object:
    """Return a cell's value; a text that a spreadsheet would compute gets an apostrophe before it, numbers stay.

    >>> safe_cell("=1+1"), safe_cell(-1.5), safe_cell("-1.5"), safe_cell("owl")
    ("'=1+1", -1.5, '-1.5', 'owl')
    """
    if not isinstance(value, str) or not value.lstrip("'").startswith(STARTS) or _is_number(value):
        return value
    return f"'{value}"


def plain_cell(text: str) -> str:
    """Return the text that `safe_cell` was given.

    >>> plain_cell("'=1+1"), plain_cell("'quoted'")
    ('=1+1', "'quoted'")
    """
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(STARTS) else text


def csv_text(header: Iterable, rows: Iterable[Iterable]) -> str:
    """Return rows under a header as CSV, each cell safe."""
    file = io.StringIO()
    for row in (header, *rows):
        cells = [safe_cell(cell) for cell in row]
        has_return = any("\r" in str(cell) for cell in cells)  # Python quotes it only if it ends lines
        quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
        csv.writer(file, lineterminator="\n", quoting=quoting).writerow(cells)
    return file.getvalue()


def write_csv(path: Path, header: Iterable, rows: Iterable[Iterable]) -> None:
    """Write rows under a header, each cell safe."""
    write_atomically(path, csv_text(header, rows))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of `write_csv` as dicts by the header, with their original texts."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = [[plain_cell(text) for text in row] for row in csv.reader(file, strict=True)] or [[]]
    return [dict(zip(header, row, strict=False)) for row in rows]


def read_numbers(path: Path, texts: tuple[str, ...]) -> list[dict]:
    """Return the rows of a gradient profile with numbers as floats, except in the columns `texts`, without empty cells.

    Raises UserError with the file's name if it is something else.
    """
    try:
        return [_numbers(row, texts) for row in read_csv(path)]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(
            f"{path} is not a gradient profile ({type(error).__name__}: {error}): make it again."
        ) from error


def _numbers(row, texts):
    own = {name: row[name] for name in texts}
    numbers = {name: float(value) for name, value in row.items() if name not in texts and value}
    return {**numbers, **own, "epoch": int(numbers["epoch"])}


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
