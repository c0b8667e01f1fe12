"""Registration of the trainers with dassl; names that somebody else registers are left to them."""

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas.trainers.methods.baselines import LS, OLS, TFKD
from dspt_atlas.trainers.methods.basic import GCE, MAE, ATLaS, CoCoOp, CoOp, DoubleSoftmax, MaPLe
from dspt_atlas.trainers.methods.joapr import JoAPR
from dspt_atlas.trainers.methods.nlprompt import NLPrompt
from dspt_atlas.trainers.zeroshot import ZeroshotCLIP

METHODS = {"DSPT": DoubleSoftmax, "GCE": GCE, "MAE": MAE, "ATLaS": ATLaS, "LS": LS, "TFKD": TFKD, "OLS": OLS}
COOP_METHODS = {"NLPrompt": NLPrompt, "JoAPR": JoAPR}  # published on CoOp alone
STANDARD_TRAINERS = (CoOp, CoCoOp, MaPLe, ZeroshotCLIP)


def _combine(prompt_trainer, suffix, method):
    name = prompt_trainer.__name__ + suffix
    return type(name, (method, prompt_trainer), {"__module__": __name__, "__doc__": f"{name}: {method.__doc__}"})


# CoOpDSPT, CoOpGCE, ... and the same for CoCoOp and MaPLe; CoOpNLPrompt, CoOpJoAPR.
METHOD_TRAINERS = {
    trainer.__name__: trainer
    for trainer in (
        _combine(prompt_trainer, suffix, method)
        for prompt_trainer in (CoOp, CoCoOp, MaPLe)
        for suffix, method in (METHODS | COOP_METHODS if prompt_trainer is CoOp else METHODS).items()
    )
}
globals().update(METHOD_TRAINERS)


def register_methods():
    """Register our methods and the baselines on the prompt learners that they go with."""
    if yields_to_later_names():
        for trainer in METHOD_TRAINERS.values():
            TRAINER_REGISTRY.register_default(trainer)
    else:
        _register(METHOD_TRAINERS.values())


def yields_to_later_names():
    """Return whether a trainer of ours can step back when its name is registered later: not in upstream's Dassl."""
    return hasattr(TRAINER_REGISTRY, "register_default")


def register_standard_trainers():
    """Register CoOp, CoCoOp, MaPLe and ZeroshotCLIP, which a fork has of its own."""
    _register(STANDARD_TRAINERS)


def _register(trainers):
    taken = TRAINER_REGISTRY.registered_names()
    for trainer in trainers:
        if trainer.__name__ not in taken:
            TRAINER_REGISTRY.register(trainer)
