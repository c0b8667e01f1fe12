"""Declarations of prompt learners and methods: a new one needs only a file in learners/ or methods/."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a method stands before a learner's class in a trainer, and there has all of it
    from dspt_atlas.trainers.trainer import PromptTrainer as Method
else:
    Method = object

LEARNERS: dict[str, type] = {}  # by name: the trainer that teaches by cross-entropy
METHODS: dict[str, type] = {}  # the mixin, by the part of a trainer's name after the learner's


def learner(**configurations: str | dict):
    """Declare a prompt learner, a subclass of PromptTrainer, under the class's name. A decorator.

    configurations: the names of its yaml files in configs/trainers/<learner>, by protocol, for the `embedded` data, and
    for `photos` where OpenAI's weights cannot be had. If a name depends on the data set or on the shots, it is a dict
    of these, with "" for all others. The class has its `config_node` (TRAINER.<NODE> holds its keys) and the other
    attributes that PromptTrainer lists. It may add a `regulariser`; how labels teach belongs to a method.
    """

    def declare(trainer: type) -> type:
        _check(trainer, "a prompt learner", "criterion", "config_node")
        trainer.configurations = configurations
        LEARNERS[trainer.__name__] = trainer
        return trainer

    return declare


def method(name: str):
    """Declare a method, a mixin that stands before a learner's class, as `name` in trainers' names. A decorator.

    Its keys are those of TRAINER.<NAME in capitals>. `goes_with(learner)`, a static method, says with which learners it
    is combined; without it, with all. It may give a `criterion`; the learned parameters belong to a learner.
    """

    def declare(mixin: type) -> type:
        _check(mixin, "a method", "regulariser")
        mixin.method_node = name.upper()
        METHODS[name] = mixin
        return mixin

    return declare


def _check(cls, what, forbidden, *needed):
    if forbidden in vars(cls):
        raise TypeError(
            f"{cls.__name__} is {what} and cannot have a {forbidden}: the other of the pair would be silent."
        )
    for name in needed:
        if not getattr(cls, name, ""):
            raise TypeError(f"{cls.__name__} is {what} and has to declare its {name}.")
