"""The order of rows in every table and figure: zero-shot, then each learner with the baselines, then with ours."""

from __future__ import annotations

import pandas as pd

# As the trainers' registry has them, which takes torch to read; later ones follow by name.
LEARNERS = (
    "CoOp", "CoCoOp", "KgCoOp", "MaPLe", "DePTCoOp", "DePTKgCoOp", "DePTMaPLe", "IVLP", "ProGrad", "PromptSRC", "TCP",
    "VPT",
)  # fmt: skip
ZERO_SHOT = "ZeroshotCLIP"
METHODS = ("", "CE", "LS", "TFKD", "OLS", "GCE", "MAE", "NLPrompt", "JoAPR", "ATLaS", "DSPT")


def place(name: str, order: tuple[str, ...]) -> tuple[int, str]:
    """Return a key that sorts names by an order, and others after them by name."""
    return (order.index(name), "") if name in order else (len(order), name.casefold())


def row_key(learner: str, method: str, row: str) -> tuple:
    """Return a key that sorts rows by learner, method and label; ZeroshotCLIP is the first learner."""
    return place(learner, (ZERO_SHOT, *LEARNERS)), place(method, METHODS), row


def in_order(results: pd.DataFrame) -> pd.DataFrame:
    """Return results sorted by their rows."""
    keys = pd.Series(map(row_key, results["learner"], results["method"], results["row"]), results.index, dtype=object)
    return results.loc[keys.sort_values(kind="stable").index]
