"""`with_loss`: a trainer of another repository with another loss in place of its cross-entropy."""

import inspect

import torch.nn.functional as F
from dassl.engine import TrainerBase
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from .base import PromptTrainer

CURE = (
    "compute the loss in forward_backward by F.cross_entropy(self.model(image), label), or use a trainer of ours, such "
    "as CoOpDSPT, CoCoOpDSPT or MaPLeDSPT."
)


def with_loss(trainer, loss, name=None):
    """Return a subclass of `trainer` that minimises `loss` in place of the cross-entropy in its `forward_backward`.

    `loss`: a mixin (DoubleSoftmax, GCE, MAE; GCE reads TRAINER.GCE.Q), or a function of logits (B, C) and target (B,)
    int64 that returns a scalar. `name`: the class's, else the trainer's and the loss's names joined. All else stays the
    trainer's: precision, further loss terms, optimiser, what it prints. The class is not registered.

    Raises UserError for arguments that are none of these. A trainer that hides its loss (its model returns the loss, or
    it does not call F.cross_entropy, or with settings that `loss` would drop) raises UserError in its first training
    step, before anything is learned.
    """
    if not (isinstance(trainer, type) and issubclass(trainer, TrainerBase)):
        raise UserError(f"Expected a trainer class, such as CoOp, as first argument of with_loss, got {trainer!r}.")
    mixin = loss if isinstance(loss, type) else _as_mixin(loss)
    if not callable(getattr(mixin, "loss", None)):
        raise UserError(f"Expected DoubleSoftmax, GCE, MAE or a function of logits and target as loss, got {loss!r}.")
    steps = [step for step in dir(mixin) if not step.startswith("__") and hasattr(PromptTrainer, step)]
    if more := [step for step in steps if step not in ("loss", "check_cfg")]:
        raise UserError(
            f"{mixin.__name__} is more than a loss (it changes {', '.join(more)}): use CoOp{mixin.__name__}, which "
            "is registered."
        )
    ours = issubclass(trainer, PromptTrainer)
    if not ours and hasattr(trainer, "loss"):
        raise UserError(f"{trainer.__name__} has a method `loss` of its own: override that in a subclass of it.")
    name = name or trainer.__name__ + mixin.__name__
    doc = f"{trainer.__name__} with the loss {mixin.__name__}."
    bases = (mixin, trainer) if ours else (_ReplacedLoss, mixin, trainer)
    return type(name, bases, {"__doc__": doc, "__module__": trainer.__module__})


def _as_mixin(function):
    if not callable(function):
        return None
    name = getattr(function, "__name__", type(function).__name__)
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_") if part.isidentifier())
    return type(title, (), {"loss": lambda self, logits, batch: function(logits, batch["label"])})


class _ReplacedLoss:
    """Runs the trainer's own step with its cross-entropy replaced by `loss`."""

    def forward_backward(self, batch, *others):
        """Take the trainer's step and return what it returns; raises UserError if the loss is hidden."""
        mode, model = _CrossEntropyReplaced(self, batch), getattr(self, "model", None)
        hooks = [] if model is None else mode.watch(model)
        try:
            with mode:
                summary = super().forward_backward(batch, *others)
        finally:
            for hook in hooks:
                hook.remove()
        mode.check_replaced()
        return summary


class _CrossEntropyReplaced(TorchFunctionMode):
    """While active, computes the trainer's loss where F.cross_entropy (or nn.CrossEntropyLoss) meets hard labels."""

    def __init__(self, trainer, batch):
        super().__init__()
        self.trainer, self.batch = trainer, batch
        self.replaced = self.in_model = False

    def watch(self, model):
        """Note while `model` computes; return the hooks."""

        def note(value):
            self.in_model = value

        return [
            model.register_forward_pre_hook(lambda module, inputs: note(True)),
            model.register_forward_hook(lambda module, inputs, output: note(False)),
        ]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.cross_entropy:
            return self._cross_entropy(*args, **kwargs)
        if func is Tensor.backward:
            self.check_replaced()
        return func(*args, **kwargs)

    def _cross_entropy(self, *args, **kwargs):
        call = inspect.signature(F.cross_entropy).bind(*args, **kwargs)
        logits, target = call.arguments.pop("input"), call.arguments.pop("target")
        if logits.dim() != 2 or target.dim() != 1:
            return F.cross_entropy(*args, **kwargs)
        if self.in_model:
            self._refuse("its model computes the cross-entropy itself and returns the loss")
        defaults = inspect.signature(F.cross_entropy).parameters
        changed = [f"{key}={value}" for key, value in call.arguments.items() if value != defaults[key].default]
        if changed:
            self._refuse(f"its cross-entropy has settings that would be lost ({', '.join(changed)})")
        self.replaced = True
        # The class's, since trainers of the family also keep criteria in attributes called `loss`.
        return type(self.trainer).loss(self.trainer, logits, {**self.batch, "label": target})

    def check_replaced(self):
        """Raise UserError if the step has not computed a loss that could be replaced."""
        if not self.replaced:
            self._refuse("its step makes no call of F.cross_entropy with labels outside the model")

    def _refuse(self, reason):
        raise UserError(f"{type(self.trainer).__name__}: the trainer hides its loss from with_loss: {reason}; {CURE}")
