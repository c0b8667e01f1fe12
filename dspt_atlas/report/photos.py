"""Which runs on photographs stand in which table of the evidence, and the learning rates that validation chooses."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from dataclasses import dataclass

COMMON_RATE = "0.002"  # the CoOp family's
LEARNERS = ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", "TCP")
_RATE = re.compile(r"_lr([\d.]+)$")
_SCALE = re.compile(r"_scale([\d.]+)_lr")
_CLASS_CONTEXTS = re.compile(r"_(csc)_lr")  # TRAINER.COOP.CSC
_TOWER = re.compile(r"_ablation_(PhotoEN.*)$")  # MODEL.BACKBONE.NAME
_USUAL = "30"  # of configs/trainers/photos.yaml


@dataclass(frozen=True)
class Selection:
    """Rows of results that make a table; `suffix` is the key of a row's words after the method's name."""

    name: str
    title: str
    baselines: tuple[str, ...]
    rows: list[dict]
    is_base_new: bool = False


def selections(rows: list[dict]) -> list[Selection]:
    """Return the tables of photographs; rows: of `to_row`, with `kind`, `label`, `folder` and `history`."""
    rows = [
        {
            **row,
            "rate": _in_folder(_RATE, row),
            "scale": _in_folder(_SCALE, row) or _USUAL,
            "csc": _in_folder(_CLASS_CONTEXTS, row),
            "tower": _in_folder(_TOWER, row),
        }
        for row in rows
    ]
    towers = [
        {**row, "tower": row["tower"] or "PhotoEN"}
        for row in rows
        if row["tower"] or (row["kind"] == "noisy" and not row["learns"] and row["noise"] == "clean")
    ]
    rows = [row for row in rows if not row["tower"]]
    class_contexts = [row for row in rows if row["csc"] or (row["kind"] == "noisy" and not row["learns"])]
    noisy = [row for row in rows if row["kind"] == "noisy" and not row["csc"]]
    plain = [row for row in noisy if row["scale"] == _USUAL]
    scaled = {(row["trainer"], row["noise"]) for row in noisy if row["scale"] != _USUAL}
    both = [row for row in noisy if (row["trainer"], row["noise"]) in scaled]
    found = [
        Selection(
            "photos_noise_common_rate",
            f"Photographs: accuracy by training labels, CoOp, 16 shots, learning rate {COMMON_RATE} for all methods",
            ("CoOp", "CoOpDSPT"),
            [row for row in plain if row["rate"] in ("", COMMON_RATE)],
        ),
        Selection(
            "photos_noise_own_rate",
            "Photographs: the same, with each method's own rate, chosen by noisy validation labels",
            ("CoOp", "CoOpDSPT"),
            chosen_by_validation(plain),
        ),
        Selection(
            "photos_scale",
            "Photographs: logit scale 30, and 100, as CLIP has, each with its own rate",
            ("CoOp", "CoOpDSPT"),
            [{**row, "suffix": f", scale {row['scale']}"} for row in chosen_by_validation(both)],
        ),
        Selection(
            "photos_class_contexts",
            "Photographs: a context of each class's own (TRAINER.COOP.CSC), each with its own rate",
            ("CoOp", "CoOpDSPT"),
            chosen_by_validation(class_contexts),
        ),
    ]
    title = (
        "Photographs: text towers, 16 context vectors, logit scale 100, 20 epochs, learning rate 0.03 for all methods"
    )
    suffixed = [{**row, "suffix": f", {row['tower']}"} for row in towers]
    found.append(Selection("photos_text_towers", title, ("CoOp", "CoOpDSPT"), suffixed))
    for learner in LEARNERS:
        own = [row for row in rows if row["kind"] == "base2new" and (row["learner"] == learner or not row["learns"])]
        title = f"Photographs: base to new, {learner}, 16 shots"
        found.append(Selection(f"photos_base_new_{learner}", title, (learner, f"{learner}LS"), own, True))
    return [selection for selection in found if any(row["learns"] for row in selection.rows)]


def chosen_by_validation(rows: list[dict]) -> list[dict]:
    """Return the rows with the best rate of each method, noise and scale, and those without a rate.

    The best is the one with the highest mean accuracy on noisy validation labels, over the seeds that all of its rates
    have; of equal ones the lowest rate.
    """
    groups: dict[tuple, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["rate"]:
            groups[_group(row)][row["rate"]][row["seed"]] = row["history"][-1]["noisy_val_accuracy"]
    best = {group: _best(by_rate) for group, by_rate in groups.items()}
    return [row for row in rows if not row["rate"] or row["rate"] == best[_group(row)]]


def _best(by_rate):
    shared = set.intersection(*(set(by_seed) for by_seed in by_rate.values()))
    rates = sorted(by_rate, key=float)
    if not shared:
        return rates[0]
    return max(rates, key=lambda rate: statistics.fmean(by_rate[rate][seed] for seed in shared))


def _group(row):
    return row["trainer"], row["noise"], row["scale"]


def _in_folder(pattern, row):
    found = pattern.search(row["folder"].parent.name)
    return found[1] if found else ""
