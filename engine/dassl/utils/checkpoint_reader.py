"""Read checkpoints: plain ones through torch's weights-only loader, old ones through a restricted unpickler.

Upstream files with learning-rate warm-up contain live scheduler and optimizer objects. Torch's loader refuses them, and
an allow-list cannot admit them. The unpickler here admits tensors and plain containers, puts placeholders in the place
of scheduler and optimizer objects, and refuses everything else.
"""

import os
import pickle  # nosec B403: only to restrict it
from types import SimpleNamespace

import torch

from .errors import DamagedCheckpointError, InvalidInputError

__all__ = ["TRUSTED_GLOBALS", "Placeholder", "check_state_dict", "load_checkpoint"]

# "module.name" of the classes and functions that old checkpoints may contain; add to it to trust more.
TRUSTED_GLOBALS = {
    "__builtin__.dict",  # the names that pickle protocol 2, torch's default, writes
    "__builtin__.set",
    "builtins.dict",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
}


class Placeholder:
    """Replaces a pickled scheduler or optimizer object; takes any arguments and state, and keeps nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class _RefusedClassError(InvalidInputError, pickle.UnpicklingError):
    pass


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        """Return the object that a pickle names if it is on the list of trusted names; raise an error otherwise."""
        if f"{module}.".startswith(("torch.optim.", "dassl.optim.")):
            return Placeholder
        # No dots: newer pickle protocols would follow them through torch's attributes.
        is_tensor_type = (
            module == "torch"
            and "." not in name
            and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype))
        )
        if is_tensor_type or f"{module}.{name}" in TRUSTED_GLOBALS:
            return super().find_class(module, name)
        raise _RefusedClassError(
            f"refused class {module}.{name}: it may run any code. If you trust the file, allow it with "
            f'dassl.utils.checkpoint_reader.TRUSTED_GLOBALS.add("{module}.{name}") before loading'
        )


# torch.load expects this of its `pickle_module` argument.
_RESTRICTED = SimpleNamespace(
    __name__="restricted",
    Unpickler=_RestrictedUnpickler,
    load=lambda file, **kwargs: _RestrictedUnpickler(file, **kwargs).load(),
)


def load_checkpoint(fpath):
    """Return the dict saved at `fpath`, its tensors on the CPU, without ever unpickling unknown classes.

    Raises ValueError for None, OSError, DamagedCheckpointError, and InvalidInputError naming a refused class.
    """
    if fpath is None:
        raise ValueError("File path is None")
    if not os.path.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    with open(fpath, "rb"):  # from here on, an OSError means a truncated file
        pass
    try:
        try:
            checkpoint = torch.load(fpath, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            checkpoint = torch.load(fpath, map_location="cpu", pickle_module=_RESTRICTED)  # nosec B614: restricted above
        if not isinstance(checkpoint, dict):
            raise TypeError(f"it holds a {type(checkpoint).__name__}")
        _check_tensors(checkpoint.get("state_dict", {}))
        return checkpoint
    except _RefusedClassError:
        print(f'Unable to load checkpoint from "{fpath}"')
        raise
    except Exception as error:  # pickle, zip and torch raise many types for a damaged file
        print(f'Unable to load checkpoint from "{fpath}"')
        reason = f"{type(error).__name__}: {error}".split("\n")[0].split(". ")[0][:160]
        raise DamagedCheckpointError(
            f'"{fpath}" cannot be read as a checkpoint ({reason}): it may be truncated'
        ) from error


def check_state_dict(state, fpath):
    """Raise InvalidInputError unless the weights in a file are a dict of tensors."""
    try:
        _check_tensors(state)
    except TypeError as error:
        raise InvalidInputError(f'"{fpath}" does not hold weights: {error}') from error


def _check_tensors(state):
    """Raise TypeError unless `state` is a dict of tensors; values of a module's `get_extra_state` may be anything."""
    if not isinstance(state, dict):
        raise TypeError(f"its state_dict is a {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not (isinstance(value, torch.Tensor) or name.endswith("_extra_state")):
            raise TypeError(f"{name} in its state_dict is a {type(value).__name__}")
