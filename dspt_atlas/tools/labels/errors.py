"""Judged labels: scores, the ranking, cleanlab's opinion, and what is found of labels that are known to be wrong."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = (
    "rank", "split", "index", "path", "given_label", "predicted_label", "predicted_probability", "label_quality",
    "self_confidence", "normalized_margin", "is_label_issue", "cleanlab_issue", "cleanlab_quality", "clean_label",
    "is_wrong",
)  # fmt: skip
UNKNOWN = -1  # a clean label that is not known


def self_confidence(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return p_y, (N,), of probabilities (N, C) and given labels (N,); cleanlab's `self_confidence`.

    >>> self_confidence(np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([0, 1]))
    array([0.9, 0.3])
    """
    return probs[np.arange(len(labels)), labels]


def normalized_margin(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (p_y - max_{k != y} p_k + 1) / 2, (N,) in [0, 1]; cleanlab's `normalized_margin`.

    Below 0.5 the model predicts another class than the given one.

    >>> normalized_margin(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]))
    array([0.75, 0.25])
    """
    others = probs.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return (self_confidence(probs, labels) - others.max(axis=1) + 1) / 2


SCORES = {"normalized_margin": normalized_margin, "self_confidence": self_confidence}


@dataclass
class Labels:
    """Given labels (N,) with split, index in its list and path of each image.

    `clean` (N,) are the true labels, UNKNOWN where they are not known, or None if none is.
    """

    splits: list[str]
    indices: list[int]
    paths: list[str]
    names: list[str]
    given: np.ndarray
    clean: np.ndarray | None = None


@dataclass
class LabelErrors:
    """A model's judgement of given labels: probabilities (N, C), and a score, which is low if it contradicts."""

    labels: Labels
    probs: np.ndarray
    score: str = "normalized_margin"

    @cached_property
    def quality(self) -> np.ndarray:
        """The score of each label, (N,)."""
        return SCORES[self.score](self.probs, self.labels.given)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image, (N,)."""
        return self.probs.argmax(axis=1)

    @property
    def is_issue(self) -> np.ndarray:
        """Whether another class than the given one is predicted, (N,)."""
        return self.predicted != self.labels.given

    @cached_property
    def cleanlab(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The mask (N,) and the score (N,) of cleanlab on the same probabilities, or None if it is not installed."""
        return cleanlab_judgement(self.labels.given, self.probs, self.score)

    @cached_property
    def order(self) -> np.ndarray:
        """The indices of the images, the most probable label errors first."""
        return np.argsort(self.quality, kind="stable")

    def rows(self):
        """Yield the table's rows in that order, under COLUMNS."""
        labels, names = self.labels, self.labels.names
        margins, confidences = (score(self.probs, labels.given) for score in SCORES.values())
        is_found, theirs = self.cleanlab or (None, None)
        for rank, i in enumerate(self.order, 1):
            clean = UNKNOWN if labels.clean is None else labels.clean[i]
            yield [
                rank, labels.splits[i], labels.indices[i], labels.paths[i], names[labels.given[i]],
                names[self.predicted[i]], self.probs[i, self.predicted[i]], self.quality[i], confidences[i], margins[i],
                int(self.is_issue[i]), None if is_found is None else int(is_found[i]),
                None if theirs is None else theirs[i],
                None if clean == UNKNOWN else names[clean], None if clean == UNKNOWN else int(labels.given[i] != clean),
            ]  # fmt: skip

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a data frame."""
        return pd.DataFrame(self.rows(), columns=list(COLUMNS))

    def agreement(self):
        """Yield precision and recall against the known wrong labels, in percent, for our rule and cleanlab's.

        A further row is for as many of the worst images as labels are wrong. AUROC is that of the score, or of
        cleanlab's. A figure without a meaning is None.
        """
        from sklearn.metrics import precision_score, recall_score  # slow to load

        if (clean := self.labels.clean) is None:
            return
        known = clean != UNKNOWN
        wrong = (clean != self.labels.given)[known]
        worst = np.zeros_like(known)
        worst[[i for i in self.order if known[i]][: wrong.sum()]] = True
        nothing: Any = 0  # scikit-learn's own default is a word
        found = {
            "another class predicted": (self.is_issue, self.quality),
            f"worst {wrong.sum()}": (worst, None),
        }
        if self.cleanlab is not None:
            found["cleanlab find_label_issues"] = self.cleanlab
        for name, (mask, quality) in found.items():
            mask = mask[known]
            rates = [score(wrong, mask, zero_division=nothing) for score in (precision_score, recall_score)]
            area = None if quality is None else auroc(wrong, quality[known])
            yield [name, int(mask.sum()), *(100 * rate for rate in rates), area]


def auroc(wrong: np.ndarray, quality: np.ndarray) -> float | None:
    """Return how often a wrong label has a lower score than a right one, in percent; None without one of them."""
    from sklearn.metrics import roc_auc_score

    return 100 * float(roc_auc_score(wrong, -quality)) if 0 < wrong.sum() < len(wrong) else None


def cleanlab_judgement(labels: np.ndarray, probs: np.ndarray, score: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return cleanlab's `find_label_issues` with its defaults, and its score with each class's threshold.

    Both are (N,); None if it is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    probs = probs.astype(np.float64)
    quality = get_label_quality_scores(labels, probs, method=score, adjust_pred_probs=True)
    with warnings.catch_warnings():  # it warns of each class with few images
        warnings.simplefilter("ignore", UserWarning)
        return find_label_issues(labels, probs, n_jobs=1), quality
