"""Global generator states as plain tensors and numbers, fit for `torch.load(weights_only=True)`."""

import random

import numpy as np
import torch

from .errors import InvalidInputError

__all__ = ["get_random_state", "set_random_state"]


def get_random_state():
    """Return the states of `random`, NumPy's global generator, torch and all CUDA devices as a nested dict."""
    version, internal, gauss_next = random.getstate()
    state = np.random.get_state(legacy=False)
    return {
        "python": {"version": version, "internal": list(internal), "gauss_next": gauss_next},
        "numpy": {
            "key": torch.from_numpy(state["state"]["key"].astype(np.int64)),
            "pos": int(state["state"]["pos"]),
            "has_gauss": int(state["has_gauss"]),
            "gauss": float(state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state):
    """Restore the states of `get_random_state`; CUDA states only if the number of devices is the same.

    Raises InvalidInputError for anything else; then all generators are as before.
    """
    before = get_random_state()
    try:
        _set_random_state(state)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        _set_random_state(before)
        raise InvalidInputError(f"The checkpoint does not hold the state of the random generators ({error})") from error


def _set_random_state(state):
    python, numpy = state["python"], state["numpy"]
    key, position, spare = numpy["key"].numpy(), numpy["pos"], (python["gauss_next"], float(numpy["gauss"]))
    is_sound = key.shape == (624,) and key.min() >= 0 and key.max() < 2**32 and 0 <= position <= 624
    if not is_sound or not isinstance(spare[0], (float, type(None))) or numpy["has_gauss"] not in (0, 1):
        raise ValueError("its numbers are out of range")
    random.setstate((python["version"], tuple(python["internal"]), spare[0]))
    np.random.set_state(("MT19937", key.astype(np.uint32), position, numpy["has_gauss"], spare[1]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
