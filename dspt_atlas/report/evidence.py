"""The evidence run's tables: means over seeds, paired differences to baselines, and their origin."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dspt_atlas.errors import UserError
from dspt_atlas.paths import write_atomically
from dspt_atlas.plan.evidence import ABLATION, PROFILE, configurations, folders_of, part_names, plan, seeds_of
from dspt_atlas.report.figures import draw
from dspt_atlas.report.figures.curves import with_history
from dspt_atlas.report.photos import Selection, selections
from dspt_atlas.results.cells import csv_text
from dspt_atlas.results.order import row_key
from dspt_atlas.results.paired import paired_difference
from dspt_atlas.results.read import doubles_of, frame_of, read_rows
from dspt_atlas.results.render import (
    CONFIDENCE,
    backbones_in_words,
    difference_text,
    differences_in_words,
    markdown_table,
    mean_texts,
    means_in_words,
)
from dspt_atlas.results.tables import by_noise
from dspt_atlas.trainers.measures import ACCURACY

FIGURES = {  # by the kind and the label of their runs
    ("noisy", ""): ("noise_rate", "memorisation"),
    ("base2new", ""): ("base_new", "csl", "isl"),
    ("noisy", PROFILE): ("accuracy_by_epoch", "gradient_epochs", "prompt_gradient_epochs", "gradient_norm"),
}
H_PER_SEED = "H per seed"
OTHER_PARTS = ("learners", "photos")  # with tables of their own
LEARNERS_CE = "the same learner with cross-entropy"
TARGETS = ("Emoji", "EmojiObjects", "EmojiV2", "EmojiFlat", "EmojiInk")


@dataclass
class Grid:
    """A table: accuracies in percent by row, column and (seed, data set), and the rows to compare others with."""

    name: str
    title: str
    part: str
    baselines: tuple[str, ...]
    results: pd.DataFrame  # those in it, with their `column`

    def __post_init__(self):
        self.cells: dict[str, dict[str, dict[tuple[int, str], float]]] = {}
        for (row, column), own in self.results.groupby(["row", "column"], sort=False):
            by_place = zip(zip(own["seed"], own["dataset"], strict=True), own["accuracy"], strict=True)
            self.cells.setdefault(row, {})[column] = dict(by_place)
        methods = dict(zip(self.results["row"], self.results["method"], strict=True))
        learners = dict(zip(self.results["row"], self.results["learner"], strict=True))

        def rank(row):
            return (
                _ablation_rank(row) if self.name.startswith("ablation") else row_key(learners[row], methods[row], row)
            )

        self._own = {row: learners[row] for row in self.cells} if LEARNERS_CE in self.baselines else {}
        self.cells = dict(sorted(self.cells.items(), key=lambda item: rank(item[0])))
        self.wanted = tuple(sorted({*seeds_of(self.part), *self.results["seed"]}))

    def cells_of(self, baseline: str, row: str) -> dict[str, dict[tuple[int, str], float]]:
        """Return the cells that a row is compared with; LEARNERS_CE is the same prompt learner with cross-entropy."""
        return self.cells.get(self._own[row] if baseline == LEARNERS_CE else baseline, {})

    @property
    def columns(self) -> list[str]:
        """Return the columns in the order of their first appearance."""
        return list(dict.fromkeys(column for row in self.cells.values() for column in row))


def build_grids(rows: list[dict]) -> list[Grid]:
    """Return the tables of runs, without empty tables.

    rows: of `dspt_atlas.results.record.to_row`, with the `kind` of run and the `label` of an ablation or profile.
    """
    photos = [row for row in rows if row.get("part") == "photos"]
    rows = [row for row in rows if row.get("part") != "photos"]
    plain = [row for row in rows if not row["label"] and row.get("part") != "learners"]
    noisy = _named([row for row in plain if row["kind"] == "noisy"])
    grids, named = [_noise_grid(noisy)], [noisy]
    for learner in configurations():
        own = _named([row for row in plain if row["kind"] != "noisy" and _belongs(row, learner)])
        named.append(own)
        grids += [_base_new_grid(own, learner), _transfer_grid(own, learner), _fewshot_grid(own, learner)]
    grids.append(_learners_grid(_named([row for row in rows if row.get("is_of_learners")])))
    ablated = [row for row in rows if row["label"].startswith(ABLATION)]
    for stem in sorted({row["stem"] for row in ablated}):
        grids.append(_ablation_grid(stem, [row for row in ablated if row["stem"] == stem], pd.concat(named)))
    grids += map(_photo_grid, selections(photos))
    return [grid for grid in grids if grid.cells]


def _named(rows: list[dict]) -> pd.DataFrame:
    """Return runs with the labels of their rows, each experiment once; print the others."""
    results = frame_of(rows, "kind", "label")
    print(*(f"{line}\n" for line in doubles_of(results).values() if line), sep="", end="")
    return results[results["double_of"].isna()]


def _belongs(row: dict, learner: str) -> bool:
    if not row["learns"]:
        return row["config_name"].split("_ep")[0] == configurations()[learner].split("_ep")[0]
    return row["learner"] == learner


def _noise_grid(results: pd.DataFrame) -> Grid:
    results = by_noise(results).assign(column=lambda found: found["noise"])
    return Grid("noise", "Accuracy by training labels, CoOp, 16 shots", "noise", ("CoOp", "CoOpDSPT"), results)


def _base_new_grid(results: pd.DataFrame, learner: str) -> Grid:
    own = results[(results["kind"] == "base2new") & (results["subsample"] != "all")].sort_values(
        "subsample", kind="stable"
    )
    title, baselines = f"Base to new, {learner}, 16 shots", (learner, f"{learner}LS")
    grid = Grid(f"base_new_{learner}", title, "generalisation", baselines, own.assign(column=own["subsample"]))
    return _with_harmonic_means(grid)


def _with_harmonic_means(grid: Grid) -> Grid:
    """Add the harmonic mean of base and new of each seed, which can be paired; H of tables.py is that of the means."""
    for row in grid.cells.values():
        base, new = row.get("base", {}), row.get("new", {})
        if values := {key: statistics.harmonic_mean([base[key], new[key]]) for key in base if key in new}:
            row[H_PER_SEED] = values
    return grid


def _transfer_grid(results: pd.DataFrame, learner: str) -> Grid:
    title = f"Emoji to other data sets (EmojiObjects) and styles, {learner}, 16 shots"
    own = results[results["kind"].isin(["emoji", "evaluation"]) & results["dataset"].isin(TARGETS)]
    own = own.sort_values("dataset", key=lambda names: names.map(TARGETS.index), kind="stable")
    baselines = (learner, f"{learner}LS")
    grid = Grid(f"transfer_{learner}", title, "generalisation", baselines, own.assign(column=own["dataset"]))
    targets = [column for column in grid.columns if column != "Emoji"]
    for row in grid.cells.values():
        if pooled := {key: value for column in targets for key, value in row.get(column, {}).items()}:
            row[f"mean of {len(targets)} targets"] = pooled
    return grid


def _fewshot_grid(results: pd.DataFrame, learner: str) -> Grid:
    own = results[results["kind"].isin(["emoji", "fewshot"]) & results["learns"].astype(bool)]
    own = own.sort_values("shots", kind="stable")
    columns = [f"{shots} shot{'s' if shots > 1 else ''}" for shots in own["shots"]]
    own = own.assign(column=columns) if set(columns) - {"16 shots"} else own[:0].assign(column="")
    title, baselines = f"Accuracy by shots, {learner}", (learner, f"{learner}LS")
    return Grid(f"fewshot_{learner}", title, "generalisation", baselines, own)


def _learners_grid(results: pd.DataFrame) -> Grid:
    """Return all prompt learners with wrong labels, and on base and new classes."""
    own = results.sort_values("subsample", kind="stable")
    own = own.assign(column=own["noise"].where(own["subsample"] == "all", own["subsample"]))
    title = "Prompt learners by method, 16 shots: wrong labels, and base to new"
    return _with_harmonic_means(Grid("learners", title, "learners", (LEARNERS_CE,), own))


def _photo_grid(chosen: Selection) -> Grid:
    """Return a table of photographs; a row has one rate for each noise."""
    own = by_noise(_named(chosen.rows))
    own = own.sort_values("subsample", kind="stable") if chosen.is_base_new else own
    more = own.get("suffix", "")
    own = own.assign(row=own["stem"] + more, column=own["subsample" if chosen.is_base_new else "noise"])
    grid = Grid(chosen.name, chosen.title, "photos", chosen.baselines, own)
    return _with_harmonic_means(grid) if chosen.is_base_new else grid


def _ablation_grid(stem: str, ablated: list[dict], plain: pd.DataFrame) -> Grid:
    """Return a method's ablations with its own settings; differences of runs with one label are added to the label."""
    own = []
    for label in dict.fromkeys(row["label"] for row in ablated):
        named = _named([row for row in ablated if row["label"] == label])
        words = label.removeprefix(f"{ABLATION}_").replace("_", " ")
        own.append(named.assign(row=[words + row.removeprefix(stem) for row in named["row"]]))
    own = pd.concat(own)
    is_noisy = own["subsample"].iloc[0] == "all"
    kind, seeds = ("noisy", set(own["seed"])) if is_noisy else ("base2new", set(seeds_of("ablations")))
    is_default = (plain["kind"] == kind) & (plain["row"] == stem) & plain["seed"].isin(seeds)
    both = pd.concat([plain[is_default & plain["noise"].isin(own["noise"])], own])
    both["column"] = both["noise" if is_noisy else "subsample"]
    both = both[both["column"].isin(own["noise" if is_noisy else "subsample"])].sort_values("column", kind="stable")
    name = "".join(letter for letter in stem if letter.isalnum())
    return _with_harmonic_means(
        Grid(f"ablation_{name}", f"Other settings of {stem}, 16 shots", "ablations", (stem,), both)
    )


