"""Finished runs below folders as one data frame: from result.json, archives, and logs of family repositories."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home, file_state
from dspt_atlas.results.archive import ARCHIVE, read_archive
from dspt_atlas.results.family_logs import read_family_log
from dspt_atlas.results.record import COLUMNS, to_row
from dspt_atlas.results.rows import name_rows
from dspt_atlas.run.files import find_runs
from dspt_atlas.run.records import CONFIG_FILE, RESULT_FILE, SCHEMA_VERSION, read_json
from dspt_atlas.run.state import read_state


@dataclass(frozen=True)
class Loaded:
    """All results below folders, a row per result and a column per fact, and a line for each folder that is left out.

    `row` is the label of a result's row in tables (docs/results.md). Where `double_of` is not missing, another result,
    at that place of the index, holds the same experiment; the folder's line is "" if the accuracy is the same.
    """

    results: pd.DataFrame
    problems: dict[Path, str]

    @property
    def frame(self) -> pd.DataFrame:
        """Return the results that count: each experiment once."""
        return self.results[self.results["double_of"].isna()]

    @property
    def lines(self) -> list[str]:
        """Return the lines about the folders that do not count."""
        return [line for line in self.problems.values() if line]


def load(
    roots: list[Path],
    also: Callable[[dict, Path], dict] = lambda result, path: {},
    known: dict[Path, tuple] | None = None,
) -> Loaded:
    """Return the finished runs below folders; raises UserError for a folder that does not exist.

    also: makes further columns from a result and its file; each file is read once. known: rows from earlier reading;
    new rows are added to it, and files that have not changed are not read again.
    """
    roots = list(map(Path, roots))
    for root in roots:
        if not root.is_dir():
            raise UserError(f"Expected a folder of results, but {root} is not a folder.")
    rows, problems = _read_all(roots, also, known)
    results = frame_of(rows)
    return Loaded(results, problems | doubles_of(results))


def results(*folders: str | os.PathLike | Iterable) -> pd.DataFrame:
    """Return the finished runs below folders (or lists of folders) as a data frame: each experiment once, in a row.

    Columns are the facts of result.json (docs/use.md); `row` is the run's label in tables. A warning names each folder
    that is left out. Raises UserError for a folder that does not exist.
    """
    each = [[given] if isinstance(given, (str, os.PathLike)) else given for given in folders]
    loaded = load([expand_home(folder) for some in each for folder in some])
    for line in loaded.lines:
        warnings.warn(line, stacklevel=3)
    return loaded.frame.reset_index(drop=True)


def read_rows(roots: list[Path], also: Callable[[dict, Path], dict]) -> list[dict]:
    """Return the facts of all finished runs below folders, without row labels; raises UserError if one is damaged."""
    rows, problems = _read_all(roots, also, None)
    if problems:
        raise UserError(next(iter(problems.values())))
    return rows


def _read_all(roots, also, known):
    rows = []
    runs, problems = find_runs(roots)
    for folder, files in runs.items():
        try:
            found = list(_read(folder, files, also)) if known is None else _read_again(folder, files, also, known)
        except UserError as error:
            problems[folder] = str(error)
        else:
            rows += found
            if not found:
                problems[folder] = unfinished(folder)
    return rows, problems


def frame_of(rows: list[dict], *more: str) -> pd.DataFrame:
    """Return rows of `to_row`, with more columns, as a data frame with the labels of their rows in tables."""
    columns = list(dict.fromkeys((*COLUMNS, *more, *(name for row in rows[:1] for name in row))))
    results = pd.DataFrame(rows).reindex(columns=columns)
    return name_rows(results) if rows else results


def _read_again(folder, files, also, known):
    """Return the rows of a folder, from `known` if its files have not changed."""
    places = [folder] if ARCHIVE in files else [folder / name for name in sorted(files)]
    try:
        state = [file_state(place) for place in places]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): it is left out.") from error
    if known.get(folder, ((), ()))[0] != state:
        known[folder] = state, list(_read(folder, files, also))
    return known[folder][1]


def _read(folder, files, also) -> Iterator[dict]:
    """Yield the rows of a run's folder, or of an archive."""
    if ARCHIVE in files:
        for name, result in read_archive(folder).items():
            yield {**checked_row(result, folder.parent / name, folder), **also(result, folder)}
    elif RESULT_FILE in files:
        path = folder / RESULT_FILE
        result = read_json(path)
        yield {**checked_row(result, folder, path), **also(result, path)}
    elif "log.txt" in files and CONFIG_FILE not in files and (log := read_family_log(folder)):
        yield {**_row(log, folder, folder / "log.txt"), **also(log, folder / "log.txt")}


def checked_row(result: dict, folder: Path, file: Path) -> dict:
    """Return the facts of a folder's result in a file; raises UserError if it is damaged or of another version."""
    if result.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{folder / RESULT_FILE} has schema version {result.get('schema_version')!s:.20}, not {SCHEMA_VERSION}: "
            "it is left out."
        )
    return _row(result, folder, file)


def _row(result, folder, file):
    try:
        return {**to_row(result), "folder": folder, "file": file}
    except (ValueError, RecursionError) as error:
        path = file if file.parent == folder else folder / RESULT_FILE
        raise UserError(f"{path} is not a complete result ({error}): it is left out.") from error


def doubles_of(results) -> dict[Path, str]:
    """Return a line for each result that is already there, or "" if the accuracy is the same."""
    doubles = results[results["double_of"].notna()]
    lines = {}
    for result, other in zip(doubles.itertuples(), results.loc[doubles["double_of"]].itertuples(), strict=True):
        lines[result.folder] = (
            ""
            if result.accuracy == other.accuracy
            else (
                f"{result.folder} is left out: {other.folder} holds the same experiment, with accuracy "
                f"{other.accuracy:g}, but this one has {result.accuracy:g}."
            )
        )
    return lines


def unfinished(folder: Path) -> str:
    """Return how far an unfinished run came, in a sentence that starts with its folder."""
    return f"{folder} {read_state(folder).words}"
