"""The trainer registry."""

from dassl.utils import Registry

__all__ = ["TRAINER_REGISTRY", "build_trainer"]

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg):
    """Return the trainer registered as `cfg.TRAINER.NAME`, constructed with `cfg`."""
    return TRAINER_REGISTRY.build(cfg.TRAINER.NAME, "Loading trainer" if cfg.VERBOSE else None, cfg)
