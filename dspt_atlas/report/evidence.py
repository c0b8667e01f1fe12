"""The evidence run's tables: means over seeds, paired differences to baselines, and on what they were made."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from dspt_atlas.errors import UserError
from dspt_atlas.paths import write_atomically
from dspt_atlas.plan.evidence import ABLATION, PARTS, PROFILE, SHORT, plan, seeds_of
from dspt_atlas.report.figures import draw
from dspt_atlas.results.archive import read_archives
from dspt_atlas.results.cells import csv_text
from dspt_atlas.results.paired import paired_difference
from dspt_atlas.results.read import Record, checked_record
from dspt_atlas.results.rows import name_rows
from dspt_atlas.results.tables import NOISE_ORDER
from dspt_atlas.trainers.registry import pair_of

CONFIDENCE = 0.95
FIGURES = {  # by the kind and the label of the runs that they are drawn from
    ("noisy", ""): ("noise_rate", "memorisation"),
    ("base2new", ""): ("base_new", "csl", "isl"),
    ("noisy", PROFILE): ("accuracy_by_epoch", "gradient_epochs", "prompt_gradient_epochs", "gradient_norm"),
}
H_PER_SEED = "H per seed"
ORDER = ("ZeroshotCLIP", "", "LS", "TFKD", "OLS", "ATLaS", "GCE", "MAE", "NLPrompt", "JoAPR", "DSPT")


@dataclass
class Grid:
    """A table: accuracies in percent by row, column and (seed, data set), and the rows to compare others with."""

    name: str
    title: str
    part: str
    baselines: tuple[str, ...]
    cells: dict[str, dict[str, dict[tuple[int, str], float]]] = field(default_factory=dict)
    made_on: set[tuple] = field(default_factory=set)  # commit and machine of each run
    wanted: tuple[int, ...] = ()

    def add(self, row: str, column: str, record: Record) -> None:
        """Put a run into a cell."""
        self.cells.setdefault(row, {}).setdefault(column, {})[record.seed, record.dataset] = record.values["accuracy"]
        self.made_on.add((record.commit, record.machine))

    @property
    def columns(self) -> list[str]:
        """Return the columns in the order in which they came."""
        return list(dict.fromkeys(column for row in self.cells.values() for column in row))


def build_grids(records: list[tuple[str, str, Record]]) -> list[Grid]:
    """Return the tables that runs give, those without runs left out; records: (kind of run, label, run)."""
    noisy = _named([(kind, record) for kind, label, record in records if not label and kind == "noisy"])
    grids, plain = [_noise_grid([record for _, record in noisy])], noisy
    for learner in SHORT:
        own = [(kind, record) for kind, label, record in records if not label and _belongs(record, learner)]
        own = _named([(kind, record) for kind, record in own if kind != "noisy"])
        plain += own
        grids += [_base_new_grid(own, learner), _transfer_grid(own, learner), _fewshot_grid(own, learner)]
    ablated = [(label, record) for _, label, record in records if label.startswith(ABLATION)]
    for method in sorted({record.method for _, record in ablated}):
        grids.append(_ablation_grid(method, ablated, plain))
    for grid in grids:
        _sort_and_complete(grid)
    return [grid for grid in grids if grid.cells]


def _named(runs: list[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """Return (kind of run or label, run) with the labels of rows, each experiment once; others are said."""
    kinds = {record.folder: kind for kind, record in runs}
    records, doubles = name_rows([record for _, record in runs])
    print(*filter(None, doubles.values()), sep="\n", end="\n" if any(doubles.values()) else "")
    return [(kinds[record.folder], record) for record in records]


def _belongs(record: Record, learner: str) -> bool:
    if record.method.startswith("Zeroshot"):
        return record.config_name.split("_ep")[0] == SHORT[learner].split("_ep")[0]
    return pair_of(record.method).learner == learner


def _noise_grid(records: list[Record]) -> Grid:
    grid = Grid("noise", "Accuracy by training labels, CoOp, 16 shots", "noise", ("CoOp", "CoOpDSPT"))
    for record in sorted(records, key=lambda record: (NOISE_ORDER.index(record.noise.split()[0]), record.noise)):
        grid.add(record.method, record.noise, record)
    return grid


def _base_new_grid(runs: list[tuple[str, Record]], learner: str) -> Grid:
    grid = Grid(f"base_new_{learner}", f"Base to new, {learner}, 16 shots", "generalisation", (learner, f"{learner}LS"))
    for column in ("base", "new"):
        for kind, record in runs:
            if kind == "base2new" and record.subsample == column:
                grid.add(record.method, column, record)
    _add_harmonic_means(grid)
    return grid


def _add_harmonic_means(grid: Grid) -> None:
    """Add the harmonic mean of base and new of each seed, which can be paired; H of tables.py is that of the means."""
    for row in grid.cells.values():
        base, new = row.get("base", {}), row.get("new", {})
        if values := {key: statistics.harmonic_mean([base[key], new[key]]) for key in base if key in new}:
            row[H_PER_SEED] = values


def _transfer_grid(runs: list[tuple[str, Record]], learner: str) -> Grid:
    title = f"Emoji to other data sets (EmojiObjects) and styles, {learner}, 16 shots"
    grid = Grid(f"transfer_{learner}", title, "generalisation", (learner, f"{learner}LS"))
    for column in ("Emoji", "EmojiObjects", "EmojiV2", "EmojiFlat", "EmojiInk"):
        for kind, record in runs:
            if kind in ("emoji", "evaluation") and record.dataset == column:
                grid.add(record.method, column, record)
    for row in grid.cells.values():
        if pooled := {key: value for column in row if column != "Emoji" for key, value in row[column].items()}:
            row["all targets"] = pooled
    return grid


def _fewshot_grid(runs: list[tuple[str, Record]], learner: str) -> Grid:
    grid = Grid(f"fewshot_{learner}", f"Accuracy by shots, {learner}", "generalisation", (learner, f"{learner}LS"))
    for kind, record in sorted(runs, key=lambda run: run[1].shots):
        if kind in ("emoji", "fewshot") and not record.method.startswith("Zeroshot"):
            grid.add(record.method, f"{record.shots} shot{'s' if record.shots > 1 else ''}", record)
    if set(grid.columns) <= {"16 shots"}:
        grid.cells.clear()
    return grid


def _ablation_grid(method: str, ablated: list[tuple[str, Record]], plain: list[tuple[str, Record]]) -> Grid:
    """Return a method's ablations beside its own settings."""
    own = _of_labels([(label, record) for label, record in ablated if record.method == method])
    is_noisy = own[0][1].subsample == "all"
    kind, seeds = (
        ("noisy", {record.seed for _, record in own}) if is_noisy else ("base2new", set(seeds_of("ablations")))
    )
    defaults = [
        (method, record) for k, record in plain if (k, record.method) == (kind, method) and record.seed in seeds
    ]
    name = "".join(letter for letter in method if letter.isalnum())
    grid = Grid(f"ablation_{name}", f"Other settings of {method}, 16 shots", "ablations", (method,))
    settings = {record.noise for _, record in own}
    for column in sorted({record.subsample if not is_noisy else record.noise for _, record in own}):
        for row, record in [*defaults, *own]:
            if column == (record.noise if is_noisy else record.subsample) and record.noise in settings:
                grid.add(row.removeprefix(f"{ABLATION}_").replace("_", " "), column, record)
    _add_harmonic_means(grid)
    return grid


