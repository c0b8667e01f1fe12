"""Tables as text, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from tabulate import tabulate

from dspt_atlas.results.cells import csv_text
from dspt_atlas.results.latex import latex
from dspt_atlas.results.paired import Difference, paired_difference
from dspt_atlas.results.published import MARK
from dspt_atlas.results.tables import Cell, Mean, Table, over_common_seeds, seed_sets
from dspt_atlas.trainers.measures import Measure

FORMATS = ("github", "latex", "csv", "json")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Shown:
    """A table for people: a title, a caption that says what its cells are, and the texts of the cells by row.

    A cell is a dict with `text`, its parts `main` and `more`, `value` to sort by, and `rank`: 1 for the best of its
    column and group, 2 for the second best, otherwise 0.
    """

    title: str
    caption: str
    index: tuple[str, ...]
    columns: list[str]
    rows: list[tuple[tuple[str, ...], list[dict]]]


def cells_of(table: Table, wanted_seeds: set[int], baseline: str = "") -> list[dict]:
    """Return a table's cells row by row: place, unrounded numbers and backbones.

    difference: to the row of the baseline, over the seeds that both have, with its 95 % interval.
    """
    base = _baseline_rows(table, baseline)
    return [
        {
            "table": table.title,
            **dict(zip(table.index, key, strict=True)),
            **_noise_of(table, key, column),
            "column": column,
            "measure": table.measure.name,
            **_numbers(row, row.get(column), wanted_seeds, base.get(key, {}).get(column)),
        }
        for key, row in table.rows.items()
        for column in table.columns
    ]


def _baseline_rows(table: Table, baseline: str) -> dict[tuple, dict]:
    """Return the row of the baseline for each row's key.

    Of several rows of the baseline, which differ by settings in brackets, it is that with the settings of the row.
    """
    groups: dict[tuple, dict[str, dict]] = {}
    for key, row in table.rows.items():
        name, _, settings = key[-1].partition(" [")
        if baseline and baseline in (key[-1], name):
            groups.setdefault(key[:-1], {})[settings] = row
    found = {}
    for key in table.rows:
        own = groups.get(key[:-1], {})
        row = next(iter(own.values())) if len(own) == 1 else own.get(key[-1].partition(" [")[2], own.get(""))
        if row is not None:
            found[key] = row
    return found


def _noise_of(table: Table, key: tuple, column: str) -> dict:
    """Return label and facts of the noise in the name of a row or a column; in other tables all labels are clean."""
    label = key[table.index.index("noise")] if "noise" in table.index else column
    label = label if label in table.noises else "clean" if table.noises else None
    clean = {"noise_type": "none", "noise_family": "none", "noise_rate": 0.0}
    return {"noise": label, **table.noises.get(label, clean if table.noises else dict.fromkeys(clean))}


def _numbers(row, cell, wanted_seeds, base):
    by_seed = cell.by_seed if isinstance(cell, Cell) else {}
    is_by_seed = any(isinstance(each, Cell) for each in row.values())  # published figures are not
    difference = _difference(cell, base)
    return {
        "mean": None if cell is None else cell.mean,
        "std": cell.spread if by_seed else None,
        "seeds": sorted(by_seed),
        "missing_seeds": sorted(wanted_seeds - by_seed.keys()) if is_by_seed and not isinstance(cell, Mean) else [],
        "difference": difference and difference.mean,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "pairs": difference and difference.pairs,
        "backbone": sorted(cell.backbones - {""}) if isinstance(cell, Cell) else [],
    }


def _difference(cell: Cell | Mean | None, base: Cell | Mean | None) -> Difference | None:
    """Return the difference to a baseline over common seeds; None without such seeds, or if a data set is missing."""
    common = cell and base and over_common_seeds(cell, base)
    if not common:
        return None
    if isinstance(common[0], Cell):
        return paired_difference(*(side.by_seed for side in common), CONFIDENCE)
    is_whole = all(isinstance(side, Mean) and side.present == side.wanted for side in common)
    pairs = min(map(len, seed_sets(common[0])))
    return Difference(common[0].mean - common[1].mean, None, None, pairs) if is_whole else None


def missing_in(table: Table, wanted_seeds: set[int]) -> list[str]:
    """Return in words the seeds that cells lack; nothing for a cell without any seed."""
    return [
        f"{' '.join(key)}, {column}, {_seeds(seeds)} {', '.join(map(str, seeds))}"
        for key, row in table.rows.items()
        for column in table.columns
        if isinstance(cell := row.get(column), Cell) and (seeds := sorted(wanted_seeds - cell.by_seed.keys()))
    ]


def _seeds(seeds: Collection) -> str:
    return "seeds" if len(seeds) > 1 else "seed"


def shown(table: Table, baseline: str = "") -> list[Shown]:
    """Return a table for people, and after it the table of its differences to a baseline, if there are some."""
    cells = [(key, column, row.get(column)) for key, row in table.rows.items() for column in table.columns]
    usual = max((len(cell.by_seed) for *_, cell in cells if isinstance(cell, Cell)), default=0)
    rows = [
        (key, [_cell(table.measure, row.get(column), usual) for column in table.columns])
        for key, row in table.rows.items()
    ]
    _rank(rows, table.measure)
    counts = {len(cell.by_seed) for *_, cell in cells if isinstance(cell, Cell)}
    parts = [means_in_words(table.measure.title, counts), table.note and f"{table.note}."]
    parts.append(backbones_in_words((key[-1], cell.backbones) for key, _, cell in cells if isinstance(cell, Cell)))
    own = Shown(table.title, " ".join(filter(None, parts)), table.index, table.columns, rows)
    return [own, *_differences(table, baseline)]


def means_in_words(title: str, counts: Collection[int]) -> str:
    """Return what a cell is: a mean of a measure over seeds; counts: the numbers of seeds of the cells."""
    most = max(counts, default=1)
    over = "one seed" if most == 1 else f"mean ± population standard deviation over {most} seeds"
    fewer = "; a cell with fewer seeds says how many" if len(counts) > 1 else ""
    return f"{title[:1].upper()}{title[1:]} in percent{f', {over}{fewer}' if counts else ''}."


def backbones_in_words(found: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Return a sentence that names the backbones of (row, backbones): those of the most rows first; "" if unknown."""
    rows: dict[str, dict[str, None]] = {}
    for row, names in found:
        for name in names:
            rows.setdefault(name, {})[row] = None
    if not any(rows):
        return ""
    first, *others = sorted(rows, key=lambda name: -len(rows[name]))
    also = "".join(f"; {name or 'not known'} in {', '.join(rows[name])}" for name in others)
    return f"Backbone{'s' if others else ''}: {first or 'not known'}{also}."


