"""Tables of results: noise, shots, base-to-new, transfer; every number has its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pandas as pd

from dspt_atlas.config.benchmarks import DOMAIN_VARIANTS
from dspt_atlas.datasets.noise import TYPES
from dspt_atlas.results.contents import UNKNOWN
from dspt_atlas.results.order import in_order
from dspt_atlas.results.record import DIGITS
from dspt_atlas.trainers.measures import ACCURACY, Measure

NOISE_ORDER = ("clean", *TYPES)
H_NOTE = (
    "H: harmonic mean of the mean on base and the mean on new classes, over the seeds and, in mean rows, the data sets"
)


@dataclass
class Cell:
    """A measure by seed, in percent, and the names of the backbones, as far as they are known."""

    by_seed: dict[int, float]
    backbones: frozenset[str] = frozenset()

    @property
    def mean(self) -> float:
        """Return the mean over the existing seeds."""
        return statistics.fmean(self.by_seed.values())

    @property
    def spread(self) -> float:
        """Return the population standard deviation over them."""
        return statistics.pstdev(self.by_seed.values())


@dataclass
class Mean:
    """A number from several cells: a harmonic mean, or a mean over `present` of `wanted` data sets.

    cells: those that it is made of, empty for published figures; function: what makes it of their means.
    """

    mean: float
    present: int = 1
    wanted: int = 1
    cells: tuple[Cell | Mean, ...] = ()
    function: Callable[[list[float]], float] = statistics.fmean


def over_common_seeds(cell: Cell | Mean, base: Cell | Mean) -> tuple[Cell | Mean, Cell | Mean] | None:
    """Return two numbers over the seeds that both have, in each of their cells; None if there are no such seeds."""
    if isinstance(cell, Cell) and isinstance(base, Cell):
        seeds = cell.by_seed.keys() & base.by_seed.keys()
        cell, base = (replace(one, by_seed={seed: one.by_seed[seed] for seed in seeds}) for one in (cell, base))
        return (cell, base) if seeds else None
    if not (isinstance(cell, Mean) and isinstance(base, Mean) and cell.cells and len(cell.cells) == len(base.cells)):
        return None
    common = [over_common_seeds(*both) for both in zip(cell.cells, base.cells, strict=True)]
    if not all(common):
        return None
    parts = zip(*filter(None, common), strict=True)
    cell, base = (
        replace(one, cells=own, mean=one.function([part.mean for part in own]))
        for one, own in zip((cell, base), parts, strict=True)
    )
    return cell, base


def seed_sets(cell: Cell | Mean) -> set[frozenset[int]]:
    """Return the seeds of each of the cells that a number is made of."""
    if isinstance(cell, Cell):
        return {frozenset(cell.by_seed)}
    return {seeds for part in cell.cells for seeds in seed_sets(part)}


@dataclass
class Table:
    """Rows of cells; a row's key is a tuple of as many texts as `index`.

    noises: {label: facts} of the training labels in names of rows or columns; note: for the table's head.
    """

    title: str
    index: tuple[str, ...]
    columns: list[str]
    rows: dict[tuple[str, ...], dict[str, Cell | Mean]]
    noises: dict[str, dict] = field(default_factory=dict)
    note: str = ""
    measure: Measure = ACCURACY


def build_tables(results: pd.DataFrame, measure: Measure = ACCURACY) -> list[Table]:
    """Return the tables of results: noise and shots by data set, base-to-new, transfer by source."""
    results = in_order(_by_function(results[results[measure.name].notna()], measure))
    is_moved = results["source"].notna() & (results["source"] != results["dataset"])
    plain = results[results["source"].isna() & (results["subsample"] == "all")]
    split = results[(results["subsample"] != "all") & ~is_moved]
    tables = [table for _, own in plain.groupby("dataset", sort=False) for table in _plain_tables(own, measure)]
    tables += [_base_new_table(own, shots, measure) for shots, own in split.groupby("shots")]
    for (source, shots, subsample), own in results[is_moved].groupby(["source", "shots", "subsample"]):
        at_home = plain[(plain["dataset"] == source) & (plain["shots"] == shots)]
        if subsample == "all":  # runs that learned nothing have no source, and are in the tables of every source
            is_beside = (plain["shots"] == shots) & plain["dataset"].isin(own["dataset"])
            untrained = plain[is_beside & ~plain["learns"].astype(bool) & (plain["noise"] == "clean")]
            own = pd.concat([untrained, own])
        tables += _transfer_tables(own, source, at_home if subsample == "all" else plain[:0], measure)
    return tables


def _by_function(results: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return results whose rows say how a measure was computed, if several functions of its name computed it."""
    functions = [known.get(measure.name, UNKNOWN)[:DIGITS] for known in results["functions"]]
    if len(set(functions)) < 2:
        return results
    heads = [f"{row[:-1]}, " if row.endswith("]") else f"{row} [" for row in results["row"]]
    words = [f"{head}{measure.name} {function}]" for head, function in zip(heads, functions, strict=True)]
    return results.assign(row=words)


