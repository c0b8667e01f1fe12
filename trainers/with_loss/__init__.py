"""`with_loss`: a trainer of another repository with a new loss in place of its cross-entropy."""

from contextlib import contextmanager
from functools import cached_property
from inspect import isfunction
from typing import TYPE_CHECKING, Any

from dassl.engine import TrainerBase
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.declare import METHODS
from dspt_atlas.trainers.registry import Pair, method_name, pair_of
from dspt_atlas.trainers.trainer import PromptTrainer
from dspt_atlas.trainers.with_loss.method import Host
from dspt_atlas.trainers.with_loss.watch import NO_CALL, Watch

if TYPE_CHECKING:
    from dassl.engine import SimpleTrainer as _Theirs
else:
    _Theirs = object

PARTS = ("criterion", "loss", "check_cfg", "build_state", "before_epoch")  # what a method may consist of


def with_loss(trainer, loss, name=None, *, dataset=None, clip_model=None):
    """Return a subclass of `trainer` that minimises `loss` in place of each cross-entropy in its steps.

    `loss`: a method's mixin (DoubleSoftmax, GCE, MAE, LS, ATLaS) or name ("DSPT"), which reads its keys of TRAINER, or
    a function of logits (B, C) and target (B,) int64 that returns a scalar. `name`: of the class; by default the
    trainer's and the loss's names joined. `dataset`, `clip_model`: functions of the trainer that return the training
    set, and CLIP without prompts, for ATLaS, where `trainer.dm.dataset` and MODEL.BACKBONE.NAME do not say them.
    Precision, further loss terms without labels, optimiser and printed lines stay the trainer's, whether the step or
    the model's forward calls F.cross_entropy, and how often. The class is not registered.

    Raises UserError for other arguments. Some trainers learn from labels in another way: they do not call
    F.cross_entropy, or with other targets than the batch's labels, or with settings that `loss` would drop. Then
    UserError is raised before the first step that would learn from it, whatever its name is, and after an epoch in
    which nothing was replaced.
    """
    if not (isinstance(trainer, type) and issubclass(trainer, TrainerBase)):
        raise UserError(f"Expected a trainer class, such as CoOp, as first argument of with_loss, got {trainer!r}.")
    mixin: Any = METHODS.get(loss) if isinstance(loss, str) else loss if isinstance(loss, type) else _as_mixin(loss)
    criterion = next((found for name in ("criterion", "loss") if callable(found := getattr(mixin, name, None))), None)
    if criterion is None:
        raise UserError(
            f"Expected DoubleSoftmax, GCE, MAE, LS, ATLaS, a method's name ({', '.join(METHODS)}) or a function of "
            f"logits and target as loss, got {loss!r}."
        )
    steps = [step for step in dir(mixin) if step[:2] != "__" and isfunction(getattr(PromptTrainer, step, None))]
    if more := [step for step in steps if step not in PARTS]:
        raise UserError(
            f"{mixin.__name__} is more than a loss (it changes {', '.join(more)}): use it with a prompt learner of "
            f"ours, as CoOp{method_name(mixin)}."
        )
    if issubclass(trainer, _ReplacedLoss):
        raise UserError(f"The `loss` of {trainer.__name__} is replaced already: give with_loss the class before it.")
    name = name or trainer.__name__ + (loss if isinstance(loss, str) else mixin.__name__)
    pair = Pair(pair_of(trainer.__name__).learner, method_name(mixin))
    doc = f"{trainer.__name__} with the loss {mixin.__name__}."
    fields: dict = {"__doc__": doc, "__module__": trainer.__module__, "pair": pair}
    if issubclass(trainer, PromptTrainer):
        return type(name, (mixin, trainer), fields)
    method = type(mixin.__name__, (mixin, Host), {"criterion": criterion})
    fields["_loss_method"] = cached_property(lambda self: method(self, dataset, clip_model))
    return type(name, (_ReplacedLoss, trainer), fields)


def _as_mixin(function):
    if not callable(function):
        return None
    name = getattr(function, "__name__", type(function).__name__)
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_") if part.isidentifier())
    return type(title, (), {"criterion": lambda self, logits, batch: function(logits, batch["label"])})


class _ReplacedLoss(_Theirs):
    """Runs the trainer's own steps with a method in place of their cross-entropy, and refuses every other step."""

    _loss_method: Host

    def check_cfg(self, cfg):
        """Raise UserError for settings of the loss that are not allowed."""
        super().check_cfg(cfg)
        self._loss_method.check_cfg(cfg)

    def train(self, *others):
        """Train as the trainer does; raises UserError if the loss is hidden."""
        with _watched(self) as watch:
            result = super().train(*others)
            if not watch.epochs and getattr(self, "start_epoch", 0) < getattr(self, "max_epoch", 1):
                watch.check_epoch()
        return result

    def before_epoch(self, *others):
        """Do the trainer's work before an epoch, and the method's."""
        super().before_epoch(*others)
        self._loss_method.before_epoch()

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
    watch = trainer._loss_watch = Watch(trainer, trainer._loss_method)
    hook = register_optimizer_step_pre_hook(lambda optimiser, args, kwargs: watch.check_step(optimiser))
    try:
        yield watch
    finally:
        hook.remove()
        del trainer._loss_watch
