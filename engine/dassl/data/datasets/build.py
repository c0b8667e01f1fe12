"""The data set registry."""

from dassl.utils import Registry

__all__ = ["DATASET_REGISTRY", "build_dataset"]

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg):
    """Return the data set registered as `cfg.DATASET.NAME`, constructed with `cfg`."""
    return DATASET_REGISTRY.build(cfg.DATASET.NAME, "Loading dataset" if cfg.VERBOSE else None, cfg)
