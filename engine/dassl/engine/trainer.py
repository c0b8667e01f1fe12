"""Trainers for classification."""

import datetime
import os
import shutil
import time
from itertools import islice

import torch
from torch import nn

from dassl.data import DataManager
from dassl.evaluation import build_evaluator
from dassl.modeling import build_backbone, build_head
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    AverageMeter,
    InvalidInputError,
    MetricMeter,
    atomic_path,
    count_num_param,
    load_pretrained_weights,
    mkdir_if_missing,
)

from .trainer_base import BEST_MODEL, TrainerBase

__all__ = ["SimpleNet", "SimpleTrainer", "TrainerBase", "TrainerX", "TrainerXU"]


class SimpleNet(nn.Module):
    """Backbone, optional head, and a linear classifier if `num_classes > 0`."""

    def __init__(self, cfg, model_cfg, num_classes, **kwargs):
        super().__init__()
        self.backbone = build_backbone(
            model_cfg.BACKBONE.NAME, verbose=cfg.VERBOSE, pretrained=model_cfg.BACKBONE.PRETRAINED, **kwargs
        )
        self._fdim = self.backbone.out_features
        self.head = None
        if model_cfg.HEAD.NAME and model_cfg.HEAD.HIDDEN_LAYERS:
            self.head = build_head(
                model_cfg.HEAD.NAME,
                verbose=cfg.VERBOSE,
                in_features=self._fdim,
                hidden_layers=model_cfg.HEAD.HIDDEN_LAYERS,
                activation=model_cfg.HEAD.ACTIVATION,
                bn=model_cfg.HEAD.BN,
                dropout=model_cfg.HEAD.DROPOUT,
                **kwargs,
            )
            self._fdim = self.head.out_features
        self.classifier = nn.Linear(self._fdim, num_classes) if num_classes > 0 else None

    @property
    def fdim(self):
        return self._fdim

    def forward(self, x, return_feature=False):
        """Return logits (B, C), and features (B, D) if asked; without a classifier, return only features."""
        feature = self.backbone(x)
        if self.head is not None:
            feature = self.head(feature)
        if self.classifier is None:
            return feature
        logits = self.classifier(feature)
        return (logits, feature) if return_feature else logits


