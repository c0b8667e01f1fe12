"""Data sets, few-shot subsets and label noise."""

from __future__ import annotations


def register_all():
    """Register our data sets in Dassl's registry; a name that is already registered keeps its class."""
    # Here, because all modules of this package, its keys too, would load torch otherwise.
    from dassl.data.datasets import DATASET_REGISTRY

    from dspt_atlas.datasets.catalogue import CATALOGUE, Food101N
    from dspt_atlas.datasets.cifar import CIFAR10N, CIFAR100N
    from dspt_atlas.datasets.embedded import EMBEDDED
    from dspt_atlas.datasets.own import OwnCSV, OwnFolder, OwnSplit

    for dataset in (*CATALOGUE, Food101N, CIFAR10N, CIFAR100N, OwnFolder, OwnSplit, OwnCSV, *EMBEDDED):
        if dataset.__name__ not in DATASET_REGISTRY.registered_names():
            DATASET_REGISTRY.register(dataset)
