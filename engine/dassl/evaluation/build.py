"""The evaluator registry."""

from dassl.utils import Registry

__all__ = ["EVALUATOR_REGISTRY", "build_evaluator"]

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg, **kwargs):
    """Return the evaluator registered as `cfg.TEST.EVALUATOR`, constructed with `cfg` and the keyword arguments."""
    return EVALUATOR_REGISTRY.build(cfg.TEST.EVALUATOR, "Loading evaluator" if cfg.VERBOSE else None, cfg, **kwargs)
