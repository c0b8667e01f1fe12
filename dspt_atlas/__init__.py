"""DSPT, ATLaS, label noise and their comparisons for the CoOp family of prompt-learning code.

In a fork's train.py: `import dspt_atlas` and `dspt_atlas.extend_cfg(cfg)` register our trainers, the latter adds our
configuration keys. `with_loss` makes a robust variant of a trainer of theirs.
"""

from dspt_atlas import dassl_needed, datasets  # noqa: F401 - dassl_needed first: all others import dassl
from dspt_atlas.config.defaults import extend_cfg
from dspt_atlas.trainers import registry
from dspt_atlas.trainers.methods.robust import GCE, MAE, DoubleSoftmax
from dspt_atlas.trainers.with_loss import with_loss

__version__ = "0.1.0"
__all__ = ["GCE", "MAE", "DoubleSoftmax", "extend_cfg", "register_standard", "with_loss"]

if registry.yields_to_later_names():  # else extend_cfg does, when the fork has imported its own trainers
    registry.register_methods()


def register_standard():
    """Register all our trainers, CoOp, CoCoOp, MaPLe and ZeroshotCLIP too, and data sets, for a program of ours."""
    registry.register_methods()
    registry.register_standard_trainers()
    datasets.register_all()
