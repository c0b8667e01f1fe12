"""Tables as people write them: usual delimiters, with or without a header, columns by their names or content."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from dspt_atlas.datasets.formats import is_image, read_text
from dspt_atlas.errors import UserError
from dspt_atlas.keys.ranges import whole_number

DELIMITERS = (",", ";", "\t", "|")
SPLIT_NAMES = {  # in small letters
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
# Names of columns, in small letters and without "_", "-" and spaces.
NAMES = {
    "path": "path image img file filename filepath imagepath imgpath impath imagefile imagefilename imagename imageid",
    "label": "label labels target targets class y category classid labelid classindex categoryid",
    "classname": "classname classnames labelname categoryname targetname",
    "split": "split set subset partition",
}
NOISE_NAMES = {
    "path": NAMES["path"],
    "given": "given givenlabel noisy noisylabel label",
    "clean": "clean cleanlabel true truelabel",
}
_NUMBERING = ("", "index", "unnamed:0", "id")  # headers of a column that only counts


class Row(NamedTuple):
    """One line of a table: its number in the file, and its cells."""

    line: int
    cells: list[str]


def read_rows(path) -> list[Row]:
    """Return the lines of a table that are not empty, split at the delimiter that fits the first ones best.

    The text is UTF-8, UTF-16 with its mark, or cp1252. Raises UserError for a line with more cells than the first.
    """
    text = read_text(path, of_people=True)
    beginning = "\n".join(text.splitlines()[:50])
    try:
        delimiter = max(DELIMITERS, key=lambda delimiter: _evenness(_parsed(beginning, delimiter)))
        rows = _parsed(text, delimiter)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table ({error}): expected one line per image") from error
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) > width:
            raise UserError(
                f'{path}, line {row.line} has {len(row.cells)} cells at "{delimiter}", but the first line has {width}: '
                "put a text with this character into double quotes"
            )
        row.cells.extend([""] * (width - len(row.cells)))
    return rows


def _parsed(text, delimiter):
    reader, rows = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True), []
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        while len(cells) > 1 and not cells[-1]:  # spreadsheets fill lines with delimiters
            cells.pop()
        if any(cells):
            rows.append(Row(reader.line_num, cells))
    return rows


def _evenness(rows):
    widths = [len(row.cells) for row in rows]
    usual = max(set(widths), key=widths.count)
    return usual > 1 and known_columns(rows[0].cells) != {}, usual > 1 and widths.count(usual) / len(widths), usual


def known_columns(header, names=NAMES) -> dict[str, int]:
    """Return {our name: number} of the columns that a header names; of two labels, those in words are class names."""
    plain = [cell.lower().translate({ord(c): None for c in "_- "}) for cell in header]
    found = {}
    for number, cell in enumerate(plain):
        for name, known in names.items():
            if cell in known.split() and name not in found:
                found[name] = number
                break
    return found


def read_table(path, names=NAMES, needed="label") -> list[tuple[int, dict[str, str]]]:
    """Return (line, {column: cell}) of each image in a table, with the columns that it has.

    A first line with an image in it is no header. Columns without a known name are known by what they hold: `path` by
    the extensions of images, `split` by the names of splits, and the only other column is `needed`. Raises UserError.
    """
    first, *body = rows = read_rows(path)
    has_header = not any(is_image(cell) for cell in first.cells)
    columns = known_columns(first.cells, names) if has_header else {}
    body = body if has_header else rows
    if names is NAMES and body:
        _separate_names(columns, first.cells, body)
    _by_content(columns, first.cells if has_header else [], body, needed)
    if not body or "path" not in columns or not columns.keys() & {needed, "classname"}:
        raise UserError(
            f"{path}: expected a column path and a column {needed}{' (split is optional)' if names is NAMES else ''}, "
            f"but its {'columns are' if has_header else 'first line has'} {', '.join(map(repr, first.cells))}"
            f"{'' if body else ', and no line follows'}: name them {', '.join(names)} in the first line"
        )
    return [(row.line, {name: row.cells[number] for name, number in columns.items()}) for row in body]


def _separate_names(columns, header, body):
    """Make one of two label columns the class names: the one that does not hold whole numbers."""
    if "label" not in columns or "classname" in columns:
        return
    others = [number for number, cell in enumerate(header) if known_columns([cell]).keys() == {"label"}]
    words = [n for n in others if any(whole_number(row.cells[n]) is None for row in body)]
    if len(others) == 2 and len(words) == 1:
        columns["classname"] = words[0]
        (columns["label"],) = {*others} - {*words}


def _by_content(columns, header, body, needed):
    free = [n for n in range(len(body[0].cells)) if n not in columns.values()] if body else []
    free = [n for n in free if not header or header[n].lower().replace(" ", "") not in _NUMBERING]

    def take(name, fits):
        found = [n for n in free if all(fits(row.cells[n]) for row in body)]
        if name not in columns and len(found) == 1:
            columns[name] = found[0]
            free.remove(found[0])

    take("path", is_image)
    take("split", lambda cell: cell.lower() in SPLIT_NAMES)
    if len(free) == 1 and not columns.keys() & {needed, "classname"}:
        columns[needed] = free[0]


def check_is_file(path, option) -> Path:
    """Return a path as `Path`; raises UserError unless it is a file."""
    if Path(path).is_dir():
        raise UserError(f"Expected {option} to be a file, but {path} is a folder: give a file in it")
    return Path(path)
