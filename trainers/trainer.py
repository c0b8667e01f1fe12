"""Training of prompts: precision, steps, checkpoints, history.

A step minimises criterion plus regulariser. A method gives `criterion`, a prompt learner `regulariser`. A learner with
several logits says in `label_loss` how the criterion is applied to them. Both make the state that they keep from epoch
to epoch in `build_state`; `extra_state` gives it to the checkpoint.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import count_num_param, load_checkpoint

from dspt_atlas.datasets.noisy import noisy_validation, save_noise
from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.errors import NonFiniteError, UserError
from dspt_atlas.keys.identities import identity_differences
from dspt_atlas.trainers.checkpoints import (
    check_epoch,
    check_finite,
    find_checkpoint,
    is_history,
    is_plain,
    load_initial_weights,
)
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.clip_trainer import ClipTrainer
from dspt_atlas.trainers.gradient_terms import GradientTerms
from dspt_atlas.trainers.kept_classes import KeptClasses, load_run
from dspt_atlas.trainers.learners.prompts import load_prompts
from dspt_atlas.trainers.loggers import scalars_of
from dspt_atlas.trainers.losses import cross_entropy_loss
from dspt_atlas.trainers.monitor import EpochMonitor
from dspt_atlas.trainers.new_classes import NewClasses, check_new_classes


class StoppedEarly(Exception):
    """Ends the loop of epochs of any Dassl; the run goes on with its test."""


class PromptTrainer(ClipTrainer):
    """Learns prompts for a frozen CLIP; a prompt learner's subclass says which, a method's mixin how labels teach.

    `model_name` is the folder of the checkpoints, which hold only the learned parameters. `config_node` is the node of
    TRAINER with the prompt learner's settings, also PREC. `prompts_images` and `conditional` belong to the prompt
    learner. `trainers.declare.learner` and `method` make every pair of both.
    """

    model_name = "prompt_learner"
    model_class = PromptedCLIP
    conditional = False
    _loaded_epoch: int | None = None  # of the checkpoint that is tested
    criterion_calls = 1  # of `label_loss` in a step; state that a criterion collects from logits allows one
    # Goes up when the numbers of a prompt learner or method change, so that old and new results never share a row.
    learner_revision = method_revision = 1

    @classmethod
    def revisions(cls, cfg):
        """Return the revision numbers of prompt learner and method with the settings of a configuration."""
        return {"learner": cls.learner_revision, "method": cls.method_revision}

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner, a module; override."""
        raise TypeError(f"{type(self).__name__} has to override build_prompt_learner")

    def criterion(self, logits, batch):
        """Return the scalar loss of logits (B, C) float32; batch: img, label (B,), index (B,) on the device, impath."""
        return cross_entropy_loss(logits, batch["label"])

    def label_loss(self, output, batch, criterion):
        """Return the scalar that labels teach by: `criterion(logits, batch)` of an Output's logits; a learner's part.

        criterion: this trainer's own, or cross-entropy where gradients are compared. A learner with several logits, or
        with several rows per image (`repeat_batch`), weighs its calls here.
        """
        return criterion(output.logits, batch)

    def regulariser(self, output, batch):
        """Return a scalar of an Output that a step adds to the criterion, None for nothing; it reads no label."""
        return

    def __init_subclass__(cls, **arguments):
        """Take a `loss`, as the criterion was called before, for the criterion."""
        super().__init_subclass__(**arguments)
        pairs = (
            (name, vars(base)[name]) for base in cls.__mro__ for name in ("criterion", "loss") if name in vars(base)
        )
        name, function = next(pairs)
        if name == "loss":
            cls.criterion = function

    def check_cfg(self, cfg):
        """Raise UserError for settings that this trainer cannot follow."""
        super().check_cfg(cfg)
        check_new_classes(cfg)

    def build_model(self):
        """Build CLIP, prompts, optimiser and schedule; only the prompts are registered."""
        cfg = self.cfg
        self._choose_precision()
        clip_model = self.load_clip()
        prompt_learner = self.build_prompt_learner(clip_model, prompt_names(self.dm.dataset)).to(self.device)
        if cfg.MODEL.INIT_WEIGHTS:
            load_prompts(prompt_learner, load_initial_weights(cfg.MODEL.INIT_WEIGHTS))
        self.model = self.model_class(clip_model, prompt_learner, class_chunk=cfg.MODEL.CLASS_CHUNK)
        print(f"# learned parameters: {count_num_param(prompt_learner):,}")
        self.optim = build_optimizer(prompt_learner, cfg.OPTIM, self.parameter_groups(prompt_learner))
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.model_name, prompt_learner, self.optim, self.sched)

    def model_of(self, classnames):
        """Return a model of other classes that shares CLIP and has this one's prompts; raises UserError if they differ.

        Prompts that belong to their classes (CSC) mean nothing for others.
        """
        clip_model = self.model.clip_model
        with torch.random.fork_rng():
            prompt_learner = self.build_prompt_learner(clip_model, classnames).to(self.device)
        load_prompts(prompt_learner, self.model.prompt_learner.state_dict())
        return self.model_class(clip_model, prompt_learner, class_chunk=self.cfg.MODEL.CLASS_CHUNK)

    def parameter_groups(self, prompt_learner):
        """Return the optimiser's groups of parameters, each with its own lr; None: all at OPTIM.LR."""
        return

    def _choose_precision(self):
        wanted = self.cfg.TRAINER[self.config_node].PREC
        if self.device.type != "cuda" and wanted != "fp32":
            print(f"Computing in fp32: TRAINER.{self.config_node}.PREC {wanted} needs a GPU")
            wanted = "fp32"
        self._use_precision(wanted)

    def _use_precision(self, precision):
        self.precision = precision
        self.scaler = None
        if precision in ("fp16", "amp"):
            # torch 2.2 has it for CUDA only, and in another module.
            has_one = hasattr(torch.amp, "GradScaler")
            self.scaler = torch.amp.GradScaler(self.device.type) if has_one else torch.cuda.amp.GradScaler()

    @property
    def reads_every_step(self):
        """Whether losses are read at every step; a GPU would have to wait for that."""
        return self.device.type == "cpu"

    def model_inference(self, input):
        """Return logits (B, C) of images (B, 3, H, W) or of normalised features (B, d)."""
        return self.predict(self.model(input))

    def predict(self, output):
        """Return the logits (B, C) by which an Output classifies."""
        return output.logits

    def fixed_text(self):
        """Return the context that computes text features once and uses them again."""
        return self.model.fixed_text()

    def before_train(self):
        """Save noise and classes, prepare cached features, and resume if there are checkpoints."""
        test = self.cfg.TEST
        if test.NOISY_VAL or not test.NO_TEST and (test.SPLIT == "val" or test.FINAL_MODEL == "best_val"):
            self.need_validation()
        noise = save_noise(self.dm.dataset, self.cfg, self.output_dir, self.identity.get("data"))
        self.monitor = EpochMonitor(self.device, noise, self.cfg.TRAIN.GRADIENT_PROFILE)
        self._new_classes = NewClasses(self) if self.cfg.TEST.NEW_CLASSES else None
        self.train_loader_x = self.with_cached_features(self.train_loader_x)
        self.gradient_terms = GradientTerms(self)
        self.build_state()
        super().before_train()
        KeptClasses.of(self.cfg, self.dm.dataset).save(self.output_dir, is_resumed=self.start_epoch > 0)
        if self.cfg.RESUME and self.start_epoch == self.max_epoch:
            self.save_model(self.start_epoch - 1, self.output_dir)  # otherwise no epoch would
        if self.start_epoch < self.max_epoch:
            self._stop_in_vain()

    def train(self):
        """Train up to the last epoch, or until TRAIN.PATIENCE epochs in a row are no better on validation images."""
        try:
            super().train()
        except StoppedEarly:
            self.after_train()

    def _stop_in_vain(self):
        """Raise StoppedEarly if the last TRAIN.PATIENCE epochs of the history are no better than one before."""
        patience, history = self.cfg.TRAIN.PATIENCE, self.report["history"]
        accuracies = [entry["val_accuracy"] for entry in history if "val_accuracy" in entry]
        if patience and len(accuracies) > patience and max(accuracies[-patience:]) <= max(accuracies[:-patience]):
            print(f"Stopped after epoch {history[-1]['epoch']}: no better validation accuracy in {patience} epochs")
            raise StoppedEarly

    def build_state(self):
        """Make the state that is kept from epoch to epoch, as before the first epoch; override, and call super first.

        It is called once before training. Model, data, loaders and cached features exist then, and no checkpoint has
        been loaded. If there is a checkpoint, `load_extra_state` replaces this state by the saved values.
        """

    def before_epoch(self):
        """Choose the epoch's view of the training images."""
        super().before_epoch()
        loader: Any = self.train_loader_x
        (loader if hasattr(loader, "set_epoch") else loader.dataset).set_epoch(self.epoch)
        self.monitor.reset()
        self.gradient_terms.reset()
        self._epoch_start, self._epoch_lr = time.perf_counter(), self.get_current_lr()

    def parse_batch_train(self, batch):
        """Return img, label and index on the device, and impath."""
        moved = {key: batch[key].to(self.device, non_blocking=True) for key in ("img", "label", "index")}
        return {**moved, "impath": batch["impath"]}

    def forward_backward(self, batch):
        """Take one step; return loss and accuracy on the steps that are printed (on a CPU on all)."""
        batch = self.parse_batch_train(batch)
        with self.autocast():
            output = self.forward(batch)
        terms = self.gradient_terms.measured(
            self.label_loss(output, batch, self.criterion), self.regulariser(output, batch), output, batch
        )
        self.monitor.add(self.minimised(*terms), output.logits, batch, self.batch_idx)
        is_last = self.batch_idx + 1 == self.num_batches
        summary = self._read_monitor() if self.reads_every_step or self._is_printed() or is_last else None
        self.update(*terms)
        if is_last:
            self.update_lr()
        return summary

    def _is_printed(self):
        frequency = self.cfg.TRAIN.PRINT_FREQ
        return frequency > 0 and ((self.batch_idx + 1) % frequency == 0 or self.num_batches < frequency)

    def _read_monitor(self):
        summary, broken = self.monitor.read()
        if broken is not None:
            step, paths, loss = broken
            raise self._non_finite(f"The loss is {loss}", step, paths)
        return summary

    def _non_finite(self, what, step, paths):
        return NonFiniteError(
            f"{what} in epoch {self.epoch + 1}, batch {step + 1} (learning rate {self._epoch_lr:g}, precision "
            f"{self.precision}); lower OPTIM.LR or use PREC fp32; the last checkpoint did not change. Images of that "
            f"batch: {', '.join(paths)}"
        )

    def forward(self, batch):
        """Return the Output of a batch."""
        return self.model(batch["img"])

    def minimised(self, criterion, regulariser):
        """Return the loss that is minimised, printed and kept: criterion plus regulariser (or None)."""
        return criterion if regulariser is None else criterion + regulariser

    def update(self, criterion, regulariser):
        """Step down the gradient of the loss that is minimised; a learner that shapes the gradient overrides this."""
        loss = self.minimised(criterion, regulariser)
        self.optim.zero_grad()
        if self.scaler is None:
            loss.backward()
            self.optim.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()

    def write_scalar(self, tag, scalar_value, global_step=None):
        """Write to the loggers, but only for printed training steps."""
        if not tag.startswith("train/") or self._is_printed():
            super().write_scalar(tag, scalar_value, global_step)

    def after_epoch(self):
        """Add the epoch to the history and save; keep two checkpoints, and those of CHECKPOINT_FREQ."""
        self.finish_epoch()
        sys.stdout.flush()  # if the folder was removed, our log says so before a checkpoint makes it again
        super().after_epoch()
        frequency, done = self.cfg.TRAIN.CHECKPOINT_FREQ, self.epoch + 1

        def is_asked_for(epoch):
            return frequency > 0 and epoch % frequency == 0

        if not is_asked_for(done) and done != self.max_epoch:  # otherwise dassl saved it
            self.save_model(self.epoch, self.output_dir)
        for old in (done - 2, done - 3):  # there is a second one if a process was killed before it removed it
            if not is_asked_for(old):
                Path(self.output_dir, self.model_name, f"model.pth.tar-{old}").unlink(missing_ok=True)
        if done < self.max_epoch:
            self._stop_in_vain()

    def after_train(self):
        """Test the last or the best model; `report` says which epoch's it is."""
        super().after_train()
        self.report["chosen_epoch"] = self._loaded_epoch or max(self.epoch + 1, self.start_epoch)

    def test(self, split=None):
        """Evaluate on a split (default TEST.SPLIT); the history keeps what an epoch reaches on validation images."""
        accuracy = super().test(split)
        if split == "val" and self.report["history"]:
            self.report["history"][-1]["val_accuracy"] = accuracy
        return accuracy

    def finish_epoch(self):
        """Check the prompts, and add the epoch to the history; state made here goes into the epoch's checkpoint."""
        done = self.epoch + 1
        if not all(parameter.isfinite().all() for parameter in self._models[self.model_name].parameters()):
            raise self._non_finite("The prompts are not finite", *self.monitor.last_step)
        entry = {"epoch": done, **self.monitor.summary(), **self.gradient_terms.summary()}
        entry["seconds"] = time.perf_counter() - self._epoch_start
        print_noise_summary(f"epoch [{done}/{self.max_epoch}]", entry)
        if self.cfg.TEST.PERIOD > 0 and done % self.cfg.TEST.PERIOD == 0:
            entry["test_accuracy"] = self.loader_accuracy(self._split_loader("test"))
            print(f"epoch [{done}/{self.max_epoch}] test accuracy {entry['test_accuracy']:.1f}%")
            if self._new_classes is not None:
                entry["new_accuracy"] = self._new_classes.accuracy(self)
                print(f"epoch [{done}/{self.max_epoch}] test accuracy of new classes {entry['new_accuracy']:.1f}%")
        if self.cfg.TEST.NOISY_VAL and done == self.max_epoch:
            entry["noisy_val_accuracy"] = self.loader_accuracy(self.items_loader(noisy_validation(self.dm.dataset)))
        for tag, value in scalars_of(entry):
            self.write_scalar(tag, value, self.epoch)
        self.report["history"].append(entry)

    def extra_state(self):
        """Return the trainer's state for checkpoints."""
        own = {"history": self.report["history"], "identity": dict(self.identity)}
        return {**own, **self.gradient_terms.state()}

    def check_checkpoint(self, checkpoint, path):
        """Raise UserError for steps, history or prompts that do not fit the number of epochs."""
        super().check_checkpoint(checkpoint, path)
        epoch, schedule = checkpoint["epoch"], checkpoint.get("scheduler")
        steps = schedule.get("last_epoch") if isinstance(schedule, dict) and is_plain(schedule) else epoch
        history = (checkpoint.get("extra_state") or {}).get("history", [])
        if steps != epoch:
            raise UserError(f'"{path}" cannot be used: its schedule took {steps} steps in {epoch} epochs.')
        if not is_history(history, epoch):
            raise UserError(f'"{path}" cannot be used: its history is not that of {epoch} epochs.')
        check_finite(checkpoint["state_dict"], path)

    def load_extra_state(self, state):
        """Restore the state of `extra_state`; raises UserError for the checkpoint of another run."""
        before = {"identity": state.get("identity")}
        changes = (
            identity_differences(before, {"identity": self.identity}) if before["identity"] and self.identity else []
        )
        if changes:
            raise UserError(f"The checkpoint belongs to another run: this run has {', '.join(changes)}.")
        self.report["history"] = state["history"]
        self.gradient_terms.load(state)

    def load_model(self, directory, epoch=None):
        """Load the prompts of an epoch, or the best, or the newest. Raises UserError if there are none."""
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        path = find_checkpoint(Path(directory, self.model_name), epoch)
        checkpoint = load_checkpoint(str(path))
        state = checkpoint.get("state_dict", {})
        check_epoch(checkpoint, path)
        print(f'Loading weights to {self.model_name} from "{path}" (epoch = {checkpoint.get("epoch", "unknown")})')
        check_finite(state, path)
        load_run(self.model.prompt_learner, state, directory, self.dm.dataset)
        self._loaded_epoch = checkpoint.get("epoch")


def repeat_batch(batch, times):
    """Return a batch in which all that belongs to a sample, besides its image, is repeated: rows of `times` views."""
    size = len(batch["label"])
    return {
        key: value.repeat(times, *[1] * (value.dim() - 1)) if torch.is_tensor(value) else list(value) * times
        for key, value in batch.items()
        if key != "img" and len(value) == size
    }


def print_noise_summary(prefix, entry):
    """Print the shares of an epoch's rightly and wrongly labelled training samples, if there is noise."""
    if "right_accuracy" not in entry:
        return
    right, memorised, corrected = (
        "none" if entry[key] is None else f"{entry[key]:.1f}%"
        for key in ("right_accuracy", "wrong_memorised", "wrong_corrected")
    )
    print(f"{prefix} rightly labelled: {right} correct; wrongly labelled: {memorised} memorised, {corrected} corrected")