class SimpleTrainer(TrainerBase):
    """A trainer with data, model, evaluator and the hooks of a usual training run."""

    num_batches: int  # of this epoch; `run_epoch` says it

    def __init__(self, cfg):
        super().__init__()
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        print(f"Seed: {cfg.SEED if cfg.SEED >= 0 else 'unseeded'}")
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    def check_cfg(self, cfg):
        """Check the configuration before anything is built; override."""

    def build_data_loader(self):
        """Create the data manager and keep its loaders."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self):
        """Build a `SimpleNet` with optimiser and schedule, registered as `model`; usually overridden."""
        cfg = self.cfg
        print("Building model")
        self.model = SimpleNet(cfg, cfg.MODEL, self.num_classes)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        print(f"# params: {count_num_param(self.model):,}")
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)
        device_count = torch.cuda.device_count()
        if self.device.type == "cuda" and device_count > 1:
            print(f"Detected {device_count} GPUs (use nn.DataParallel)")
            self.model = nn.DataParallel(self.model)

    def train(self):
        """Train from `start_epoch` to `max_epoch`."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self):
        """Resume if there are checkpoints, and open the tensorboard writer."""
        directory = self.cfg.RESUME or self.cfg.OUTPUT_DIR
        self.start_epoch = self.resume_model_if_exist(directory)
        if self.start_epoch > 0 and directory != self.output_dir:
            self._copy_best_models(directory)
        if self._selects_best() and self.val_loader is None:
            print("Warning: there is no val split, so TEST.FINAL_MODEL best_val selects the model on the test split")
        writer_dir = os.path.join(self.output_dir, "tensorboard")
        mkdir_if_missing(writer_dir)
        self.init_writer(writer_dir)
        self.time_start = time.time()

    def _copy_best_models(self, directory):
        """Copy the best models so far to OUTPUT_DIR; from there they are deployed if no later epoch is better."""
        targets = self._best_paths(self.output_dir)
        for name, path in self._best_paths(directory).items():
            if os.path.isfile(path):
                mkdir_if_missing(os.path.dirname(targets[name]))
                with atomic_path(targets[name]) as temporary:
                    shutil.copyfile(path, temporary)

    def after_train(self):
        """Evaluate the last or the best model and close the writer."""
        # Some log parsers of the family wait for the first line, others for the second.
        print("Finish training")
        print("Finished training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        elapsed = datetime.timedelta(seconds=round(time.time() - self.time_start))
        print(f"Elapsed: {elapsed}")
        self.close_writer()

    def _selects_best(self):
        return not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val"

    def after_epoch(self):
        """Save the best model so far, if asked for, and the periodic and last checkpoints."""
        if self._selects_best():
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST_MODEL)
        frequency = self.cfg.TRAIN.CHECKPOINT_FREQ
        is_due = frequency > 0 and (self.epoch + 1) % frequency == 0
        if is_due or self.epoch + 1 == self.max_epoch:
            self.save_model(self.epoch, self.output_dir)

    @torch.no_grad()
    def test(self, split=None):
        """Evaluate on `val` (if there is a val loader) or `test`; return the first result of the evaluator."""
        from tqdm import tqdm

        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        if split != "val" or self.val_loader is None:
            split = "test"
        loader = self.val_loader if split == "val" else self.test_loader
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(loader or ()):
            inputs, labels = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(inputs), labels)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input):
        """Return `self.model(input)`."""
        return self.model(input)

    def parse_batch_test(self, batch):
        """Return images and labels on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def get_current_lr(self, names=None):
        """Return the learning rate of the first group of the first named optimiser; NaN if there is none."""
        optims = [self._optims[name] for name in self.get_model_names(names)]
        return next((optim.param_groups[0]["lr"] for optim in optims if optim is not None), float("nan"))

    def _run_batches(self, batches):
        """Call `forward_backward` with each tuple of batches, and report time, losses and learning rate."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        end = time.time()
        for batch_idx, batch in enumerate(batches):
            self.batch_idx = batch_idx
            data_time.update(time.time() - end)
            losses.update(self.forward_backward(*batch))
            batch_time.update(time.time() - end)
            self._print_progress(batch_time, data_time, losses)
            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.time()

    def _print_progress(self, batch_time, data_time, losses):
        frequency, done = self.cfg.TRAIN.PRINT_FREQ, self.batch_idx + 1
        if frequency <= 0 or (done % frequency != 0 and self.num_batches >= frequency):
            return
        remaining = self.num_batches - done + (self.max_epoch - self.epoch - 1) * self.num_batches
        parts = [
            f"epoch [{self.epoch + 1}/{self.max_epoch}]",
            f"batch [{done}/{self.num_batches}]",
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f})",
            f"data {data_time.val:.3f} ({data_time.avg:.3f})",
            str(losses),
            f"lr {self.get_current_lr():.4e}",
            f"eta {datetime.timedelta(seconds=int(batch_time.avg * remaining))}",
        ]
        print(" ".join(part for part in parts if part))


class TrainerX(SimpleTrainer):
    """Trains on labelled data only."""

    def run_epoch(self):
        """Run once over `train_loader_x`."""
        self.num_batches = len(self.train_loader_x)
        self._run_batches((batch,) for batch in self.train_loader_x)

    def parse_batch_train(self, batch):
        """Return images, labels and domains on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))


class TrainerXU(SimpleTrainer):
    """Trains on pairs of a labelled and an unlabelled batch: `forward_backward(batch_x, batch_u)`."""

    def run_epoch(self):
        """Take as many pairs as TRAIN.COUNT_ITER says; a loader that ends starts again. Raises ValueError."""
        count_iter = self.cfg.TRAIN.COUNT_ITER
        if self.train_loader_u is None:
            raise InvalidInputError(f"{type(self).__name__} needs unlabelled images, but the data set has no train_u")
        lengths = {"train_x": len(self.train_loader_x), "train_u": len(self.train_loader_u)}
        lengths["smaller_one"] = min(lengths.values())
        if count_iter not in lengths:
            raise ValueError(f"TRAIN.COUNT_ITER must be one of {list(lengths)}, but got {count_iter}")
        self.num_batches = lengths[count_iter]
        pairs = zip(_endless(self.train_loader_x), _endless(self.train_loader_u))
        self._run_batches(islice(pairs, self.num_batches))

    def parse_batch_train(self, batch_x, batch_u):
        """Return labelled images, their labels, and unlabelled images on the device."""
        return batch_x["img"].to(self.device), batch_x["label"].to(self.device), batch_u["img"].to(self.device)


def _endless(loader):
    while True:
        yield from loader
