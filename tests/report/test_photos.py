"""The evidence's tables of photographs: rates are chosen by noisy validation labels, never by the test set."""

from pathlib import Path

from dspt_atlas.report.evidence import build_grids, figure_runs
from dspt_atlas.report.photos import chosen_by_validation
from dspt_atlas.results.record import to_row
from support.results import SYM, fields_of


def _row(
    trainer, seed, accuracy, validation=None, rate="", noise=SYM, kind="noisy", scale="", csc=False, tower="", **fields
):
    """Return a row as `write_evidence` makes it of a run's folder and result."""
    label = "ablation_csc_" if csc else f"ablation_scale{scale}_" if scale else f"ablation_{tower}" if tower else ""
    config = "_".join(filter(None, ("photo_en", label.rstrip("_"), rate and f"lr{rate}")))
    history = [] if validation is None else [{"epoch": 20, "noisy_val_accuracy": validation}]
    result = fields_of(accuracy, trainer, "Caltech101", seed, noise=noise, history=history, **fields)
    result |= {"commit": "0123456789abcdef", "host": {"cpu": "Some CPU", "cores": 2, "gpu": None}, "versions": {}}
    result["config"]["OPTIM"]["LR"] = float(rate or 0.1)
    result["config"]["TRAINER"]["COOP"] = {"CSC": csc}
    result["config"]["MODEL"] = {"LOGIT_SCALE": float(scale or 0), "BACKBONE": {"NAME": tower or "PhotoEN"}}
    folder = Path(kind, trainer, config, f"seed{seed}-{noise and noise['rate']}{fields.get('subsample')}")
    more = {"kind": kind, "label": label, "part": "photos", "is_of_learners": False, "history": history}
    return {**to_row(result), **more, "folder": folder}


def _rates(trainer="CoOp", **fields):
    """Rows of a method: 0.01 is the best by validation, 0.05 by test."""
    values = {"0.002": (40, 60), "0.01": (50, 61), "0.05": (30, 95)}
    return [
        _row(trainer, seed, test + seed, validation + seed, rate, **fields)
        for rate, (validation, test) in values.items()
        for seed in (1, 2)
    ]


def test_the_best_rate_by_validation_is_chosen_for_each_method_and_noise():
    rows = [{**row, "rate": row["folder"].parent.name.rpartition("_lr")[2], "scale": "30"} for row in _rates()]
    clean = [
        {**row, "noise": "clean", "history": [{"epoch": 20, "noisy_val_accuracy": row["accuracy"]}]} for row in rows
    ]
    assert {row["rate"] for row in chosen_by_validation(rows)} == {"0.01"}
    assert {(row["noise"], row["rate"]) for row in chosen_by_validation(rows + clean)} == {
        (rows[0]["noise"], "0.01"),
        ("clean", "0.05"),
    }


def test_rates_are_compared_on_the_seeds_that_all_have():
    rows = [{**row, "rate": row["folder"].parent.name.rpartition("_lr")[2], "scale": "30"} for row in _rates()]
    third = {**rows[0], "seed": 3, "history": [{"epoch": 20, "noisy_val_accuracy": 100.0}]}  # of 0.002 alone
    assert {row["rate"] for row in chosen_by_validation([*rows, third])} == {"0.01"}


def test_tables_have_the_familys_rate_the_chosen_ones_scales_and_base_to_new():
    rows = [
        *_rates(),
        *_rates("CoOpDSPT"),
        *_rates(scale="100"),
        *_rates(csc=True),
        _row("ZeroshotCLIP", 1, 50.0, noise=None),
        _row("ZeroshotCLIP", 1, 45.0, noise=None, tower="PhotoEN-MiniLM"),
        *(_row("CoOp", 1, 70.0, 60.0, noise=noise, tower="PhotoEN-MiniLM") for noise in (None, SYM)),
        _row("CoOp", 1, 40.0, 60.0, noise=None, tower="PhotoEN"),
    ]
    rows += [
        _row(trainer, seed, accuracy, noise=None, kind="base2new", subsample=part)
        for trainer, accuracy in (("TCP", 80.0), ("TCPDSPT", 81.0))
        for part in ("base", "new")
        for seed in (1, 2)
    ]
    emoji = {**_row("CoOp", 1, 33.0), "part": "noise"}
    grids = {grid.name: grid for grid in build_grids([*rows, emoji])}
    assert set(grids) == {
        "noise",
        "photos_noise_common_rate",
        "photos_noise_own_rate",
        "photos_scale",
        "photos_class_contexts",
        "photos_text_towers",
        "photos_base_new_TCP",
    }
    assert list(grids["noise"].cells["CoOp"]["sym 0.5"].values()) == [33.0]
    common, own, scale = (grids[f"photos_{name}"].cells for name in ("noise_common_rate", "noise_own_rate", "scale"))
    assert list(common) == list(own) == ["ZeroshotCLIP", "CoOp", "CoOpDSPT"]
    assert list(common["CoOp"]["sym 0.5"].values()) == [61.0, 62.0]
    assert list(own["CoOp"]["sym 0.5"].values()) == [62.0, 63.0]
    own_contexts = grids["photos_class_contexts"].cells
    assert list(own_contexts["ZeroshotCLIP"]) == ["clean"] and len(own_contexts) == 2
    assert list(scale) == ["CoOp, scale 100", "CoOp, scale 30"]
    towers = grids["photos_text_towers"].cells
    assert {row: list(cells) for row, cells in towers.items()} == {
        "ZeroshotCLIP, PhotoEN": ["clean"],
        "ZeroshotCLIP, PhotoEN-MiniLM": ["clean"],
        "CoOp, PhotoEN": ["clean"],
        "CoOp, PhotoEN-MiniLM": ["clean", "sym 0.5"],
    }
    assert list(common["ZeroshotCLIP"]["clean"].values()) == [50.0]
    assert grids["photos_base_new_TCP"].columns == ["base", "new", "H per seed"]


def test_a_figure_has_one_line_per_method_whatever_rates_were_chosen():
    rows = [*_rates(), _row("CoOp", 1, 70.0, 90.0, "0.05", noise=None), _row("CoOp", 1, 60.0, 50.0, "0.01", noise=None)]
    ((names, runs),) = figure_runs(rows)
    assert "noise_rate" in names and set(runs["row"]) == {"CoOp"}
    assert {noise: set(own["accuracy"]) for noise, own in runs.groupby("noise")} == {
        "clean": {70.0},
        "sym 0.5": {62.0, 63.0},
    }
