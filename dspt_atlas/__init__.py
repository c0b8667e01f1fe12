"""DSPT, ATLaS, label noise and their comparisons for the CoOp family of prompt-learning code.

In a fork's train.py: `import dspt_atlas` registers our trainers, `dspt_atlas.extend_cfg(cfg)` adds our configuration keys.
"""

from .config import extend_cfg

__version__ = "0.1.0"
__all__ = ["extend_cfg", "register_standard"]

try:  # TEMPORARY
    from .trainers.registry import register_methods

    register_methods()
except ModuleNotFoundError as error:
    if not str(error.name).startswith("dspt_atlas"):
        raise


def register_standard():
    """Register CoOp, CoCoOp, MaPLe, ZeroshotCLIP and all our data sets, for a program that is not a fork's own."""
    from . import datasets
    from .trainers import registry

    registry.register_standard()
    datasets.register_all()
