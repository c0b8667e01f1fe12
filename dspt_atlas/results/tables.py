"""Tables of results: noise, shots, base-to-new, transfer; every number with the seeds that it stands on."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tabulate import tabulate

from dspt_atlas.config.benchmarks import DOMAIN_VARIANTS
from dspt_atlas.results.cells import csv_text
from dspt_atlas.results.read import Record

NOISE_ORDER = ("clean", "sym", "asym", "symflip", "pairflip")
H_NOTE = (
    "H: harmonic mean of the mean on base and the mean on new classes, over the seeds and, in mean rows, the data sets"
)


@dataclass
class Cell:
    """A measure by seed, in percent."""

    by_seed: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Return the mean over the seeds that are there."""
        return statistics.fmean(self.by_seed.values())

    @property
    def spread(self) -> float:
        """Return the population standard deviation; NaN if a value is none, as the macro-F1 of some logs."""
        return statistics.pstdev(self.by_seed.values()) if math.isfinite(self.mean) else math.nan


@dataclass
class Mean:
    """A number made of several cells: a harmonic mean, or a mean over `present` of `wanted` data sets."""

    mean: float
    present: int = 1
    wanted: int = 1


@dataclass
class Table:
    """Rows of cells; a row's key is a tuple of as many texts as `index`.

    noises: {label: (type, rate)} of the training labels that rows or columns are named by; note: for the table's head.
    """

    title: str
    index: tuple[str, ...]
    columns: list[str]
    rows: dict[tuple[str, ...], dict[str, Cell | Mean]]
    noises: dict[str, tuple[str, float]] = field(default_factory=dict)
    note: str = ""


def build_tables(records: list[Record], measure: str = "accuracy") -> list[Table]:
    """Return the tables that the records give: noise and shots by data set, base-to-new, transfer by source."""
    records = sorted(records, key=lambda record: (not record.method.startswith("Zeroshot"), record.method))
    plain = [record for record in records if record.source is None and record.subsample == "all"]
    split = [record for record in records if record.subsample != "all" and record.source in (None, record.dataset)]
    moved = [record for record in records if record.source not in (None, record.dataset)]
    untrained = [record for record in plain if record.method.startswith("Zeroshot") and record.noise == "clean"]
    tables = [
        table
        for dataset in _unique(record.dataset for record in plain)
        for table in _plain_tables(plain, dataset, measure)
    ]
    tables += [_base_new_table(split, shots, measure) for shots in sorted({record.shots for record in split})]
    for source, shots, subsample in sorted({(record.source, record.shots, record.subsample) for record in moved}):
        own = [
            record for record in moved if (record.source, record.shots, record.subsample) == (source, shots, subsample)
        ]
        at_home = [record for record in plain if (record.dataset, record.shots) == (source, shots)]
        if subsample == "all":  # what learned nothing has no source, and stands beside those of every source
            targets = {record.dataset for record in own}
            own = [record for record in untrained if record.shots == shots and record.dataset in targets] + own
        tables += _transfer_tables(own, at_home if subsample == "all" else [], measure)
    return tables


def wanted_seeds(records: list[Record], more: Iterable[int] = ()) -> set[int]:
    """Return the seeds that every cell should have: those that somebody gave, of any run, and `more`."""
    return {record.seed for record in records if not record.is_drawn}.union(more)


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def _plain_tables(records: list[Record], dataset: str, measure: str) -> list[Table]:
    """Return a data set's table of noise settings for each number of shots with noise, and its table of shots."""
    own = [record for record in records if record.dataset == dataset]
    noisy_shots = sorted({record.shots for record in own if record.noise != "clean"})
    tables = [
        _table(
            f"{dataset}, {_shots(shots)}, by training labels",
            [record for record in own if record.shots == shots],
            lambda record: record.noise,
            _noise_key,
            measure,
        )
        for shots in noisy_shots
    ]
    clean = [record for record in own if record.noise == "clean"]
    if {record.shots for record in clean} - set(noisy_shots):
        tables.append(_table(f"{dataset}, by shots", clean, lambda record: _shots(record.shots), _shots_key, measure))
    return tables


def _table(title: str, records: list[Record], column_of: Callable, column_key: Callable, measure: str) -> Table:
    rows = {}
    for record in records:
        cell = rows.setdefault((record.method,), {}).setdefault(column_of(record), Cell())
        cell.by_seed[record.seed] = record.values[measure]
    columns = sorted({column for row in rows.values() for column in row}, key=column_key)
    return Table(title, ("method",), columns, rows, _noises(records))


