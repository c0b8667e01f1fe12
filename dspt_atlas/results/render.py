"""Tables as text, for people and for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator

from tabulate import tabulate

from dspt_atlas.results.cells import csv_text
from dspt_atlas.results.tables import Cell, Mean, Table

FORMATS = {"github": "github", "latex": "latex_booktabs", "csv": "", "json": ""}  # as tabulate names them


def cells_of(table: Table, wanted_seeds: set[int], baseline: str = "") -> list[dict]:
    """Return a table's cells row by row: place, unrounded numbers, `text`, and `missing` seeds in words.

    difference: to the row of the baseline, over the seeds that both have.
    """
    base = {key[:-1]: row for key, row in table.rows.items() if baseline and key[-1] == baseline}
    places = [(key, column, row.get(column)) for key, row in table.rows.items() for column in table.columns]
    return [
        {
            "table": table.title,
            **dict(zip(table.index, key, strict=True)),
            **_noise_of(table, key, column),
            "column": column,
            "measure": table.measure.name,
            **_numbers(table, table.rows[key], cell, wanted_seeds, base.get(key[:-1], {}).get(column)),
            "missing": _missing(key, column, cell, wanted_seeds),
        }
        for key, column, cell in places
    ]


def _noise_of(table: Table, key: tuple, column: str) -> dict:
    """Return type and rate of the noise in the name of a row or a column; in other tables all labels are clean."""
    own = table.noises.get(key[table.index.index("noise")] if "noise" in table.index else column)
    kind, rate = own or (("none", 0.0) if table.noises else (None, None))
    return {"noise_type": kind, "noise_rate": rate}


def _numbers(table, row, cell, wanted_seeds, base):
    by_seed = cell.by_seed if isinstance(cell, Cell) else {}
    is_by_seed = any(isinstance(each, Cell) for each in row.values())  # published figures are not
    difference = _difference(cell, base)
    text = "–" if cell is None else table.measure.text(cell.mean)
    if by_seed:
        text += f" ± {table.measure.text(cell.spread)} ({len(by_seed)}/{len(wanted_seeds | by_seed.keys())})"
    elif cell is not None and cell.present < cell.wanted:
        text += f" ({cell.present}/{cell.wanted} data sets)"
    return {
        "mean": None if cell is None else cell.mean,
        "std": cell.spread if by_seed else None,
        "seeds": sorted(by_seed),
        "missing_seeds": sorted(wanted_seeds - by_seed.keys()) if is_by_seed and not isinstance(cell, Mean) else [],
        "difference": difference,
        "text": text if difference is None or base is cell else f"{text} {table.measure.text(difference, '+')}",
    }


def _difference(cell: Cell | Mean | None, base: Cell | Mean | None) -> float | None:
    """Return the difference to a baseline over common seeds; None without such seeds, or if a data set is missing."""
    if isinstance(base, Cell) and isinstance(cell, Cell):
        common = cell.by_seed.keys() & base.by_seed.keys()
        return statistics.fmean(cell.by_seed[seed] - base.by_seed[seed] for seed in common) if common else None
    is_whole = isinstance(base, Mean) and isinstance(cell, Mean) and cell.present == base.present == cell.wanted
    return cell.mean - base.mean if is_whole else None


def _missing(key, column, cell, wanted_seeds):
    """Return the seeds that a cell lacks; nothing for a cell without any seed."""
    seeds = sorted(wanted_seeds - cell.by_seed.keys()) if isinstance(cell, Cell) else ()
    return (
        f"{' '.join(key)}, {column}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if seeds else ""
    )


def render(tables: list[Table], wanted_seeds: set[int], form: str = "github", baseline: str = "") -> str:
    """Return the tables as text: github or latex for people, csv or json (unrounded) for programs."""
    cells = [cells_of(table, wanted_seeds, baseline) for table in tables]
    if form in ("csv", "json"):
        return _for_programs([cell for own in cells for cell in own], form)
    texts = []
    for table, own in zip(tables, cells, strict=True):
        shown = [[*key, *(cell["text"] for cell in row)] for key, row in by_row(table, own)]
        text = tabulate(shown, [*table.index, *table.columns], tablefmt=FORMATS[form], disable_numparse=True)
        head = f"{table.title}\n{table.note}".strip()
        texts.append(f"{head}\n\n{text}")
        if missing := [cell["missing"] for cell in own if cell["missing"]]:
            texts.append("Missing: " + "; ".join(missing))
    return "\n\n".join(texts)


def by_row(table: Table, cells: list[dict]) -> Iterator[tuple[tuple, list[dict]]]:
    """Yield (key, cells) of a table's rows."""
    for number, key in enumerate(table.rows):
        yield key, cells[number * len(table.columns) : (number + 1) * len(table.columns)]


def _for_programs(cells, form):
    hidden = {"text", "missing"} | ({"measure"} if len({cell["measure"] for cell in cells}) < 2 else set())
    entries = [{name: value for name, value in cell.items() if name not in hidden} for cell in cells]
    if form == "json":
        return json.dumps(entries, indent=1)
    fields = dict.fromkeys(name for entry in entries for name in entry)
    rows = ([_flat(entry.get(name, "")) for name in fields] for entry in entries)
    return csv_text(fields, rows).rstrip("\n") if entries else ""


def _flat(value):
    return " ".join(map(str, value)) if isinstance(value, list) else value