def _ablation_rank(row: str) -> tuple:
    """Put the method itself first, then each key's values in ascending order."""
    key, _, value = row.rpartition(" ")
    is_number = value.replace(".", "", 1).isdecimal()
    return not row[0].isupper(), key, float(value) if is_number else 0.0, value


def markdown(grid: Grid) -> str:
    """Return a table, the differences to its baselines and its origin, as markdown."""
    columns, usual = grid.columns, len(grid.wanted)
    rows = [[row, *(_text(cells.get(column), usual) for column in columns)] for row, cells in grid.cells.items()]
    parts = [f"## {grid.title}", markdown_table(["", *columns], rows)]
    for baseline in grid.baselines:
        found = {
            row: [_difference(cells.get(column, {}), base.get(column, {})) for column in columns]
            for row, cells in grid.cells.items()
            if (base := grid.cells_of(baseline, row)) and base is not cells
        }
        pairs = max((each.pairs for own in found.values() for each in own if each), default=0)
        rows = [[row, *(difference_text(ACCURACY, each, pairs) for each in own)] for row, own in found.items()]
        if rows:
            words = differences_in_words(pairs)
            parts += [f"Difference to {baseline}. {words}", markdown_table(["", *columns], rows)]
    return "\n\n".join([*parts, provenance(grid)])