def _noises(records):
    return {record.noise: (record.noise_type, record.noise_rate) for record in records}


def _shots(shots: int) -> str:
    return "all images" if shots < 1 else f"{shots} shot{'s' if shots > 1 else ''}"


def _shots_key(column: str) -> float:
    return math.inf if column == "all images" else int(column.split()[0])


def _noise_key(column: str) -> tuple:
    kind, _, rest = column.partition(" ")
    return NOISE_ORDER.index(kind) if kind in NOISE_ORDER else len(NOISE_ORDER), rest


def _base_new_table(records: list[Record], shots: int, measure: str) -> Table:
    """Return base, new and their harmonic mean H by data set, noise and method, and the means over the data sets."""
    rows = {}
    records = sorted(
        (record for record in records if record.shots == shots), key=lambda r: (r.dataset, _noise_key(r.noise))
    )
    for record in records:
        cell = rows.setdefault((record.dataset, record.noise, record.method), {}).setdefault(record.subsample, Cell())
        cell.by_seed[record.seed] = record.values[measure]
    for row in rows.values():
        _add_harmonic_mean(row)
    datasets = _unique(dataset for dataset, _, _ in rows)
    if len(datasets) > 1:
        for noise, method in _unique(key[1:] for key in rows):
            found = [rows.get((dataset, noise, method), {}) for dataset in datasets]
            row = {column: _mean([entry.get(column) for entry in found], len(datasets)) for column in ("base", "new")}
            row = {column: mean for column, mean in row.items() if mean is not None}
            if all(("base" in entry) == ("new" in entry) for entry in found):
                _add_harmonic_mean(row)
            rows["mean" if "mean" not in datasets else "mean of data sets", noise, method] = row
    table = Table(f"Base to new, {_shots(shots)}", ("data set", "noise", "method"), ["base", "new", "H"], rows)
    return _without_clean(table, records, H_NOTE)


def _without_clean(table: Table, records: list[Record], note: str = "") -> Table:
    """Return a table whose rows tell the noise, without this part of the key where all labels are clean."""
    table.noises, table.note = _noises(records), note
    if set(table.noises) == {"clean"}:
        position = table.index.index("noise")
        table.index = (*table.index[:position], *table.index[position + 1 :])
        table.rows = {(*key[:position], *key[position + 1 :]): row for key, row in table.rows.items()}
    return table


def _add_harmonic_mean(row: dict) -> None:
    if "base" in row and "new" in row:
        base, new = row["base"].mean, row["new"].mean
        whole = [cell for cell in row.values() if isinstance(cell, Mean)] or [Mean(0)]
        row["H"] = Mean(statistics.harmonic_mean([base, new]), min(cell.present for cell in whole), whole[0].wanted)


def _mean(cells: list, wanted: int) -> Mean | None:
    means = [cell.mean for cell in cells if cell is not None]
    return Mean(statistics.fmean(means), len(means), wanted) if means else None


def _transfer_tables(records: list[Record], at_home: list[Record], measure: str) -> list[Table]:
    """Return cross-dataset and domain generalisation from the records' one source, as far as there are targets."""
    first = next(record for record in records if record.source is not None)
    source = next((record.dataset_name for record in at_home), first.source.partition(" (")[0])
    variants = DOMAIN_VARIANTS.get(source, ())
    tables = []
    for title, is_wanted in (("Cross-dataset", False), ("Domain generalisation", True)):
        moved = [record for record in records if ((record.dataset_name or record.dataset) in variants) == is_wanted]
        if moved:
            settings = {(record.method, record.noise) for record in moved}
            own = [record for record in at_home if (record.method, record.noise) in settings]
            classes = "" if first.subsample == "all" else f", {first.subsample} classes"
            title = f"{title} from {first.source}, {_shots(first.shots)}{classes}"
            tables.append(_transfer_table(title, moved + own, first.source, measure))
    return tables


def _transfer_table(title: str, records: list[Record], source: str, measure: str) -> Table:
    rows = {}
    for record in sorted(records, key=lambda record: _noise_key(record.noise)):
        cell = rows.setdefault((record.noise, record.method), {}).setdefault(record.dataset, Cell())
        cell.by_seed[record.seed] = record.values[measure]
    targets = sorted({record.dataset for record in records if record.dataset != source})
    for row in rows.values():
        if mean := _mean([row.get(target) for target in targets], len(targets)):
            row["mean of targets"] = mean
    columns = [source, *targets, *(["mean of targets"] if len(targets) > 1 else [])]
    return _without_clean(Table(title, ("noise", "method"), columns, rows), records)