def mean_texts(measure: Measure, mean: float, spread: float, count: int, usual: int) -> dict:
    """Return the texts of a mean over `count` seeds; they say it if it is not the usual number."""
    main, more = measure.text(mean), f"± {measure.text(spread)}" if count > 1 else ""
    few = f"({count} {_seeds(range(count))})" if count != usual else ""
    return {"text": " ".join(filter(None, (main, more, few))), "main": main, "more": more, "few": few}


def difference_text(measure: Measure, difference: Difference | None, usual: int) -> str:
    """Return a difference with its interval; it says how many pairs it has if that is not the usual number."""
    if difference is None:
        return "–"
    mean, *ends = (
        measure.text(value, "+") for value in (difference.mean, difference.low, difference.high) if value is not None
    )
    pairs = f"({difference.pairs} pair{'s' if difference.pairs > 1 else ''})"
    parts = (mean, ends and f"[{', '.join(ends)}]", difference.pairs not in (0, usual) and pairs)
    return " ".join(filter(None, parts))


def differences_in_words(usual: int) -> str:
    """Return what differences to a baseline are, most of which are over `usual` pairs."""
    interval = f", {100 * CONFIDENCE:.0f} % interval in brackets" if usual > 1 else ""
    return f"In points{f': mean over {usual} paired {_seeds(range(usual))}{interval}' if usual else ''}."


