"""Checkpoints, layers, parameters."""

import io
import os
import re
import shutil
import warnings
from collections import OrderedDict

import torch
from torch import nn

from .checkpoint_fields import check_kinds, check_moments, check_run_fields
from .checkpoint_reader import check_state_dict, load_checkpoint
from .errors import InvalidInputError
from .tools import atomic_path, mkdir_if_missing

__all__ = [
    "count_num_param",
    "find_checkpoint",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "restore_checkpoint",
    "resume_from_checkpoint",
    "save_checkpoint",
    "saved_epochs",
]

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def _strip_module(state_dict):
    return OrderedDict((key.removeprefix("module."), value) for key, value in state_dict.items())


def save_checkpoint(state, save_dir, is_best=False, remove_module_from_keys=True, model_name=""):
    """Write `state` to `<save_dir>/<model_name or model.pth.tar-EPOCH>`, then the pointer file `checkpoint`.

    Both are written to a temporary name and renamed. `is_best` adds a copy named `model-best.pth.tar`.
    """
    mkdir_if_missing(save_dir)
    if remove_module_from_keys:
        state["state_dict"] = _strip_module(state["state_dict"])
    model_name = model_name or f"model.pth.tar-{state['epoch']}"
    fpath = os.path.join(save_dir, model_name)
    buffer = io.BytesIO()  # for a full disk, torch raises a RuntimeError without the file's name
    torch.save(state, buffer)
    with atomic_path(fpath) as temporary, open(temporary, "wb") as file:
        file.write(buffer.getbuffer())
    print(f"Checkpoint saved to {fpath}")
    with atomic_path(os.path.join(save_dir, "checkpoint")) as temporary, open(temporary, "w") as file:
        file.write(f"{model_name}\n")
    if is_best:
        best = os.path.join(save_dir, "model-best.pth.tar")
        with atomic_path(best) as temporary:
            shutil.copy(fpath, temporary)
        print(f'Best checkpoint saved to "{best}"')


def find_checkpoint(fdir):
    """Return the path that the pointer file in `fdir` names, or None if either of the two files is missing.

    Raises InvalidInputError for a name outside of the folder.
    """
    pointer = os.path.join(fdir, "checkpoint")
    if not os.path.isfile(pointer):
        return None
    with open(pointer, errors="replace") as file:
        name = file.readline().strip()
    if name != os.path.basename(name) or name == os.pardir:
        raise InvalidInputError(f'"{pointer}" names "{name}", which is not a file in its folder: choose another folder')
    fpath = os.path.join(fdir, name)
    return fpath if os.path.isfile(fpath) else None


def saved_epochs(fdir):
    """Return the epochs of the checkpoints `model.pth.tar-EPOCH` in `fdir`, as a set."""
    names = os.listdir(fdir) if os.path.isdir(fdir) else ()
    return {int(match[1]) for name in names if (match := re.fullmatch(r"model\.pth\.tar-(\d+)", name))}


def _is_plain(scheduler_state):
    return isinstance(scheduler_state, dict) and isinstance(scheduler_state.get("successor", {}), dict)


def restore_checkpoint(checkpoint, model, optimizer=None, scheduler=None):
    """Load a checkpoint dict into the model (strictly) and, if given and stored, into optimizer and scheduler.

    Returns the number of finished epochs.
    """
    check_kinds(model, checkpoint["state_dict"])
    model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        check_moments(optimizer)
        print("Loaded optimizer")
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        state = checkpoint["scheduler"]
        # Old files hold a dead copy of the warm-up's successor; one step was taken per finished epoch.
        state = state if _is_plain(state) else {"last_epoch": checkpoint["epoch"]}
        # Torch's schedules accept any value for their attributes.
        scheduler.load_state_dict({key: state[key] for key in scheduler.state_dict() if key in state})
        print("Loaded scheduler")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def resume_from_checkpoint(fdir, model, optimizer=None, scheduler=None):
    """Restore from the file that the pointer file in `fdir` names; returns the number of finished epochs.

    Raises FileNotFoundError, and InvalidInputError for a file whose fields cannot be true.
    """
    fpath = find_checkpoint(fdir)
    if fpath is None:
        raise FileNotFoundError(f'No checkpoint to resume from in "{fdir}": the pointer file or its target is missing')
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    check_run_fields(checkpoint, fpath)
    return restore_checkpoint(checkpoint, model, optimizer, scheduler)


def load_pretrained_weights(model, weight_path):
    """Load the weights of a file whose name and size match the model's; warn if no weight matches."""
    checkpoint = load_checkpoint(weight_path)
    loaded = checkpoint.get("state_dict", checkpoint)
    check_state_dict(loaded, weight_path)
    loaded = _strip_module(loaded)
    own = model.state_dict()
    matched = {key: value for key, value in loaded.items() if key in own and own[key].size() == value.size()}
    if not matched:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    own.update(matched)
    model.load_state_dict(own)
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [key for key in loaded if key not in matched]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def open_all_layers(model):
    """Switch to train mode and let every parameter require grad."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model, open_layers):
    """Train only the named direct children (a str or a list); the others go to eval mode and are frozen."""
    if isinstance(model, _PARALLEL):
        model = model.module
    open_layers = [open_layers] if isinstance(open_layers, str) else open_layers
    for layer in open_layers:
        if not hasattr(model, layer):
            raise InvalidInputError(f"{layer} is not an attribute")
    for name, module in model.named_children():
        module.train(name in open_layers)
        module.requires_grad_(name in open_layers)


def count_num_param(model=None, params=None):
    """Return the number of elements in a model, or in an iterable of tensors or parameter-group dicts."""
    if model is not None:
        params = model.parameters()
    elif params is None:
        raise ValueError("model and params must provide at least one.")
    total = 0
    for entry in params:
        tensors = entry["params"] if isinstance(entry, dict) else entry
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else tensors
        total += sum(tensor.numel() for tensor in tensors)
    return total


def init_network_weights(model, init_type="normal", gain=0.02):
    """Initialise convolutions and linear layers (normal, xavier, kaiming or orthogonal), and norms to 1 / 0."""
    initialise = {
        "normal": lambda weight: nn.init.normal_(weight, 0.0, gain),
        "xavier": lambda weight: nn.init.xavier_normal_(weight, gain=gain),
        "kaiming": lambda weight: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
        "orthogonal": lambda weight: nn.init.orthogonal_(weight, gain=gain),
    }
    if init_type not in initialise:
        raise NotImplementedError(f"initialization method {init_type} is not implemented: use one of {[*initialise]}")

    def init(module):
        kind = type(module).__name__
        if kind.startswith(("Conv", "Linear")) and getattr(module, "weight", None) is not None:
            initialise[init_type](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif kind.startswith(("BatchNorm", "InstanceNorm")) and module.weight is not None:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    model.apply(init)