def render(tables: list[Table], wanted_seeds: set[int], form: str = "github", baseline: str = "") -> str:
    """Return the tables as text: github or latex for people, csv or json (unrounded) for programs."""
    if form in ("csv", "json"):
        entries = list(_entries(tables, wanted_seeds, baseline))
        return json.dumps(entries, indent=1) if form == "json" else _csv(entries)
    texts = []
    for table in tables:
        base = baseline_rows(table, baseline)
        lines = [
            [
                *key,
                *(
                    cell_text(row.get(column), wanted_seeds, base.get(key[:-1], {}).get(column))
                    for column in table.columns
                ),
            ]
            for key, row in table.rows.items()
        ]
        head = f"{table.title}\n{table.note}".strip()
        texts.append(
            f"{head}\n\n{tabulate(lines, [*table.index, *table.columns], tablefmt=form, disable_numparse=True)}"
        )
        if missing := list(missing_cells(table, wanted_seeds)):
            texts.append("Missing: " + "; ".join(missing))
    return "\n\n".join(texts)


def baseline_rows(table: Table, baseline: str) -> dict:
    """Return the baseline's rows by the part of their key before the method."""
    return {key[:-1]: row for key, row in table.rows.items() if baseline and key[-1] == baseline}


def cell_text(cell: Cell | Mean | None, wanted_seeds: set[int], base: Cell | Mean | None) -> str:
    """Return a cell as people read it: mean ± spread (seeds present/wanted), difference to a baseline's cell."""
    if cell is None:
        return "–"
    if isinstance(cell, Cell):
        text = f"{cell.mean:.1f} ± {cell.spread:.1f} ({len(cell.by_seed)}/{len(wanted_seeds | cell.by_seed.keys())})"
    else:
        text = f"{cell.mean:.1f}" + (f" ({cell.present}/{cell.wanted} data sets)" if cell.present < cell.wanted else "")
    difference = _difference(cell, base)
    return text if difference is None or base is cell else f"{text} {difference:+.1f}"


def _difference(cell: Cell | Mean, base: Cell | Mean | None) -> float | None:
    """Return the difference to a baseline over the seeds that both have; None without any, or without some data set."""
    if isinstance(base, Cell) and isinstance(cell, Cell):
        common = cell.by_seed.keys() & base.by_seed.keys()
        return statistics.fmean(cell.by_seed[seed] - base.by_seed[seed] for seed in common) if common else None
    is_whole = isinstance(base, Mean) and isinstance(cell, Mean) and cell.present == base.present == cell.wanted
    return cell.mean - base.mean if is_whole else None


def missing_cells(table: Table, wanted_seeds: set[int]) -> Iterable[str]:
    """Yield a line for each cell that lacks wanted seeds."""
    for key, row in table.rows.items():
        for column in table.columns:
            cell = row.get(column)
            if isinstance(cell, Cell) and (seeds := sorted(wanted_seeds - cell.by_seed.keys())):
                yield f"{' '.join(key)}, {column}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _entries(tables: list[Table], wanted_seeds: set[int], baseline: str) -> Iterable[dict]:
    for table in tables:
        base = baseline_rows(table, baseline)
        for key, row in table.rows.items():
            for column in table.columns:
                cell = row.get(column)
                by_seed = cell.by_seed if isinstance(cell, Cell) else {}
                yield {
                    "table": table.title,
                    **dict(zip(table.index, key, strict=True)),
                    **_noise_of(table, key, column),
                    "column": column,
                    "mean": None if cell is None else cell.mean,
                    "std": cell.spread if by_seed else None,
                    "seeds": sorted(by_seed),
                    "missing_seeds": sorted(wanted_seeds - by_seed.keys()) if not isinstance(cell, Mean) else [],
                    "difference": None if cell is None else _difference(cell, base.get(key[:-1], {}).get(column)),
                }


def _noise_of(table: Table, key: tuple, column: str) -> dict:
    """Return type and rate of the noise that a row or a column is named by; in other tables all labels are clean."""
    own = table.noises.get(key[table.index.index("noise")] if "noise" in table.index else column)
    kind, rate = own or (("none", 0.0) if table.noises else (None, None))
    return {"noise_type": kind, "noise_rate": rate}


def _csv(entries: list[dict]) -> str:
    if not entries:
        return ""
    fields = _unique(name for entry in entries for name in entry)
    rows = ([_cell(entry.get(name, "")) for name in fields] for entry in entries)
    return csv_text(fields, rows).rstrip("\n")


def _cell(value):
    return " ".join(map(str, value)) if isinstance(value, list) else value