def _text(cell: dict | None, usual: int) -> str:
    if not cell:
        return "–"
    mean, count = statistics.fmean(cell.values()), len({seed for seed, _ in cell})
    return mean_texts(ACCURACY, mean, _spread(cell), count, usual)["text"]


def _spread(cell: dict) -> float:
    """Return the population standard deviation over seeds of the mean over data sets."""
    return statistics.pstdev(_seed_means(cell).values())


def _seed_means(cell: dict) -> dict[int, float]:
    """Return each seed's mean over data sets."""
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in cell.items():
        by_seed.setdefault(seed, []).append(value)
    return {seed: statistics.fmean(values) for seed, values in by_seed.items()}


def _difference(cell: dict, base: dict):
    """Return the difference paired by seed; a seed has one mean over the data sets that both have."""
    both = [key for key in cell if key in base]
    return paired_difference(*(_seed_means({key: side[key] for key in both}) for side in (cell, base)), CONFIDENCE)


def provenance(grid: Grid) -> str:
    """Return what a table's cells are, and the command, commits, seeds and kinds of machine that it was made with."""
    commits = sorted(set(map(_short, grid.results["commit"])))
    machines, seeds = (sorted(set(grid.results[name])) for name in ("machine", "seed"))
    counts = {len({seed for seed, _ in cell}) for cells in grid.cells.values() for cell in cells.values() if cell}
    backbones = backbones_in_words((row, [name]) for row, name in grid.results[["row", "backbone"]].to_numpy())
    return (
        f"{means_in_words(ACCURACY.title, {*counts, len(grid.wanted)})} {backbones} "
        f"`dspt-atlas evidence --part {grid.part}`; commit {', '.join(commits)}; seeds {', '.join(map(str, seeds))}; "
        f"{' and '.join(machines)}."
    )


def _short(commit: str) -> str:
    commit, changes, _ = commit.partition("+")
    return f"{commit[:10]} with changes" if changes else commit[:10]