def wanted_seeds(results: pd.DataFrame, more: Iterable[int] = ()) -> set[int]:
    """Return the seeds that every cell should have: the given seeds of all runs, and `more`."""
    return set(results["seed"][~results["is_drawn"].astype(bool)]).union(more)


def _plain_tables(own: pd.DataFrame, measure: Measure) -> list[Table]:
    """Return a data set's table of noise settings for each number of shots with noise, and its table of shots."""
    dataset = own["dataset"].iloc[0]
    tables, noisy_shots = [], sorted(set(own["shots"][own["noise"] != "clean"]))
    for shots in noisy_shots:
        some = own[own["shots"] == shots]
        tables.append(
            _table(f"{dataset}, {shots_in_words(shots)}, by training labels", some, some["noise"], _noise_key, measure)
        )
    clean = own[own["noise"] == "clean"]
    if set(clean["shots"]) - set(noisy_shots):
        tables.append(_table(f"{dataset}, by shots", clean, clean["shots"].map(shots_in_words), _shots_key, measure))
    return tables


def _table(title, own, columns, column_key, measure):
    rows = _cells(own, ["row"], columns, measure)
    return Table(title, ("method",), sorted(set(columns), key=column_key), rows, noises_of(own), measure=measure)


def _cells(own: pd.DataFrame, index: list[str], columns: pd.Series, measure: Measure) -> dict[tuple, dict]:
    """Return {row: {column: cell}} in the order of the results."""
    rows: dict[tuple, dict] = {}
    for (*key, column), cell in own.groupby([*index, columns.rename("column")], sort=False):
        by_seed = dict(zip(cell["seed"], cell[measure.name], strict=True))
        rows.setdefault(tuple(key), {})[column] = Cell(by_seed, frozenset(cell["backbone"]))
    return rows


def noises_of(own: pd.DataFrame) -> dict[str, dict]:
    """Return {label: its type, family and rate}; of rates that differ by seed, the mean."""
    found = own.drop_duplicates(["noise", "seed", "noise_rate"]).groupby("noise", sort=False)
    facts = found[["noise_type", "noise_family"]].first().to_dict("index")
    for label, rates in found["noise_rate"]:
        facts[label]["noise_rate"] = rates.iloc[0] if rates.nunique() == 1 else rates.mean()
    return facts


def shots_in_words(shots: int) -> str:
    """Return the number of training images per class in words."""
    return "all images" if shots < 1 else f"{shots} shot{'s' if shots > 1 else ''}"


def _shots_key(column: str) -> float:
    return math.inf if column == "all images" else int(column.split()[0])


def _noise_key(column: str) -> tuple:
    kind, _, rest = column.partition(" ")
    return NOISE_ORDER.index(kind) if kind in NOISE_ORDER else len(NOISE_ORDER), rest


def by_noise(own: pd.DataFrame, *before: str) -> pd.DataFrame:
    """Return results sorted by further columns and the noise, in their order otherwise."""
    return own.assign(order=own["noise"].map(_noise_key)).sort_values([*before, "order"], kind="stable")


