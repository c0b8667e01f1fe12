"""Data sets, few-shot subsets and label noise."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .catalogue import CATALOGUE
from .config import add_dataset_config
from .noisy import register_noisy

__all__ = ["add_dataset_config", "register_all", "register_noisy"]


def register_all():
    """Register our data sets in Dassl's registry; a name that is registered already stays whose it is."""
    for dataset in CATALOGUE:
        if dataset.__name__ not in DATASET_REGISTRY.registered_names():
            DATASET_REGISTRY.register(dataset)
