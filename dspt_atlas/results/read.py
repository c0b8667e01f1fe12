"""Finished runs read back: from result.json, and from the logs of family repositories where there is none."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.results.archive import ARCHIVE, read_archive
from dspt_atlas.results.family_logs import read_family_log
from dspt_atlas.results.record import Record, noise_kind, noise_label, to_record
from dspt_atlas.results.rows import name_rows
from dspt_atlas.run.files import find_runs
from dspt_atlas.run.records import CONFIG_FILE, RESULT_FILE, SCHEMA_VERSION, read_json
from dspt_atlas.run.state import read_state

__all__ = [
    "Loaded",
    "Record",
    "checked_record",
    "load",
    "load_all",
    "noise_kind",
    "noise_label",
    "read_checked",
    "read_result",
    "result_of",
    "unfinished",
]


@dataclass(frozen=True)
class Loaded:
    """The runs that count, with their rows' labels, and a line for each folder that does not, `doubles` among these.

    A double holds an experiment that another folder holds too; its line is "" where the numbers are the same.
    """

    records: list[Record]
    problems: dict[Path, str]
    doubles: dict[Path, str]


def load(roots: list[Path]) -> tuple[list[Record], list[str]]:
    """Return the finished runs under folders, each experiment once with its row's label, and a line for each other one.

    Raises UserError for a folder that does not exist.
    """
    loaded = load_all(roots)
    return loaded.records, [line for line in loaded.problems.values() if line]


def load_all(roots: list[Path]) -> Loaded:
    """Return what is below folders; raises UserError for a folder that does not exist."""
    roots = list(map(Path, roots))
    for root in roots:
        if not root.is_dir():
            raise UserError(f"Expected a folder of results, but {root} is not a folder.")
    records = []
    runs, problems = find_runs(roots)
    for folder, files in runs.items():
        try:
            found = _read(folder, files)
        except UserError as error:
            problems[folder] = str(error)
        else:
            records += found
            if not found:
                problems[folder] = unfinished(folder)
    records, doubles = name_rows(records)
    return Loaded(records, problems | doubles, doubles)


def _read(folder, files):
    """Return the records of a run's folder, or of an archive."""
    if ARCHIVE in files:
        results = read_archive(folder).items()
        return [replace(checked_record(result, folder.parent / name), archive=folder) for name, result in results]
    if RESULT_FILE in files:
        return [read_result(folder / RESULT_FILE)]
    is_family = "log.txt" in files and CONFIG_FILE not in files
    log = read_family_log(folder) if is_family else None
    return [_record(log, folder / "log.txt", folder)] if log else []


def result_of(record: Record) -> dict | None:
    """Return what the result.json of a record holds, or its line in an archive; None for a run that has only a log."""
    if record.archive:
        return _archived(record.archive)[record.folder.relative_to(record.archive.parent).as_posix()]
    path = record.folder / RESULT_FILE
    return read_checked(path)[1] if path.is_file() else None


@functools.lru_cache(maxsize=8)
def _archived(path):
    return read_archive(path)


def read_result(path: Path) -> Record:
    """Return the run that a result.json describes; raises UserError if it is damaged or of another version."""
    return read_checked(path)[0]


def read_checked(path: Path) -> tuple[Record, dict]:
    """Return the run that a result.json describes, and what it holds; raises UserError as read_result does."""
    result = read_json(path)
    return checked_record(result, path.parent), result


def checked_record(result: dict, folder: Path) -> Record:
    """Return the record of a folder's result; raises UserError if it is damaged or of another version."""
    path = folder / RESULT_FILE
    if result.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {result.get('schema_version')!s:.20}, not {SCHEMA_VERSION}: it is left out."
        )
    return _record(result, path, folder)


def _record(result, path, folder):
    try:
        return to_record(result, folder)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a complete result ({error}): it is left out.") from error


def unfinished(folder: Path) -> str:
    """Return how far an unfinished run came, in a sentence that starts with its folder."""
    return f"{folder} {read_state(folder).words}"
