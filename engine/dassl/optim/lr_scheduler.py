"""Learning-rate schedules, one step per epoch: torch's, behind an optional warm-up.

The saved state of a schedule is its number of steps. Loading replays these steps under the current configuration. So a
changed MAX_EPOCH or STEPSIZE has its effect, and a resumed run has exactly the learning rates of an uninterrupted one.
"""

import warnings

from torch.optim import lr_scheduler

from dassl.utils import InvalidInputError, is_count

__all__ = ["AVAI_SCHEDS", "ConstantWarmupScheduler", "LinearWarmupScheduler", "build_lr_scheduler"]

MAX_STEPS = 10**6  # a file with more steps has a wrong number
AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


def _rewind(scheduler, last_epoch, lrs):
    """Set a scheduler and its optimiser back to a known epoch and its learning rates."""
    scheduler.last_epoch = last_epoch
    scheduler._last_lr = list(lrs)
    for group, lr in zip(scheduler.optimizer.param_groups, lrs):
        group["lr"] = lr


class _Replayed(lr_scheduler.LRScheduler):
    """Mixin for torch schedulers: plain state, restored by replaying steps."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._first_lrs = list(self.get_last_lr())

    def state_dict(self):
        """Return a plain dict: the number of steps and, for the reader, the current learning rates."""
        return {"last_epoch": self.last_epoch, "_last_lr": list(self.get_last_lr())}

    def load_state_dict(self, state_dict):
        """Take `state_dict["last_epoch"]` steps from the start; raises InvalidInputError for anything but a number."""
        steps = state_dict.get("last_epoch")
        if not is_count(steps) or steps > MAX_STEPS:
            raise InvalidInputError(
                f"A schedule's last_epoch has to be a number from 0 to {MAX_STEPS}, but it is {steps!r}"
            )
        self.rewind()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's check that the optimiser stepped in between
            for _ in range(steps):
                self.step()

    def rewind(self):
        """Go back to epoch 0."""
        _rewind(self, 0, self._first_lrs)


class StepLR(_Replayed, lr_scheduler.StepLR):
    """base_lr x gamma^floor(epoch / step_size)."""


class MultiStepLR(_Replayed, lr_scheduler.MultiStepLR):
    """base_lr x gamma^(number of milestones <= epoch)."""


class CosineAnnealingLR(_Replayed, lr_scheduler.CosineAnnealingLR):
    """base_lr / 2 x (1 + cos(pi epoch / T_max))."""


class _WarmupScheduler(_Replayed):
    """Warm-up learning rates for `warmup_epoch` epochs, then the schedule `successor` from its current epoch.

    `last_epoch` counts all epochs; the successor counts its own.
    """

    def __init__(self, optimizer, successor, warmup_epoch, last_epoch=-1):
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        self._successor_start = successor.last_epoch, list(successor.get_last_lr())
        super().__init__(optimizer, last_epoch)

    def _warmup_lr(self, base_lr):
        raise NotImplementedError

    def get_lr(self):
        """Return the learning rate of each parameter group in the warm-up, and the successor's at its end."""
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        return [self._warmup_lr(base_lr) for base_lr in self.base_lrs]

    def step(self, epoch=None):
        """Go to the next epoch (`epoch` is accepted and ignored)."""
        if self.last_epoch < self.warmup_epoch:
            super().step()
        else:
            self.successor.step()
            self.last_epoch += 1
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self):
        """Return a plain nested dict."""
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def rewind(self):
        """Go back to epoch 0, and set the successor back to its state before the warm-up."""
        _rewind(self.successor, *self._successor_start)
        super().rewind()


class ConstantWarmupScheduler(_WarmupScheduler):
    """`cons_lr` for every group while epoch < `warmup_epoch`, then `successor`."""

    def __init__(self, optimizer, successor, warmup_epoch, cons_lr, last_epoch=-1, verbose=False):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def _warmup_lr(self, base_lr):
        return self.cons_lr


class LinearWarmupScheduler(_WarmupScheduler):
    """`min_lr` at epoch 0, base_lr x epoch / `warmup_epoch` until `warmup_epoch`, then `successor`."""

    def __init__(self, optimizer, successor, warmup_epoch, min_lr, last_epoch=-1, verbose=False):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def _warmup_lr(self, base_lr):
        return self.min_lr if self.last_epoch == 0 else base_lr * self.last_epoch / self.warmup_epoch


def build_lr_scheduler(optimizer, optim_cfg):
    """Return the schedule that `optim_cfg` (the OPTIM node) describes, to be stepped once per epoch.

    Raises ValueError for unknown names, TypeError for a STEPSIZE of the wrong type.
    """
    scheduler = _build_main(optimizer, optim_cfg)
    warmup_epoch = optim_cfg.WARMUP_EPOCH
    if warmup_epoch <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup_epoch
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_CONS_LR)
    if optim_cfg.WARMUP_TYPE == "linear":
        return LinearWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_MIN_LR)
    raise InvalidInputError(f"WARMUP_TYPE must be one of ['linear', 'constant'], but got {optim_cfg.WARMUP_TYPE}")


def _build_main(optimizer, optim_cfg):
    name, stepsize = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE
    if name not in AVAI_SCHEDS:
        raise InvalidInputError(f"scheduler must be one of {AVAI_SCHEDS}, but got {name}")
    if name == "cosine":
        return CosineAnnealingLR(optimizer, float(optim_cfg.MAX_EPOCH))
    if name == "multi_step":
        if not isinstance(stepsize, (list, tuple)):
            raise TypeError(f"For multi_step lr_scheduler, stepsize must be a list, but got {type(stepsize)}")
        return MultiStepLR(optimizer, milestones=stepsize, gamma=optim_cfg.GAMMA)
    if isinstance(stepsize, (list, tuple)):
        stepsize = stepsize[-1]
    if not isinstance(stepsize, int):
        raise TypeError(f"For single_step lr_scheduler, stepsize must be an integer, but got {type(stepsize)}")
    return StepLR(optimizer, stepsize if stepsize > 0 else optim_cfg.MAX_EPOCH, gamma=optim_cfg.GAMMA)
