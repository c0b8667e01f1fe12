"""`with_loss`: a trainer of another repository with a new loss in place of its cross-entropy."""

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from dassl.engine import TrainerBase
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import check_own_values
from dspt_atlas.trainers.registry import Pair, method_name, pair_of
from dspt_atlas.trainers.trainer import PromptTrainer

CURE = (
    "compute the whole loss of every step by F.cross_entropy(self.model(image), label), or use a trainer of ours, such "
    "as CoOpDSPT, CoCoOpDSPT or MaPLeDSPT."
)
NO_CALL = "its step does not call F.cross_entropy with labels outside of the model"


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
    """Yield the one `_Watch` of a trainer; the outermost method that asks makes it."""
    if "_loss_watch" in vars(trainer):
        yield trainer._loss_watch
        return
    watch = trainer._loss_watch = _Watch(trainer)
    hook = register_optimizer_step_pre_hook(lambda optimiser, args, kwargs: watch.check_step(optimiser))
    try:
        yield watch
    finally:
        hook.remove()
        del trainer._loss_watch


class _Watch:
    """What is known of a training's losses: which were replaced, and whether the optimisers learn only from these."""

    def __init__(self, trainer):
        self.trainer, self.batch = trainer, {}
        self.labels = {}  # tensors that were made from the batch's labels, by id
        self.calls = self.passes = 0  # replaced cross-entropies, and backward passes through them
        self.epochs = self.passes_before_epoch = 0
        self.has_other = False  # the gradients also come from a backward pass without a replaced cross-entropy
        self.in_model = self.is_replacing = False
        self.stepped = {}  # optimiser: passes at its last step

    @contextmanager
    def replacing(self):
        """Replace the cross-entropy inside the block; raises UserError if it could not be seen."""
        if self.is_replacing:
            yield
            return
        model = getattr(self.trainer, "model", None)
        if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            self.refuse(
                "its model computes in threads of nn.DataParallel, one per GPU, and no loss is seen there; "
                "set CUDA_VISIBLE_DEVICES to one GPU"
            )
        hooks = []
        if model is not None:
            hooks.append(model.register_forward_pre_hook(lambda module, inputs: self._note(True)))
            hooks.append(model.register_forward_hook(lambda module, inputs, output: self._note(False)))
        self.is_replacing = True
        try:
            with _CrossEntropyReplaced(self):
                yield
        finally:
            self.is_replacing = self.in_model = False
            for hook in hooks:
                hook.remove()

    def take(self, batch):
        """Start a step on a batch, or end one (None)."""
        self.batch = batch if isinstance(batch, dict) else {}
        self.labels = {id(self.batch["label"]): self.batch["label"]} if "label" in self.batch else {}

    def follow_labels(self, inputs, result):
        """Note the tensors that a function of torch makes from labels; raises UserError if they have gradients."""
        if not any(id(tensor) in self.labels for tensor in _tensors(inputs)):
            return
        for tensor in _tensors(result):
            if tensor.requires_grad:
                self.refuse("it also learns from labels outside the cross-entropy that is replaced")
            self.labels[id(tensor)] = tensor

    def _note(self, in_model):
        self.in_model = in_model

    def cross_entropy(self, *args, **kwargs):
        """Return the trainer's loss in place of a cross-entropy with hard labels that has a gradient."""
        call = inspect.signature(F.cross_entropy).bind(*args, **kwargs)
        logits, target = call.arguments.pop("input"), call.arguments.pop("target")
        if logits.dim() != 2 or target.dim() != 1 or not (logits.requires_grad and torch.is_grad_enabled()):
            result = F.cross_entropy(*args, **kwargs)
            self.follow_labels([args, kwargs], result)
            return result
        if self.in_model:
            self.refuse("its model computes the cross-entropy itself and returns the loss")
        defaults = inspect.signature(F.cross_entropy).parameters
        changed = [f"{key}={value}" for key, value in call.arguments.items() if value != defaults[key].default]
        if changed:
            self.refuse(f"its cross-entropy has settings that would be lost ({', '.join(changed)})")
        self.calls += 1
        loss = self.trainer._criterion(logits, self._batch_of(target))
        if not (torch.is_tensor(loss) and loss.dim() == 0 and loss.requires_grad):
            raise UserError(
                f"Expected the loss of {type(self.trainer).__name__} to return a scalar tensor with a gradient, "
                f"got {loss!r}."
            )
        loss.register_hook(self._count)
        return loss

    def _count(self, gradient):
        self.passes += 1

    def _batch_of(self, target):
        """Return the batch of a call's labels; if the labels are repeated n times, so are the indices."""
        label, index = self.batch.get("label"), self.batch.get("index")
        if label is None:
            return {"label": target}
        times, rest = divmod(len(target), len(label))
        if rest or not torch.equal(target.cpu(), label.cpu().repeat(times)):
            self.refuse("its cross-entropy does not use the labels of the batch")
        if times > 1:
            return {"label": target} if index is None else {"label": target, "index": index.repeat(times)}
        return {**self.batch, "label": target}

    def backward(self, *args, **kwargs):
        """Go backward, and note whether that adds gradients that do not come from a replaced cross-entropy."""
        parameters = self._parameters()
        if self.has_other and not any(p.grad is not None and p.grad.any() for p in parameters):
            self.has_other = False
        passes, before = self.passes, [_state(parameter.grad) for parameter in parameters]
        Tensor.backward(*args, **kwargs)
        if self.passes == passes and before != [_state(parameter.grad) for parameter in parameters]:
            self.has_other = True

    def _parameters(self):
        modules = [*self.trainer._models.values(), getattr(self.trainer, "model", None)]
        found = {p: None for module in modules if isinstance(module, nn.Module) for p in module.parameters()}
        return [parameter for parameter in found if parameter.requires_grad]

    def check_step(self, optimiser):
        """Raise UserError before an optimiser steps if it does not learn only from replaced cross-entropies."""
        learned = {id(parameter) for parameter in self._parameters()}
        if not any(id(parameter) in learned for group in optimiser.param_groups for parameter in group["params"]):
            return
        if not self.calls:
            self.refuse(NO_CALL)
        if self.has_other or self.passes == self.stepped.get(optimiser, 0):
            self.refuse(
                "a step learns from a loss that is not a replaced cross-entropy, or also from one with its own "
                "backward pass"
            )
        self.stepped[optimiser] = self.passes

    def check_epoch(self):
        """Raise UserError if nothing was learned from a replaced cross-entropy since the last call."""
        if self.passes == self.passes_before_epoch:
            self.refuse(NO_CALL)
        self.passes_before_epoch, self.epochs = self.passes, self.epochs + 1

    def refuse(self, reason):
        """Raise UserError."""
        name, epoch = type(self.trainer).__name__, getattr(self.trainer, "epoch", 0) + 1
        raise UserError(f"{name}: the trainer hides its loss from with_loss: {reason} (epoch {epoch}); {CURE}")


def _state(gradient):
    return None if gradient is None else (id(gradient), gradient._version)


def _tensors(value):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


class _CrossEntropyReplaced(TorchFunctionMode):
    """Gives F.cross_entropy (nn.CrossEntropyLoss) and Tensor.backward to a watch, and shows it all other calls."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.cross_entropy:
            return self.watch.cross_entropy(*args, **kwargs)
        if func is Tensor.backward:
            return self.watch.backward(*args, **kwargs)
        result = func(*args, **kwargs)
        if self.watch.labels:
            self.watch.follow_labels([args, kwargs], result)
        return result
