"""Configuration keys of the data sets."""

from __future__ import annotations

from dspt_atlas.config.defaults import add_defaults

DEFAULTS = {
    "OWN": {
        "PATH": "",  # OwnFolder: the folder; OwnSplit: the split JSON; OwnCSV: the table; relative to DATASET.ROOT
        "IMAGES": "",  # the folder that paths in a split JSON or table are relative to; "" = where that file lies
        "SPLIT_SEED": 1,  # of the 50/20/30 train/val/test split where the data has none; the same for every run's seed
    },
    "CIFARN": {
        "LABELS": "",  # the label set; "" = worse_label (CIFAR-10N), noisy_label (CIFAR-100N)
        "FILE": "",  # the label file; "" = CIFAR-10_human.pt or CIFAR-100_human.pt beside CIFAR's folder
    },
}


def add_dataset_config(cfg):
    """Add the keys of `DATASET.OWN` and `DATASET.CIFARN` that `cfg` lacks; overwrite none."""
    add_defaults(cfg.DATASET, DEFAULTS)
