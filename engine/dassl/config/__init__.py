"""Default configuration tree."""

from .defaults import _C as cfg_default

__all__ = ["cfg_default", "clean_cfg", "get_cfg_default"]


def get_cfg_default():
    """Return a deep, unfrozen copy of the default tree (a `yacs.config.CfgNode`)."""
    return cfg_default.clone()


def clean_cfg(cfg, trainer):
    """Remove, in place, every child of `cfg.TRAINER` except NAME and the node of `trainer` (upper-cased)."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
