"""`with_loss`: a trainer of another repository with a new loss in place of its cross-entropy."""

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dassl.engine import TrainerBase
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import check_own_values
from dspt_atlas.trainers.registry import Pair, method_name, pair_of
from dspt_atlas.trainers.trainer import PromptTrainer
from dspt_atlas.trainers.with_loss.watch import NO_CALL, Watch

if TYPE_CHECKING:
    from dassl.engine import SimpleTrainer as _Theirs
else:
    _Theirs = object


def with_loss(trainer, loss, name=None):
    """Return a subclass of `trainer` that minimises `loss` in place of the cross-entropy in its steps.

    `loss`: a mixin (DoubleSoftmax, GCE, MAE; GCE reads TRAINER.GCE.Q), or a function of logits (B, C) and target (B,)
    int64 that returns a scalar. `name`: of the class; by default the trainer's and the loss's names joined. Precision,
    further loss terms without labels, optimiser and printed lines stay the trainer's. The class is not registered.

    Raises UserError for other arguments. Some trainers hide their loss: the model returns the loss, or the trainer does
    not call F.cross_entropy, or it does so with settings that `loss` would drop. Then UserError is raised before the
    first step that would learn from something else, whatever its name is, and after an epoch in which nothing was
    replaced.
    """
    if not (isinstance(trainer, type) and issubclass(trainer, TrainerBase)):
        raise UserError(f"Expected a trainer class, such as CoOp, as first argument of with_loss, got {trainer!r}.")
    mixin: Any = loss if isinstance(loss, type) else _as_mixin(loss)
    criterion = next((found for name in ("criterion", "loss") if callable(found := getattr(mixin, name, None))), None)
    if criterion is None:
        raise UserError(f"Expected DoubleSoftmax, GCE, MAE or a function of logits and target as loss, got {loss!r}.")
    steps = [step for step in dir(mixin) if step[:2] != "__" and callable(getattr(PromptTrainer, step, None))]
    if more := [step for step in steps if step not in ("criterion", "loss", "check_cfg")]:
        raise UserError(
            f"{mixin.__name__} is more than a loss (it changes {', '.join(more)}): use CoOp{mixin.__name__}, which "
            "is registered."
        )
    ours = issubclass(trainer, PromptTrainer)
    if not ours and (hasattr(trainer, "loss") or issubclass(trainer, _ReplacedLoss)):
        raise UserError(f"{trainer.__name__} has its own method `loss`: override that method in a subclass.")
    name = name or trainer.__name__ + mixin.__name__
    doc = f"{trainer.__name__} with the loss {mixin.__name__}."
    bases: tuple = (mixin, trainer) if ours else (_ReplacedLoss, mixin, trainer)
    pair = Pair(pair_of(trainer.__name__).learner, method_name(mixin))
    fields = {"__doc__": doc, "__module__": trainer.__module__, "pair": pair, "_criterion": criterion}
    if not ours and hasattr(trainer, "criterion"):  # a method of theirs, which the mixin's would hide
        fields["criterion"] = inspect.getattr_static(trainer, "criterion")
    return type(name, bases, fields)


def _as_mixin(function):
    if not callable(function):
        return None
    name = getattr(function, "__name__", type(function).__name__)
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_") if part.isidentifier())
    return type(title, (), {"criterion": lambda self, logits, batch: function(logits, batch["label"])})


class _ReplacedLoss(_Theirs):
    """Runs the trainer's own steps with `loss` in place of their cross-entropy, and refuses every other step."""

    def check_cfg(self, cfg):
        """Raise UserError for settings of the loss that are not allowed."""
        super().check_cfg(cfg)
        check_own_values(cfg, *filter(None, [getattr(self, "method_node", "")]))

    def train(self, *others):
        """Train as the trainer does; raises UserError if the loss is hidden."""
        with _watched(self) as watch:
            result = super().train(*others)
            if not watch.epochs and getattr(self, "start_epoch", 0) < getattr(self, "max_epoch", 1):
                watch.check_epoch()
        return result

    def run_epoch(self, *others):
        """Run the trainer's epoch with the cross-entropy of its steps replaced, whatever their names are."""
        with _watched(self) as watch, watch.replacing():
            return super().run_epoch(*others)

    def after_epoch(self, *others):
        """Do the trainer's work after an epoch; first raises UserError if the epoch replaced no loss."""
        with _watched(self) as watch:
            watch.check_epoch()
            return super().after_epoch(*others)

    def parse_batch_train(self, batch, *others):
        """Return the trainer's parts of a batch."""
        with _watched(self) as watch:
            watch.take(batch)
        return super().parse_batch_train(batch, *others)

    def forward_backward(self, batch, *others):
        """Take the trainer's step and return its value; raises UserError if the loss is hidden."""
        with _watched(self) as watch, watch.replacing():
            before = watch.calls
            watch.take(batch)
            summary = super().forward_backward(batch, *others)
            watch.take(None)
            if watch.calls == before:
                watch.refuse(NO_CALL)
        return summary


@contextmanager
def _watched(trainer):
    """Yield the one `Watch` of a trainer; the outermost method that asks makes it."""
    if "_loss_watch" in vars(trainer):
        yield trainer._loss_watch
        return
    watch = trainer._loss_watch = Watch(trainer)
    hook = register_optimizer_step_pre_hook(lambda optimiser, args, kwargs: watch.check_step(optimiser))
    try:
        yield watch
    finally:
        hook.remove()
        del trainer._loss_watch
