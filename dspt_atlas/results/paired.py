"""Differences between two methods over the runs that both have, with a confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from scipy.stats import t as student


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, its confidence interval (None for fewer than two pairs) and how many pairs."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


def paired_difference(
    values: Mapping[Hashable, float], baseline: Mapping[Hashable, float], confidence: float = 0.95
) -> Difference | None:
    """Return the mean of values[k] - baseline[k] over the keys of both, with Student's t interval; None without any.

    d +- t(confidence, n - 1) s / sqrt(n), where s is the sample standard deviation of the n differences d_k. A key
    identifies a pair, such as (seed, data set). Differences are assumed to be independent and normally distributed.
    """
    differences = [values[key] - baseline[key] for key in values if key in baseline]
    if not differences:
        return None
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Difference(mean, None, None, count)
    half = student.ppf((1 + confidence) / 2, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return Difference(mean, mean - half, mean + half, count)
