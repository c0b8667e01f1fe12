"""Many results in one file of JSON lines: one line per run, its result.json with the run's folder before it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.paths import write_atomically
from dspt_atlas.run.files import ARCHIVE


def read_archive(path: Path) -> dict[str, dict]:
    """Return {folder: result} of an archive, {} without a file; raises UserError that names a damaged line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): restore the file.") from error
    results = {}
    for number, line in enumerate(lines, 1):
        try:
            result = json.loads(line)
            results[result.pop("folder")] = result
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"Line {number} of {path} is not a result with its folder ({error!r:.80}).") from error
    return results


def read_archives(root: Path) -> dict[str, dict]:
    """Return {folder: result} of all archives in a folder; raises UserError as `read_archive` does."""
    return {
        folder: result for path in sorted(root.glob(f"*{ARCHIVE}")) for folder, result in read_archive(path).items()
    }


@contextlib.contextmanager
def archiving(root: Path) -> Iterator[Callable[[str, str, dict], None]]:
    """Yield a function that takes (archive's name, folder, result); each archive is written once, at the end.

    Also after an error or a signal. Raises UserError if an archive is damaged.
    """
    new: dict[str, dict[str, dict]] = {}
    try:
        yield lambda name, folder, result: new.setdefault(name, {}).update({folder: result})
    finally:
        for name, results in new.items():
            path = root / f"{name}{ARCHIVE}"
            write_archive(path, {**read_archive(path), **results})


def write_archive(path: Path, results: dict[str, dict]) -> None:
    """Write an archive, sorted by folder, so that a new result is one new line."""
    lines = (json.dumps({"folder": folder, **result}) for folder, result in sorted(results.items()))
    write_atomically(path, "".join(f"{line}\n" for line in lines))
