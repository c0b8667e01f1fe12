"""Checks of a checkpoint's fields before any of them is restored."""

import math
import os
import re
from typing import TypeGuard

import torch

from .errors import InvalidInputError

__all__ = ["check_run_fields", "is_count"]

# Elementwise optimisers keep these values per parameter, in its shape.
_MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg")


def is_count(value) -> TypeGuard[int]:
    """Return whether a value is a whole number from 0 on (True and False are not)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_run_fields(checkpoint, path, max_epoch=None):
    """Raise InvalidInputError if a field of the checkpoint at `path` cannot be true; the message names the field.

    `epoch` has to be a number of finished epochs, at most `max_epoch`, and the same as in the file's name. Optimiser,
    schedule and scaler need finite numbers, and results need numbers. Fields that are missing or None are skipped.
    """
    try:
        problem = next(_problems(checkpoint, os.path.basename(path), max_epoch), None)
    except (AttributeError, TypeError) as error:  # a list instead of a dict, and so on
        problem = f"its optimizer is malformed ({error})"
    if problem:
        raise InvalidInputError(f'"{path}" cannot be used: {problem}; it was changed or damaged: choose another folder')


def _problems(checkpoint, name, max_epoch):
    if "epoch" in checkpoint:
        yield from _epoch_problems(checkpoint["epoch"], name, max_epoch)
    for field in ("val_result", "best_result"):
        if not (checkpoint.get(field) is None or _is_number(checkpoint[field])):
            yield f"its {field} is {_shown(checkpoint[field])}, not a number"
    for field in ("optimizer", "sampler_plans", "scaler", "extra_state", "random_state"):
        if not isinstance(checkpoint.get(field), (dict, type(None))):
            yield f"its {field} is a {type(checkpoint[field]).__name__}"
    for field in ("optimizer", "scaler"):
        if (number := next(_not_finite(checkpoint.get(field)), None)) is not None:
            yield f"its {field} holds {_shown(number)}"
    for group in (checkpoint.get("optimizer") or {}).get("param_groups") or ():
        for key, value in group.items():
            if isinstance(value, str) or (isinstance(value, (int, float)) and value < 0):
                yield f"{key} of its optimizer is {_shown(value)}"
    scheduler = checkpoint.get("scheduler")
    if isinstance(scheduler, dict) and not is_count(scheduler.get("last_epoch")):
        yield f"the last_epoch of its scheduler is {_shown(scheduler.get('last_epoch'))}"


def _epoch_problems(epoch, name, max_epoch):
    named = re.fullmatch(r"model\.pth\.tar-(\d+)", name)
    if not is_count(epoch):
        yield f"its epoch is {_shown(epoch)}, not a number of finished epochs"
    elif named and int(named[1]) != epoch:
        yield f"it is of epoch {epoch}, but its name says {named[1]}"
    elif max_epoch is not None and epoch > max_epoch:
        yield f"it is of epoch {epoch}, but OPTIM.MAX_EPOCH is {max_epoch}"


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _not_finite(value):
    """Yield the numbers in a nested value that are NaN or infinite."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _not_finite(item)
    elif isinstance(value, torch.Tensor):
        if not value.isfinite().all():
            yield "NaN or infinity"
    elif isinstance(value, float) and not math.isfinite(value):
        yield value


def _shown(value):
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def check_kinds(model, state_dict):
    """Raise ValueError if weights for floating-point weights are not floating-point: torch would change them."""
    for name, own in model.state_dict().items():
        given = state_dict.get(name)
        both = isinstance(own, torch.Tensor) and isinstance(given, torch.Tensor)
        if both and own.is_floating_point() != given.is_floating_point():
            raise ValueError(f"{name} is of {given.dtype} instead of {own.dtype}")


def check_moments(optimizer):
    """Raise ValueError unless an optimiser's values of each parameter have the parameter's shape."""
    for parameter, state in optimizer.state.items():
        for name in _MOMENTS:
            moment = state.get(name)
            if moment is not None and getattr(moment, "shape", None) != parameter.shape:
                raise ValueError(f"{name} of the optimizer does not have the shape {tuple(parameter.shape)}")