def _of_labels(ablated: list[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """Return (row's name, run) of labelled runs: what runs of one label differ by is added to the label."""
    rows = []
    for wanted in dict.fromkeys(label for label, _ in ablated):
        own = [(label, record) for label, record in ablated if label == wanted]
        method = own[0][1].method
        rows += [(label + record.method.removeprefix(method), record) for label, record in _named(own)]
    return rows


def _sort_and_complete(grid: Grid) -> None:
    """Sort the rows and note the seeds that should be there: the part's own, and all that are found."""
    rank = _ablation_rank if grid.name.startswith("ablation") else _rank
    grid.cells = dict(sorted(grid.cells.items(), key=lambda item: rank(item[0])))
    found = {seed for row in grid.cells.values() for cell in row.values() for seed, _ in cell}
    grid.wanted = tuple(sorted({*seeds_of(grid.part), *found}))


def _rank(method: str) -> tuple:
    if method in ORDER:
        return ORDER.index(method), method
    suffix = method.split(" ")[0].removeprefix(pair_of(method).learner)
    return ORDER.index(suffix) if suffix in ORDER else len(ORDER), method


def _ablation_rank(row: str) -> tuple:
    """Put the method itself first, then each key's values in ascending order."""
    key, _, value = row.rpartition(" ")
    is_number = value.replace(".", "", 1).isdecimal()
    return not row[0].isupper(), key, float(value) if is_number else 0.0, value


def markdown(grid: Grid) -> str:
    """Return a table, the differences to its baselines and what it was made on, as markdown."""
    columns, wanted = grid.columns, len(grid.wanted)
    rows = [[row, *(_text(cells.get(column), wanted) for column in columns)] for row, cells in grid.cells.items()]
    parts = [f"## {grid.title}", _table(["", *columns], rows)]
    for baseline in grid.baselines:
        if baseline in grid.cells:
            base = grid.cells[baseline]
            rows = [
                [row, *(_difference_text(cells.get(column), base.get(column)) for column in columns)]
                for row, cells in grid.cells.items()
                if row != baseline
            ]
            title = f"Difference to {baseline}, paired by seed, {CONFIDENCE:.0%} interval:"
            parts += [title, _table(["", *columns], rows)]
    if missing := list(_missing(grid)):
        parts.append("Missing: " + "; ".join(missing))
    return "\n\n".join([*parts, provenance(grid)])


def _table(header: list[str], rows: list[list[str]]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _text(cell: dict | None, wanted: int) -> str:
    if not cell:
        return "–"
    seeds = len({seed for seed, _ in cell})
    return f"{statistics.fmean(cell.values()):.1f} ± {_spread(cell):.1f} ({seeds}/{wanted})"


def _spread(cell: dict) -> float:
    """Return the population standard deviation over seeds of the mean over data sets."""
    return statistics.pstdev(_seed_means(cell).values())


def _seed_means(cell: dict) -> dict[int, float]:
    """Return each seed's mean over data sets."""
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in cell.items():
        by_seed.setdefault(seed, []).append(value)
    return {seed: statistics.fmean(values) for seed, values in by_seed.items()}


def _difference_text(cell: dict | None, base: dict | None) -> str:
    difference = _difference(cell or {}, base or {})
    if difference is None:
        return "–"
    if difference.low is None:
        return f"{difference.mean:+.1f} (1 pair)"
    return f"{difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"


def _difference(cell: dict, base: dict):
    """Return the difference paired by seed; of several data sets a seed has one mean, over those that both have."""
    both = [key for key in cell if key in base]
    return paired_difference(*(_seed_means({key: side[key] for key in both}) for side in (cell, base)), CONFIDENCE)


def _missing(grid: Grid):
    for row, cells in grid.cells.items():
        for column in grid.columns:
            if seeds := sorted(set(grid.wanted) - {seed for seed, _ in cells.get(column, {})}):
                yield f"{row}, {column}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def provenance(grid: Grid) -> str:
    """Return the command, commits, seeds and kinds of machine that a table was made with."""
    commits = sorted({_short(commit) for commit, _ in grid.made_on})
    machines = sorted({machine for _, machine in grid.made_on})
    seeds = sorted({seed for row in grid.cells.values() for cell in row.values() for seed, _ in cell})
    command = f"`bash scripts/evidence.sh --part {grid.part}`"
    return (
        f"{command}; commit {', '.join(commits)}; seeds {', '.join(map(str, seeds))}; {' and '.join(machines)}. "
        "Accuracy in percent, mean ± population standard deviation (seeds present/wanted)."
    )


def _short(commit: str) -> str:
    commit, changes, _ = commit.partition("+")
    return f"{commit[:10]} with changes" if changes else commit[:10]


def to_csv(grid: Grid) -> str:
    """Return a table unrounded: a line a row, column and baseline; the first of a cell has no baseline."""
    fields = "row column mean std seeds missing_seeds baseline difference low high pairs"
    cells = ((row, column, grid.cells[row].get(column, {})) for row in grid.cells for column in grid.columns)
    return csv_text(fields.split(), (line for cell in cells for line in _lines(grid, *cell)))


def _lines(grid: Grid, row: str, column: str, cell: dict):
    seeds = sorted({seed for seed, _ in cell})
    missing = " ".join(map(str, sorted(set(grid.wanted) - set(seeds))))
    measures = (statistics.fmean(cell.values()), _spread(cell)) if cell else ("", "")
    head = [row, column, *measures, " ".join(map(str, seeds)), missing]
    yield [*head, "", "", "", "", ""]
    for baseline in grid.baselines:
        base = grid.cells.get(baseline, {}).get(column, {})
        if baseline != row and (difference := _difference(cell, base)):
            yield [*head, baseline, difference.mean, difference.low, difference.high, difference.pairs]


def write_evidence(docs: Path, runs: Path | None = None) -> list[Path]:
    """Write DOCS/tables.md, DOCS/tables/*.csv and DOCS/figures of the results in `runs` (DOCS/runs); return the files.

    Raises UserError where there are none, or one cannot be read.
    """
    runs = docs / "runs" if runs is None else runs
    results = dict(sorted(read_archives(runs).items()))
    if not results:
        raise UserError(f"No finished run in {runs}: bash scripts/evidence.sh puts them there.")
    kept = [(checked_record(result, runs / folder), result) for folder, result in results.items()]
    labelled = [(*_kind_and_label(folder), record) for folder, (record, _) in zip(results, kept, strict=True)]
    grids = build_grids(labelled)
    written = [docs / "tables.md"]
    parts = ["# Tables of the evidence run", progress(results.keys()), *map(markdown, grids)]
    write_atomically(written[0], "\n\n".join(parts) + "\n")
    for grid in grids:
        written.append(docs / "tables" / f"{grid.name}.csv")
        write_atomically(written[-1], to_csv(grid))
    return written + _draw(dict(zip(results, kept, strict=True)), docs / "figures")


def progress(kept: Container[str]) -> str:
    """Return in a sentence how many planned runs are among the kept folders, and how many are left of each part."""
    planned = [(part, job.folder.relative_to("output").as_posix()) for part, job in plan(Path("output"))]
    left = Counter(part for part, folder in planned if folder not in kept)
    parts = ", ".join(f"{part} {left[part]}" for part in PARTS if left[part])
    words = f"{len(planned) - left.total():,} of {len(planned):,} planned runs are kept"
    return f"{words}; left: {parts}." if parts else f"{words}."


def _draw(kept: dict[str, tuple[Record, dict]], out: Path) -> list[Path]:
    """Draw the figures for which there are runs; ablations are in none."""
    written = []
    for wanted, names in FIGURES.items():
        own = [run for folder, run in kept.items() if _kind_and_label(folder) == wanted]
        results = {record.folder: result for record, result in own}
        runs = [(record, results[record.folder]) for record in name_rows([record for record, _ in own])[0]]
        for name in names if runs else ():
            try:
                written += draw(name, runs, out)
            except UserError as error:
                print(f"No figure {name}: {error}")
    return written


def _kind_and_label(folder: str) -> tuple[str, str]:
    """Return the first folder of a result, which names the protocol, and the label of its ablation or profile or ""."""
    parts = Path(folder).parts
    label = next((part[part.index(mark) :] for part in parts for mark in (ABLATION, PROFILE) if mark in part), "")
    return parts[0], label
