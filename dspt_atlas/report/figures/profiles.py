"""Reading gradient profiles from the CSV files next to result.json."""

from __future__ import annotations

import csv
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.results.cells import read_csv


def read_numbers(path: Path, texts: tuple[str, ...]) -> list[dict]:
    """Return the rows of a CSV file with numbers as floats, except in the columns `texts`; empty cells are left out.

    Raises UserError with the file's name if it is something else.
    """
    try:
        return [_numbers(row, texts) for row in read_csv(path)]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(
            f"{path} is not a gradient profile ({type(error).__name__}: {error}): make it again."
        ) from error


def _numbers(row, texts):
    own = {name: row[name] for name in texts}
    numbers = {name: float(value) for name, value in row.items() if name not in texts and value}
    return {**numbers, **own, "epoch": int(numbers["epoch"])}
