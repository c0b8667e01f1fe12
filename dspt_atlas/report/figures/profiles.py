"""Gradient profiles read back from the CSV files beside result.json."""

from __future__ import annotations

import csv
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.results.cells import read_csv


def read_numbers(path: Path, texts: tuple[str, ...]) -> list[dict]:
    """Return the rows of a CSV file, numbers as floats but for the columns `texts`; what is empty is left out.

    Raises UserError that names the file where it is anything else.
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
