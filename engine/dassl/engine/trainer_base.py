"""What every trainer can do: register models, save, resume, loop over epochs."""

import os
import warnings
from collections import OrderedDict
from contextlib import suppress

import torch

from dassl.utils import (
    DamagedCheckpointError,
    InvalidInputError,
    check_run_fields,
    find_checkpoint,
    get_random_state,
    is_count,
    load_checkpoint,
    restore_checkpoint,
    save_checkpoint,
    saved_epochs,
    set_random_state,
)

__all__ = ["TrainerBase"]

BEST_MODEL = "model-best.pth.tar"


# Restoring a checkpoint with wrong content raises these.
UNFIT = (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError)


def _unfit(name, directory, error):
    return InvalidInputError(
        f"The checkpoint of {name} in {directory} does not fit this configuration ({type(error).__name__}: {error}): "
        "choose another folder"
    )


def _checked_plan(plan, count):
    if plan is not None and not (isinstance(plan, list) and all(is_count(index) and index < count for index in plan)):
        raise InvalidInputError(f"A sampler's plan in the checkpoint is not a list of indices below {count}")
    return plan


class TrainerBase:
    """Registered models with their optimisers and schedules, checkpoints, and the epoch loop."""

    # Generator states of the resumed checkpoint; they are set once more immediately before the first epoch.
    _resumed_random_state = None

    def __init__(self):
        self._models = OrderedDict()
        self._optims = OrderedDict()
        self._scheds = OrderedDict()
        self._writer = None

    def register_model(self, name="model", model=None, optim=None, sched=None):
        """Register a model with its optimiser and schedule under `name`.

        Only registered modules are saved and switched between train and eval mode. Raises AttributeError if the base
        constructor has not run, and ValueError for a name that is taken.
        """
        for attribute, what in (("_models", "model"), ("_optims", "optim"), ("_scheds", "sched")):
            if attribute not in self.__dict__:
                raise AttributeError(f"Cannot assign {what} before super().__init__() call")
        if name in self._models:
            raise InvalidInputError(f'Found duplicate model names: "{name}" is already registered')
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names=None):
        """Return all names in registration order, or check `names` (a str, list or tuple) and return them as a list."""
        registered = list(self._models)
        if names is None:
            return registered
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in registered:
                raise InvalidInputError(f'No model is registered as "{name}"; the registered models are {registered}')
        return names

    def extra_state(self):
        """Return a subclass's own state besides models (plain tensors, numbers, str, lists, dicts); override."""
        return {}

    def load_extra_state(self, state):
        """Restore the value that `extra_state` returned when the checkpoint was written; override."""

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        """Write one checkpoint per registered model to `<directory>/<name>`, with the state of the whole run."""
        names = self.get_model_names()
        shared = self._run_state() if names else {}
        for name in names:
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optim is None else optim.state_dict(),
                "scheduler": None if sched is None else sched.state_dict(),
                "val_result": None if val_result is None else float(val_result),
                **shared,
            }
            save_checkpoint(state, os.path.join(directory, name), is_best=is_best, model_name=model_name)

    def _training_samplers(self) -> dict:
        """Return {loader name: its sampler} for samplers that plan passes ahead."""
        loaders = {name: getattr(self, name, None) for name in ("train_loader_x", "train_loader_u")}
        samplers = {name: getattr(loader, "sampler", None) for name, loader in loaders.items()}
        return {name: sampler for name, sampler in samplers.items() if hasattr(sampler, "plan")}

    def _run_state(self):
        best_result, scaler = getattr(self, "best_result", None), getattr(self, "scaler", None)
        return {
            "best_result": None if best_result is None else float(best_result),
            "random_state": get_random_state(),
            "sampler_plans": {name: sampler.plan for name, sampler in self._training_samplers().items()},
            "scaler": None if scaler is None else scaler.state_dict(),
            "extra_state": self.extra_state(),
        }

    def check_checkpoint(self, checkpoint, path):
        """Raise an error for a checkpoint whose fields cannot belong to this run; a subclass may check more."""
        check_run_fields(checkpoint, path, getattr(self, "max_epoch", None))

    def _load_run(self, path):
        checkpoint = load_checkpoint(path)
        if not {"state_dict", "epoch"} <= checkpoint.keys():
            raise DamagedCheckpointError(f'"{path}" does not hold the state of a run')
        self.check_checkpoint(checkpoint, path)
        return checkpoint

    def _load_run_state(self, checkpoint):
        """Restore the values of `_run_state`; files of other engines do not have them."""
        scaler = getattr(self, "scaler", None)
        if scaler is not None and checkpoint.get("scaler"):
            scaler.load_state_dict(checkpoint["scaler"])
        for name, sampler in self._training_samplers().items():
            if name in (checkpoint.get("sampler_plans") or {}):
                sampler.plan = _checked_plan(checkpoint["sampler_plans"][name], len(sampler.data_source))
        if "extra_state" in checkpoint:
            self.load_extra_state(checkpoint["extra_state"])
        if "random_state" in checkpoint:
            self._resumed_random_state = checkpoint["random_state"]
            set_random_state(self._resumed_random_state)

    def resume_model_if_exist(self, directory):
        """Restore models, optimisers, schedules and the state of the run from the newest checkpoints in `directory`.

        Returns the number of finished epochs, or 0 without a complete set of checkpoints. If a file is damaged, the
        checkpoints of the epoch before it are taken. Raises InvalidInputError if the models' checkpoints are of
        different epochs, or do not fit the models.
        """
        names = self.get_model_names()
        paths = {name: find_checkpoint(os.path.join(directory, name)) for name in names}
        if not names or None in paths.values():
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        checkpoints = self._read_checkpoints(directory, paths)
        if not checkpoints:
            print("No checkpoint can be read, train from scratch")
            return 0
        epochs = {name: checkpoint["epoch"] for name, checkpoint in checkpoints.items()}
        if len(set(epochs.values())) > 1:
            raise InvalidInputError(
                f"The checkpoints in {directory} are of different epochs, {epochs}: let the pointer files named "
                '"checkpoint" name files of one epoch, or start in an empty folder'
            )
        for name, checkpoint in checkpoints.items():
            try:
                epoch = restore_checkpoint(checkpoint, self._models[name], self._optims[name], self._scheds[name])
            except (*UNFIT, ValueError) as error:
                raise _unfit(name, directory, error) from error
        self._restore_best_result(directory, checkpoints[names[0]])
        try:
            self._load_run_state(checkpoints[names[0]])
        except UNFIT as error:
            raise _unfit(names[0], directory, error) from error
        return epoch

    def _read_checkpoints(self, directory, paths):
        """Return {name: checkpoint} from the paths, or from the newest epoch whose files can all be read, or {}."""
        try:
            for path in paths.values():
                print(f'Loading checkpoint from "{path}"')
            return {name: self._load_run(path) for name, path in paths.items()}
        except DamagedCheckpointError as error:
            print(f"{error}: going back to the checkpoint before it")
        epochs = set.intersection(*(saved_epochs(os.path.join(directory, name)) for name in paths))
        for epoch in sorted(epochs, reverse=True):
            with suppress(DamagedCheckpointError):
                return {name: self._load_run(os.path.join(directory, name, f"model.pth.tar-{epoch}")) for name in paths}
        return {}

    def _best_paths(self, directory):
        return {name: os.path.join(directory, name, BEST_MODEL) for name in self.get_model_names()}

    def _restore_best_result(self, directory, checkpoint):
        """Remember the best result so far, if the models that reached it still exist and can be deployed."""
        paths = list(self._best_paths(directory).values())
        if not all(os.path.isfile(path) for path in paths):
            return
        best = checkpoint.get("best_result")
        if best is None:
            best_model = load_checkpoint(paths[0])
            check_run_fields(best_model, paths[0])
            best = best_model.get("val_result")
        if best is not None:
            self.best_result = best

    def load_model(self, directory, epoch=None):
        """Load the best weights of each model in `directory`, or those of an epoch; all names must fit.

        Raises FileNotFoundError.
        """
        if not directory:
            print(
                "Note that load_model() is skipped as no pretrained model is given "
                "(ignore this if it's done on purpose)"
            )
            return
        model_file = BEST_MODEL if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            model_path = os.path.join(directory, name, model_file)
            if not os.path.exists(model_path):
                raise FileNotFoundError(f"No model at {model_path}")
            checkpoint = load_checkpoint(model_path)
            check_run_fields(checkpoint, model_path)
            val_result = checkpoint.get("val_result")
            shown = "None" if val_result is None else f"{val_result:.1f}"
            print(f"Load {model_path} to {name} (epoch={checkpoint.get('epoch')}, val_result={shown})")
            self._models[name].load_state_dict(checkpoint.get("state_dict", {}))

    def set_model_mode(self, mode="train", names=None):
        """Switch registered modules to `train`, or to `test` / `eval`; raises KeyError for other modes."""
        if mode not in ("train", "test", "eval"):
            raise KeyError(f"mode must be train, test or eval, but got {mode}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names=None):
        """Step the schedules."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def detect_anomaly(self, loss):
        """Raise FloatingPointError unless every element of the loss is finite."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def init_writer(self, log_dir):
        """Create the tensorboard writer, once; without tensorboard, warn and write nothing."""
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            warnings.warn("tensorboard is not installed: no scalars are written", stacklevel=2)
            return
        print(f"Initialize tensorboard (log_dir={log_dir})")
        self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self):
        """Close the tensorboard writer if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag, scalar_value, global_step=None):
        """Write a scalar to tensorboard if there is a writer."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch, max_epoch):
        """Run the epochs from `start_epoch` (which `before_train` may move) up to `max_epoch`, with all hooks."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        if self._resumed_random_state is not None:
            # In the uninterrupted run, the draws of before_train came before the checkpoint.
            set_random_state(self._resumed_random_state)
            self._resumed_random_state = None
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self):
        """Hook before the first epoch."""

    def after_train(self):
        """Hook after the last epoch."""

    def before_epoch(self):
        """Hook before each epoch."""

    def after_epoch(self):
        """Hook after each epoch."""

    def run_epoch(self):
        """Train for one epoch."""
        raise NotImplementedError

    def test(self):
        """Evaluate."""
        raise NotImplementedError

    def parse_batch_train(self, batch):
        """Return the parts of a training batch on the device."""
        raise NotImplementedError

    def parse_batch_test(self, batch):
        """Return the parts of a test batch on the device."""
        raise NotImplementedError

    def forward_backward(self, batch):
        """Take one optimisation step; return a dict of numbers to report, or None."""
        raise NotImplementedError

    def model_inference(self, input):
        """Return the model's output at test time."""
        raise NotImplementedError

    def model_zero_grad(self, names=None):
        """Reset the gradients of the optimisers' parameters."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss):
        """Check that the loss is finite and backpropagate it."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names=None):
        """Step the optimisers."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss, names=None):
        """Reset gradients, backpropagate the loss, step the optimisers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)
