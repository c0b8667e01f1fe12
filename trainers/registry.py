"""Registration of the trainers with dassl; a name that other code registers belongs to that code.

A trainer is a pair of a prompt learner and a method. Only this file splits its name.
"""

import importlib
import pkgutil
from typing import NamedTuple

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas.errors import UserError
from dspt_atlas.trainers import learners, methods
from dspt_atlas.trainers.declare import LEARNERS, METHODS
from dspt_atlas.trainers.zeroshot import ZeroshotCLIP

for _package in (learners, methods):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)

METHOD_TRAINERS: dict[
    str, type
] = {}  # CoOpDSPT, CoOpGCE, ...: every declared learner with every method that goes with it
NO_METHOD = "CE"  # the method of a prompt learner alone


class Pair(NamedTuple):
    """What a trainer's name stands for: what is learned, and how labels teach it."""

    learner: str
    method: str

    @property
    def learns(self) -> bool:
        """Return whether anything is learned; zero-shot CLIP learns nothing."""
        return self.learner != ZeroshotCLIP.__name__


def pair_of(name: str) -> Pair:
    """Return the pair that a trainer's name stands for; it need not be registered.

    A class with its own `pair` (ours, those of `with_loss`) gives it. In any other name, the longest learner's name at
    the start is the learner, and the rest is the method. The method is CE if nothing is left, and "" for zero-shot
    CLIP. Any other name is a learner of another repository, and its method is unknown ("").

    >>> pair_of("CoCoOpDSPT")
    Pair(learner='CoCoOp', method='DSPT')
    >>> pair_of("CoOpFocal"), pair_of("CoPrompt")
    (Pair(learner='CoOp', method='Focal'), Pair(learner='CoPrompt', method=''))
    """
    trainer = TRAINER_REGISTRY.get(name) if name in TRAINER_REGISTRY.registered_names() else None
    own = vars(trainer).get("pair") if isinstance(trainer, type) else None
    if own is not None:
        return own
    learner = max((known for known in _learners() if name.startswith(known)), key=len, default=None)
    if learner is None:
        return Pair(name, "")
    is_zero_shot = learner == ZeroshotCLIP.__name__
    return Pair(learner, name.removeprefix(learner) or ("" if is_zero_shot else NO_METHOD))


def method_name(mixin: type) -> str:
    """Return the name of a method's mixin in trainers' names, or the class's name if it is not declared."""
    return next((name for name, declared in METHODS.items() if declared is mixin), mixin.__name__)


def configurations_folder(trainer: str) -> str:
    """Return the name of the folder in configs/trainers with the configurations of a trainer's prompt learner."""
    learner = pair_of(trainer).learner
    return getattr(_learners().get(learner), "configurations_folder", "") or learner


def configuration(trainer: str, protocol: str, dataset: str = "", shots: int = 0) -> str:
    """Return the name of the configuration that a trainer's prompt learner declares for a protocol, or "embedded".

    If it depends on the data set's name and on the shots, the data set's name decides. Raises UserError if there is
    none.
    """
    declared = getattr(_learners().get(pair_of(trainer).learner), "configurations", {})
    named = declared.get(protocol)
    if isinstance(named, dict):
        named = named.get(dataset, named.get(shots, named.get("")))
    if not named:
        raise UserError(
            f"{trainer} does not declare a configuration for {protocol}, only for {', '.join(declared) or 'nothing'}: "
            "give one by --config."
        )
    return named


def _learners() -> dict[str, type]:
    return {**LEARNERS, ZeroshotCLIP.__name__: ZeroshotCLIP}


def _combine():
    """Add the pairs of what was declared since the last call."""
    for learner in LEARNERS.values():
        for suffix, method in METHODS.items():
            name = learner.__name__ + suffix
            if name not in METHOD_TRAINERS and getattr(method, "goes_with", lambda learner: True)(learner):
                doc, pair = f"{name}: {method.__doc__}", Pair(learner.__name__, suffix)
                fields = {"__module__": __name__, "__doc__": doc, "pair": pair}
                METHOD_TRAINERS[name] = type(name, (method, learner), fields)


_combine()


def register_methods():
    """Register our methods and the baselines on the prompt learners that they go with."""
    _combine()
    if yields_to_later_names():
        for trainer in METHOD_TRAINERS.values():
            TRAINER_REGISTRY.register_default(trainer)
    else:
        _register(METHOD_TRAINERS.values())


def yields_to_later_names():
    """Return whether other code can take the name of our trainer later; in upstream's Dassl it cannot."""
    return hasattr(TRAINER_REGISTRY, "register_default")


def register_standard_trainers():
    """Register the prompt learners and ZeroshotCLIP; a fork has its own."""
    _register(_learners().values())


def _register(trainers):
    taken = TRAINER_REGISTRY.registered_names()
    for trainer in trainers:
        if trainer.__name__ not in taken:
            TRAINER_REGISTRY.register(trainer)
