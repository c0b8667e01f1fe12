"""What a prompt trainer's checkpoints hold: it is found, read and checked here, and nothing of it is trusted."""

from pathlib import Path

import torch
from dassl.utils import load_checkpoint

from dspt_atlas.errors import UserError


def saved_tensor(value, shape, name):
    """Return a tensor of a checkpoint; raises UserError unless it has that shape and finite numbers."""
    if not (torch.is_tensor(value) and value.shape == shape and value.is_floating_point() and value.isfinite().all()):
        raise UserError(f"The checkpoint cannot be used: its {name} are not finite numbers of shape {tuple(shape)}.")
    return value


def is_plain(schedule):
    """Return whether a schedule's state has only plain values; the family's has objects, which are not read."""
    return isinstance(schedule.get("successor", {}), dict)


def is_history(history, epoch):
    """Return whether the entries are numbers of the last epochs up to `epoch`, in order."""
    kinds = (int, float, dict, type(None))
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        return False
    epochs = [entry.get("epoch") for entry in history]
    is_in_order = epochs == list(range(epoch - len(epochs) + 1, epoch + 1)) and len(epochs) <= epoch
    return is_in_order and all(isinstance(value, kinds) for entry in history for value in entry.values())


def check_finite(state, path):
    """Raise UserError for NaN or infinity in a state dict."""
    if broken := [name for name, value in state.items() if torch.is_tensor(value) and not value.isfinite().all()]:
        raise UserError(f'"{path}" holds NaN or infinity in {", ".join(broken)}: train again, or load another epoch.')


def check_epoch(checkpoint, path):
    """Raise UserError if a checkpoint has an epoch that is not a number, or not the one in the file's name."""
    epoch, named = checkpoint.get("epoch", 0), path.name.removeprefix("model.pth.tar-")
    if not isinstance(epoch, int) or epoch < 0 or (named.isdecimal() and "epoch" in checkpoint and int(named) != epoch):
        raise UserError(f'"{path}" cannot be used: its epoch is {epoch!r:.60}; train again, or load another epoch.')


def load_initial_weights(path):
    """Return the state dict in a checkpoint file, or the content if it is one. Raises UserError without a file."""
    if not Path(path).is_file():
        raise UserError(f'Expected MODEL.INIT_WEIGHTS to be a checkpoint file, but "{path}" is not a file.')
    checkpoint = load_checkpoint(path)
    return checkpoint.get("state_dict", checkpoint)


def find_checkpoint(folder, epoch=None):
    """Return the checkpoint of an epoch in a folder; without an epoch the best, or that of the pointer file."""
    wanted = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
    pointer = folder / "checkpoint"
    if epoch is None and not (folder / wanted).is_file() and pointer.is_file():
        wanted = (pointer.read_text(errors="replace").splitlines() or [""])[0].strip()
        if wanted != Path(wanted).name or wanted == "..":
            raise UserError(
                f'"{pointer}" names "{wanted}", which is not a file in its folder: say which epoch to load.'
            )
    if not (folder / wanted).is_file():
        there = sorted(path.name for path in folder.glob("model*")) or ["none"]
        raise UserError(f'Model not found at "{folder / wanted}"; checkpoints there: {", ".join(there)}.')
    return folder / wanted
