"""Configuration keys of the data sets."""

from __future__ import annotations

from yacs.config import CfgNode

DEFAULTS = {
    "OWN": {
        "PATH": "",  # OwnFolder: the folder; OwnSplit: the split JSON; OwnCSV: the table; relative to DATASET.ROOT
        "IMAGES": "",  # the folder that paths in a split JSON or table are relative to; "" = where that file lies
        "SPLIT_SEED": 1,  # of the 50/20/30 train/val/test split where the data has none; the same for every run's seed
    },
    "CIFARN": {
        "LABELS": "",  # the label set; "" = worse_label (CIFAR-10N), noisy_label (CIFAR-100N)
        "FILE": "",  # the label file; "" = cifarn/CIFAR-10_human.pt or cifarn/CIFAR-100_human.pt under the root
    },
}


def add_dataset_config(cfg):
    """Add the keys of `DATASET.OWN` and `DATASET.CIFARN` that `cfg` lacks; overwrite none."""
    for name, defaults in DEFAULTS.items():
        if name not in cfg.DATASET:
            cfg.DATASET[name] = CfgNode()
        for key, value in defaults.items():
            cfg.DATASET[name].setdefault(key, value)
