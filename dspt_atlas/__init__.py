"""DSPT, ATLaS, label noise and their comparisons for the CoOp family of prompt-learning code.

In a fork's train.py, `import dspt_atlas`; then `dspt_atlas.extend_cfg(cfg)` adds our configuration keys and registers
our trainers. `with_loss` makes a robust variant of the fork's own trainer. `fit` trains on your images, `load` opens a
run's model, `results` and `label_errors` are data frames (docs/use.md). The names here are loaded when they are first
used, because torch takes seconds.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from dspt_atlas.errors import NO_DASSL, lacks_dassl

if TYPE_CHECKING:
    from dspt_atlas.config.defaults import extend_cfg
    from dspt_atlas.results.read import results
    from dspt_atlas.run.fit import fit
    from dspt_atlas.run.model import Model, load
    from dspt_atlas.tools.labels.command import label_errors
    from dspt_atlas.trainers.methods.atlas import ATLaS
    from dspt_atlas.trainers.methods.robust import GCE, MAE, DoubleSoftmax
    from dspt_atlas.trainers.methods.smoothing import LS
    from dspt_atlas.trainers.with_loss import with_loss

__version__ = "0.1.0"
__all__ = [
    "GCE",
    "LS",
    "MAE",
    "ATLaS",
    "DoubleSoftmax",
    "Model",
    "extend_cfg",
    "fit",
    "label_errors",
    "load",
    "register_standard",
    "results",
    "with_loss",
]

_PLACES = {
    "extend_cfg": "config.defaults",
    "fit": "run.fit",
    "label_errors": "tools.labels.command",
    "load": "run.model",
    "results": "results.read",
    "Model": "run.model",
    "with_loss": "trainers.with_loss",
    "ATLaS": "trainers.methods.atlas",
    "GCE": "trainers.methods.robust",
    "LS": "trainers.methods.smoothing",
    "MAE": "trainers.methods.robust",
    "DoubleSoftmax": "trainers.methods.robust",
}


if not os.path.isdir(os.path.join(__path__[0], "trainers")):  # a clone without links, as git makes it on Windows
    __path__.append(os.path.dirname(__path__[0]))


def register_standard() -> None:
    """Register our data sets and all our trainers, also CoOp, CoCoOp, MaPLe and ZeroshotCLIP, for our own programs."""
    from dspt_atlas.datasets import register_all
    from dspt_atlas.trainers.registry import register_methods, register_standard_trainers

    register_methods()
    register_standard_trainers()
    register_all()


def __getattr__(name: str):
    """Load a name when it is first used; raises ImportError with a sentence if there is no `dassl`."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    except ModuleNotFoundError as error:
        if not lacks_dassl(error):
            raise
        raise ImportError(NO_DASSL, name="dassl") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