def _cell(measure, cell, usual):
    if isinstance(cell, Cell):
        return {**mean_texts(measure, cell.mean, cell.spread, len(cell.by_seed), usual), "value": cell.mean, "rank": 0}
    few = _lacking(cell, usual) if cell else ""
    main = "–" if cell is None else measure.text(cell.mean)
    text = " ".join(filter(None, (main, few)))
    return {"text": text, "main": main, "more": "", "few": few, "value": cell and cell.mean, "rank": 0}


def _lacking(cell, usual):
    """Return in words what a mean over several cells lacks: data sets, or seeds."""
    seeds = seed_sets(cell)
    counts = {len(own) for own in seeds}
    lacking = [f"{cell.present} of {cell.wanted} data sets"] if cell.present < cell.wanted else []
    if len(seeds) > 1:
        lacking.append("of different seeds")
    elif counts - {usual}:
        lacking.append(f"{min(counts)} {_seeds(range(min(counts)))}")
    return f"({', '.join(lacking)})" if lacking else ""


def _rank(rows, measure):
    """Mark the best and the second best of each column, as printed, among our rows of one data set and noise."""
    groups: dict[tuple, list[list[dict]]] = {}
    for key, cells in rows:
        if not key[-1].startswith(MARK):
            groups.setdefault(key[:-1], []).append(cells)
    for group in groups.values():
        for column in zip(*group, strict=True) if len(group) > 1 else ():
            known = [cell for cell in column if cell["value"] is not None]
            best = sorted({float(cell["main"]) for cell in known}, reverse=measure.higher_is_better)[:2]
            for cell in known if len(best) > 1 else ():
                cell["rank"] = best.index(float(cell["main"])) + 1 if float(cell["main"]) in best else 0


def _differences(table: Table, baseline: str) -> Iterator[Shown]:
    base = _baseline_rows(table, baseline)
    found = {
        key: [_difference(row.get(column), base[key].get(column)) for column in table.columns]
        for key, row in table.rows.items()
        if key in base and base[key] is not row
    }
    found = {key: differences for key, differences in found.items() if any(differences)}
    if not found:
        return
    usual = max((each.pairs for own in found.values() for each in own if each), default=0)
    rows = [
        (key, [{**_plain(difference_text(table.measure, each, usual)), "value": each and each.mean} for each in own])
        for key, own in found.items()
    ]
    title = f"{table.title}, difference to {baseline}"
    yield Shown(title, differences_in_words(usual), table.index, table.columns, rows)


def _plain(text: str) -> dict:
    return {"text": text, "main": text, "more": "", "few": "", "rank": 0}


def render(
    tables: list[Table], wanted_seeds: set[int], form: str = "github", baseline: str = "", missing: bool = False
) -> str:
    """Return the tables as text: github or latex for people, csv or json (unrounded) for programs.

    missing: list the wanted seeds that cells lack, in the formats for people.
    """
    if form in ("csv", "json"):
        return _for_programs([cell for table in tables for cell in cells_of(table, wanted_seeds, baseline)], form)
    texts = []
    for table in tables:
        texts += map(latex if form == "latex" else _github, shown(table, baseline))
        if missing and (lacking := missing_in(table, wanted_seeds)):
            texts.append(f"{'% ' if form == 'latex' else ''}Missing: {'; '.join(lacking)}")
    return "\n\n".join(texts)


def _github(table: Shown) -> str:
    rows = [[*key, *(cell["text"] for cell in cells)] for key, cells in table.rows]
    return f"{table.title}\n{table.caption}\n\n{markdown_table([*table.index, *table.columns], rows)}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in GitHub's Markdown, its texts unchanged."""
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _for_programs(cells, form):
    hidden = {"measure"} if len({cell["measure"] for cell in cells}) < 2 else set()
    entries = [{name: value for name, value in cell.items() if name not in hidden} for cell in cells]
    if form == "json":
        return json.dumps(entries, indent=1)
    fields = dict.fromkeys(name for entry in entries for name in entry)
    rows = ([_flat(entry.get(name, "")) for name in fields] for entry in entries)
    return csv_text(fields, rows).rstrip("\n") if entries else ""


def _flat(value):
    return " ".join(map(str, value)) if isinstance(value, list) else value
