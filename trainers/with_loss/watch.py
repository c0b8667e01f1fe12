"""What a step learns from: every cross-entropy is replaced, and every loss that is not one is refused."""

import inspect
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.trainer import repeat_batch

CURE = (
    "let the step, or the model's forward, compute what labels teach by F.cross_entropy(logits, label) alone, or use a "
    "trainer of ours, such as CoOpDSPT, CoCoOpDSPT or MaPLeDSPT."
)
# Functions that hand labels on as they are: what other functions make of them is no target.
# fmt: off
COPIES = {
    "__get__", "__getitem__", "cat", "clone", "concat", "contiguous", "cpu", "cuda", "detach", "expand", "flatten",
    "int", "long", "repeat", "repeat_interleave", "reshape", "squeeze", "stack", "tile", "to", "type", "unsqueeze",
    "view",
}
# fmt: on
NO_CALL = "its step does not call F.cross_entropy on logits (B, C) and the batch's labels (B,)"


class Watch:
    """What is known of a training's losses: which were replaced, and whether the optimisers learn only from these."""

    def __init__(self, trainer, method):
        self.trainer, self.method, self.batch = trainer, method, {}
        self.followed = {}  # by id: each tensor made from the batch's labels, and whether it is a copy of them
        self.calls = self.passes = 0  # replaced cross-entropies, and backward passes through them
        self.epochs = self.passes_before_epoch = 0
        self.has_other = False  # the gradients also come from a backward pass without a replaced cross-entropy
        self.is_replacing = False
        self.stepped = {}  # optimiser: passes at its last step

    @contextmanager
    def replacing(self):
        """Replace the cross-entropy inside the block; raises UserError if it could not be seen."""
        if self.is_replacing:
            yield
            return
        models = [value for value in vars(self.trainer).values() if isinstance(value, nn.Module)]
        parts = (module for model in models for module in model.modules() if isinstance(module, nn.DataParallel))
        if any(len(module.device_ids) > 1 for module in parts):
            self.refuse(
                "its model computes in threads of nn.DataParallel, one per GPU, and no loss is seen there; "
                "set CUDA_VISIBLE_DEVICES to one GPU"
            )
        self.method.prepare()
        self.is_replacing = True
        try:
            with _CrossEntropyReplaced(self):
                yield
        finally:
            self.is_replacing = False

    def take(self, batch):
        """Start a step on a batch, or end one (None)."""
        if batch is not self.batch:
            self.batch = batch if isinstance(batch, dict) else {}
            self.followed = {id(self.batch["label"]): (self.batch["label"], True)} if "label" in self.batch else {}

    def follow_labels(self, function, inputs, result):
        """Note the tensors that a function of torch makes from labels; a loss among them must not be learned from."""
        found = [self.followed.get(id(tensor)) for tensor in _tensors(inputs)]
        if not any(found):
            return
        is_copy = function.__name__ in COPIES and all(entry and entry[1] for entry in found)
        for tensor in _tensors(result):
            self.followed[id(tensor)] = tensor, is_copy
            if tensor.requires_grad and tensor.numel() == 1:
                tensor.register_hook(self._refuse_other_term)

    def _refuse_other_term(self, gradient=None):
        self.refuse("it also learns from labels outside the cross-entropy that is replaced")

    def cross_entropy(self, *args, **kwargs):
        """Return the method's criterion in place of a cross-entropy with hard labels that has a gradient."""
        call = inspect.signature(F.cross_entropy).bind(*args, **kwargs)
        logits, target = call.arguments.pop("input"), call.arguments.pop("target")
        if logits.dim() != 2 or target.dim() != 1 or not (logits.requires_grad and torch.is_grad_enabled()):
            result = F.cross_entropy(*args, **kwargs)
            self.follow_labels(F.cross_entropy, [args, kwargs], result)
            return result
        defaults = inspect.signature(F.cross_entropy).parameters
        changed = [f"{key}={value}" for key, value in call.arguments.items() if value != defaults[key].default]
        if changed:
            self.refuse(f"its cross-entropy has settings that would be lost ({', '.join(changed)})")
        if known := self.method.other_classes(logits):
            self.refuse(f"its logits are for {logits.shape[1]} classes, but the training set has {known}")
        self.calls += 1
        loss = self.method.criterion(logits, self._batch_of(target))
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
        """Return the batch of a call's labels; if the labels are repeated n times, so is what belongs to a sample."""
        label = self.batch.get("label")
        if label is None:
            self.refuse("its cross-entropy came before a batch was handed to parse_batch_train or forward_backward")
        if not self.followed.get(id(target), (target, False))[1]:
            self.refuse(
                "the targets of its cross-entropy are not copied from the batch's labels (DPC's are positions in the "
                "batch, which equal labels only by chance)"
            )
        times, rest = divmod(len(target), len(label))
        if rest or not torch.equal(target.cpu(), label.cpu().repeat(times)):
            self.refuse("the targets of its cross-entropy are neither the batch's labels nor their repetition")
        return self.method.batch(self.batch if times == 1 else repeat_batch(self.batch, times), target)

    def backward(self, *args, **kwargs):
        """Go backward, and note whether that adds gradients that do not come from a replaced cross-entropy."""
        if id(args[0]) in self.followed:
            self._refuse_other_term()
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
        if self.watch.followed:
            self.watch.follow_labels(func, [args, kwargs], args[0] if func is Tensor.__setitem__ else result)
        return result