def to_csv(grids: list[Grid]) -> str:
    """Return tables unrounded: a line per table, row, column and baseline; a cell's first line has no baseline."""
    fields = "table row column mean std seeds missing_seeds baseline difference low high pairs"
    cells = ((grid, row, column) for grid in grids for row in grid.cells for column in grid.columns)
    return csv_text(fields.split(), (line for cell in cells for line in _lines(*cell)))


def _lines(grid: Grid, row: str, column: str):
    cell = grid.cells[row].get(column, {})
    seeds = sorted({seed for seed, _ in cell})
    missing = " ".join(map(str, sorted(set(grid.wanted) - set(seeds))))
    measures = (statistics.fmean(cell.values()), _spread(cell)) if cell else ("", "")
    head = [grid.name, row, column, *measures, " ".join(map(str, seeds)), missing]
    yield [*head, "", "", "", "", ""]
    for baseline in grid.baselines:
        base = grid.cells_of(baseline, row).get(column, {})
        if base is not cell and (difference := _difference(cell, base)):
            yield [*head, baseline, difference.mean, difference.low, difference.high, difference.pairs]


def write_evidence(docs: Path, runs: Path | None = None) -> list[Path]:
    """Write DOCS/tables.md, DOCS/tables.csv and DOCS/figures of the results in `runs` (DOCS/runs); return the files.

    Raises UserError if there are none, or if one cannot be read.
    """
    runs = docs / "runs" if runs is None else runs
    rows = read_rows([runs], with_history) if runs.is_dir() else []
    if not rows:
        raise UserError(f"No finished run in {runs}: dspt-atlas evidence puts them there.")
    part_of = _parts()
    rows = [{**row, **_kind_and_label(row["folder"].relative_to(runs), part_of)} for row in rows]
    rows = sorted(rows, key=lambda row: row["folder"].as_posix())
    grids = build_grids(rows)
    written = [docs / "tables.md", docs / "tables.csv"]
    parts = [
        "# Tables of the evidence run",
        progress({row["folder"].relative_to(runs).as_posix() for row in rows}),
        *map(markdown, grids),
    ]
    write_atomically(written[0], "\n\n".join(parts) + "\n")
    write_atomically(written[1], to_csv(grids))
    return written + _draw(rows, docs / "figures")


def _parts() -> dict[str, str]:
    """Return the part of each planned run by its folder."""
    return {job.folder.relative_to("output").as_posix(): part for part, job in plan(Path("output"))}


def progress(kept: Container[str]) -> str:
    """Return in a sentence how many planned runs are among the kept folders, and how many are left of each part."""
    planned = _parts()
    left = Counter(part for folder, part in planned.items() if folder not in kept)
    by_part = ", ".join(f"{part} {left[part]}" for part in part_names() if left[part])
    words = f"{len(planned) - left.total():,} of {len(planned):,} planned runs are kept"
    return f"{words}; left: {by_part}." if by_part else f"{words}."


def _draw(rows: list[dict], out: Path) -> list[Path]:
    """Draw the figures for which there are runs, without ablations."""
    written = []
    for names, runs in figure_runs(rows):
        for name in names:
            try:
                written += draw(name, runs, out)
            except UserError as error:
                print(f"No figure {name}: {error}")
    return written


def figure_runs(rows: list[dict]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Yield (names of figures, their runs). One line per method of photographs, whatever rate validation chose."""
    for (kind, label), names in FIGURES.items():
        if own := [
            row for row in rows if (row["kind"], row["label"]) == (kind, label) and row.get("part") not in OTHER_PARTS
        ]:
            yield names, _named(own)
    photos = selections([row for row in rows if row.get("part") == "photos"])
    for chosen in photos:
        if chosen.name == "photos_noise_own_rate":
            yield (
                ("noise_rate", "memorisation", "accuracy_by_epoch"),
                _named(chosen.rows).assign(row=lambda own: own["stem"]),
            )
    if own := [row for row in rows if row.get("is_of_learners")]:
        yield ("learners",), _named(own)


def _kind_and_label(folder: Path, part_of: dict[str, str]) -> dict:
    """Return what a result's folder says: its protocol, the label of its ablation or profile or "", and its part."""
    label = next(
        (part[part.index(mark) :] for part in folder.parts for mark in (ABLATION, PROFILE) if mark in part), ""
    )
    place = folder.as_posix()
    is_of_learners = place in folders_of("learners")
    return {"kind": folder.parts[0], "label": label, "part": part_of.get(place), "is_of_learners": is_of_learners}