def _base_new_table(own: pd.DataFrame, shots: int, measure: Measure) -> Table:
    """Return base, new and their harmonic mean H by data set, noise and method, and the means over the data sets."""
    own = by_noise(own, "dataset")
    rows = _cells(own, ["dataset", "noise", "row"], own["subsample"], measure)
    for row in rows.values():
        _add_harmonic_mean(row)
    datasets = list(dict.fromkeys(own["dataset"]))
    if len(datasets) > 1:
        for noise, method in dict.fromkeys(key[1:] for key in rows):
            found = [rows.get((dataset, noise, method), {}) for dataset in datasets]
            row = {column: _mean([entry.get(column) for entry in found], len(datasets)) for column in ("base", "new")}
            row = {column: mean for column, mean in row.items() if mean is not None}
            if all(("base" in entry) == ("new" in entry) for entry in found):
                _add_harmonic_mean(row)
            rows[f"mean of {len(datasets)} data sets", noise, method] = row
    title, index = f"Base to new, {shots_in_words(shots)}", ("data set", "noise", "method")
    return _without_clean(Table(title, index, ["base", "new", "H"], rows, noises_of(own), H_NOTE, measure))


def _without_clean(table: Table) -> Table:
    """Return a table with the noise in its rows, or without it if all labels are clean."""
    if set(table.noises) == {"clean"}:
        position = table.index.index("noise")
        table.index = (*table.index[:position], *table.index[position + 1 :])
        table.rows = {(*key[:position], *key[position + 1 :]): row for key, row in table.rows.items()}
    return table


def _add_harmonic_mean(row: dict) -> None:
    if "base" in row and "new" in row:
        cells = row["base"], row["new"]
        whole = [cell for cell in cells if isinstance(cell, Mean)] or [Mean(0)]
        mean = statistics.harmonic_mean([cell.mean for cell in cells])
        present = min(cell.present for cell in whole)
        row["H"] = Mean(mean, present, whole[0].wanted, cells, statistics.harmonic_mean)


def _mean(cells: list, wanted: int) -> Mean | None:
    found = tuple(cell for cell in cells if cell is not None)
    return Mean(statistics.fmean(cell.mean for cell in found), len(found), wanted, found) if found else None


def _transfer_tables(own: pd.DataFrame, source: str, at_home: pd.DataFrame, measure: Measure) -> list[Table]:
    """Return cross-dataset and domain generalisation from one source, if there are such targets."""
    name = next(iter(at_home["dataset_name"]), source.partition(" (")[0])
    is_variant = own["dataset_name"].isin(DOMAIN_VARIANTS.get(name, ()))
    tables = []
    for kind, moved in (("Cross-dataset", own[~is_variant]), ("Domain generalisation", own[is_variant])):
        if len(moved):
            settings = set(zip(moved["row"], moved["noise"], strict=True))
            is_wanted = [found in settings for found in zip(at_home["row"], at_home["noise"], strict=True)]
            subsample = own["subsample"].iloc[-1]
            classes = "" if subsample == "all" else f", {subsample} classes"
            title = f"{kind} from {source}, {shots_in_words(own['shots'].iloc[0])}{classes}"
            tables.append(_transfer_table(title, pd.concat([moved, at_home[is_wanted]]), source, measure))
    return tables


def _transfer_table(title: str, own: pd.DataFrame, source: str, measure: Measure) -> Table:
    own = by_noise(own)
    rows = _cells(own, ["noise", "row"], own["dataset"], measure)
    targets = sorted(set(own["dataset"]) - {source})
    all_targets = f"mean of {len(targets)} targets"
    for row in rows.values():
        if mean := _mean([row.get(target) for target in targets], len(targets)):
            row[all_targets] = mean
    columns = [source, *targets, *([all_targets] if len(targets) > 1 else [])]
    return _without_clean(Table(title, ("noise", "method"), columns, rows, noises_of(own), measure=measure))
