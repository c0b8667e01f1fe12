"""Registration of the trainers with dassl; names that somebody else registers are left to them.

A trainer is a pair of a prompt learner and a method. Here alone its name is taken apart.
"""

from typing import NamedTuple

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas.trainers.methods.baselines import LS, OLS, TFKD
from dspt_atlas.trainers.methods.basic import GCE, MAE, ATLaS, CoCoOp, CoOp, DoubleSoftmax, MaPLe
from dspt_atlas.trainers.methods.joapr import JoAPR
from dspt_atlas.trainers.methods.nlprompt import NLPrompt
from dspt_atlas.trainers.zeroshot import ZeroshotCLIP

METHODS = {"DSPT": DoubleSoftmax, "GCE": GCE, "MAE": MAE, "ATLaS": ATLaS, "LS": LS, "TFKD": TFKD, "OLS": OLS}
COOP_METHODS = {"NLPrompt": NLPrompt, "JoAPR": JoAPR}  # published on CoOp alone
STANDARD_TRAINERS = (CoOp, CoCoOp, MaPLe, ZeroshotCLIP)
NO_METHOD = "CE"  # the method of a prompt learner alone


class Pair(NamedTuple):
    """What a trainer's name stands for: what is learned, and how labels teach it."""

    learner: str
    method: str

    @property
    def learns(self) -> bool:
        """Return whether anything is learned, which zero-shot CLIP does not."""
        return self.learner != ZeroshotCLIP.__name__


def pair_of(name: str) -> Pair:
    """Return the pair that a trainer's name stands for; it need not be registered.

    A class that holds a `pair` of its own (ours, those of `with_loss`) says it. Of any other name the longest learner's
    name that it starts with is the learner, and the rest is the method: CE where nothing is left, "" for zero-shot CLIP,
    which has none. A name that starts with no learner's is that of a learner of another repository, its method unknown ("").

    >>> pair_of("CoCoOpDSPT")
    Pair(learner='CoCoOp', method='DSPT')
    >>> pair_of("CoOpFocal"), pair_of("PromptSRC")
    (Pair(learner='CoOp', method='Focal'), Pair(learner='PromptSRC', method=''))
    """
    trainer = TRAINER_REGISTRY.get(name) if name in TRAINER_REGISTRY.registered_names() else None
    own = vars(trainer).get("pair") if isinstance(trainer, type) else None
    if own is not None:
        return own
    learners = [trainer.__name__ for trainer in STANDARD_TRAINERS if name.startswith(trainer.__name__)]
    if not learners:
        return Pair(name, "")
    learner = max(learners, key=len)
    is_zero_shot = learner == ZeroshotCLIP.__name__
    return Pair(learner, name.removeprefix(learner) or ("" if is_zero_shot else NO_METHOD))


def method_name(mixin: type) -> str:
    """Return the name of a method's mixin in trainers' names, the class's own name where it is not one of ours."""
    return next((name for name, method in (METHODS | COOP_METHODS).items() if method is mixin), mixin.__name__)


def _combine(prompt_trainer, suffix, method):
    name = prompt_trainer.__name__ + suffix
    fields = {
        "__module__": __name__,
        "__doc__": f"{name}: {method.__doc__}",
        "pair": Pair(prompt_trainer.__name__, suffix),
    }
    return type(name, (method, prompt_trainer), fields)


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
