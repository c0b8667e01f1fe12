"""Declarations of prompt learners and methods: a file in learners/ or methods/ is all that a new one needs."""

LEARNERS: dict[str, type] = {}  # name: its trainer, which teaches by cross-entropy
METHODS: dict[str, type] = {}  # what a trainer's name has after the learner's: the mixin


def learner(**configurations: str | dict):
    """Declare a prompt learner, a subclass of PromptTrainer, under the class's name. A decorator.

    configurations: the names of its yaml files in configs/trainers/<learner>, by protocol, and for the `embedded` data.
    Where a name depends on the data set's name or on the shots, it is a dict of these, with "" for all others.
    The class names its `config_node` (TRAINER.<NODE> holds its keys) and what else PromptTrainer lists. It may add a
    `regulariser`; how labels teach is a method's.
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
    is combined; without it with all. It may give a `criterion`; what is learned, and how it is held, is a learner's.
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
            raise TypeError(f"{cls.__name__} is {what} and has to name its {name}.")
