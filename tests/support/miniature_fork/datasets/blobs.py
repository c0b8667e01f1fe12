"""A data set that the fork invented."""

from dassl.data.datasets import DATASET_REGISTRY

from .caltech101 import Caltech101


@DATASET_REGISTRY.register()
class Blobs(Caltech101):
    pass
