"""The measures of a test, named only here; they are stored in result.json and shown in tables and on the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dspt_atlas.digests import function_digest


@dataclass(frozen=True)
class Measure:
    """A number of result.json in percent. Only `accuracy` is required; a result without another is missing in tables.

    of: computes it from probabilities (N, C), float32, and labels (N,), int64; None if the evaluation has it anyway.
    """

    name: str  # in result.json, in options and in CSV
    title: str
    decimals: int = 1
    higher_is_better: bool = True
    of: Callable | None = None

    def text(self, value: float, sign: str = "") -> str:
        """Return a value as text; sign "+" for a difference.

        >>> Measure("accuracy", "accuracy").text(2.25, "+")
        '+2.2'
        """
        return f"{value:{sign}.{self.decimals}f}"


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("accuracy", "accuracy"),
        Measure("macro_f1", "macro F1"),
    )
}
ACCURACY = MEASURES["accuracy"]


def functions() -> dict[str, str]:
    """Return the digests of the functions that compute measures, so that two of one name are never pooled."""
    return {name: function_digest(measure.of) for name, measure in MEASURES.items() if measure.of}


def are_of_probabilities() -> bool:
    """Return whether some measure needs the probabilities of the whole test set."""
    return any(measure.of for measure in MEASURES.values())


def measured(probabilities, labels) -> dict[str, float]:
    """Return the measures that need probabilities (N, C) besides the labels (N,)."""
    return {name: float(measure.of(probabilities, labels)) for name, measure in MEASURES.items() if measure.of}
