"""A dassl trainer around a frozen CLIP: data loading, cached image features, evaluation."""

import math
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from dassl.data.data_manager import DataManager, build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TrainerX
from tqdm import tqdm

from dspt_atlas.datasets.fewshot import SUBSET_FILE, write_subset
from dspt_atlas.datasets.noise import image_root
from dspt_atlas.datasets.prompts import check_prompts
from dspt_atlas.datasets.readable import check_images
from dspt_atlas.datasets.reader import ImageDataset
from dspt_atlas.errors import NonFiniteError, UserError
from dspt_atlas.keys.declare import check_own_values
from dspt_atlas.paths import cache_dir
from dspt_atlas.signals import undisturbed
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.clip.towers import way_of_encoding
from dspt_atlas.trainers.evaluation import classification_results, peak_memory_bytes
from dspt_atlas.trainers.features.cached import FeatureLoader, frozen_features
from dspt_atlas.trainers.features.views import dassl_views
from dspt_atlas.trainers.loggers import check_loggers, open_loggers
from dspt_atlas.trainers.measures import are_of_probabilities, measured


class ClipTrainer(TrainerX):
    """A trainer around a frozen CLIP, `self.model.clip_model`.

    `results` after test(): the value of `classification_results`. `report`: history (one dict per epoch), seconds of
    training and of the last evaluation together, peak_memory_bytes, precision, and entries of the method.
    """

    prompts_images = False
    takes_raw_features = False  # cached image features with their norms, in place of normalised ones
    precision = "fp32"
    # TRAINER.<NODE> has the keys of learner, of a head that the learner adds, and of the method.
    config_node = head_node = method_node = ""

    def __init__(self, cfg):
        self.results: dict = {}
        self.report: dict = {"history": []}
        self.identity = {}  # of the run; checkpoints and noise.json hold it
        self.made: list[Path] = []  # folders of loggers that are new
        super().__init__(cfg)

    @classmethod
    def reads_templates(cls, cfg):
        """Return whether numbers may depend on the data set's own `templates`; override only if they never do."""
        return True

    def check_cfg(self, cfg):
        """Raise UserError for settings that this trainer cannot follow."""
        super().check_cfg(cfg)
        check_own_values(cfg, "", self.config_node, self.head_node, self.method_node)
        check_loggers(cfg.TRAIN.LOGGERS)
        if cfg.INPUT.CACHE == "features" and self.prompts_images:
            raise UserError(
                f"{type(self).__name__} prompts the image tower, so image features change with every step and cannot "
                "be cached: set INPUT.CACHE none."
            )

    def build_data_loader(self):
        """Build dassl's loaders with our way to open images, and views that depend on seed, view and image alone.

        Raises UserError that names the images that cannot be read, or the classes with the same prompt.
        """
        dm = self.dm = DataManager(self.cfg, dataset_wrapper=dassl_views)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        self.num_classes, self.num_source_domains, self.lab2cname = dm.num_classes, dm.num_source_domains, dm.lab2cname
        dataset = dm.dataset
        if not isinstance(dataset, ImageDataset):  # our data sets have checked all classes, not only the chosen ones
            check_prompts(self.lab2cname, type(dataset).__name__)
        if self.cfg.DATASET.CHECK_IMAGES:
            lists = {id(items): items for items in (dataset.train_x, dataset.val, dataset.test) if items}
            for items in lists.values():
                check_images(items, max(1, self.cfg.DATALOADER.NUM_WORKERS))

    def train(self):
        """Train as dassl does; raises UserError if all images are for the test."""
        if getattr(self.dm.dataset, "test_only", False):
            raise UserError(
                f"{self.cfg.DATASET.NAME} has only test images, so nothing can be trained: test a trained model on it "
                "by --eval-only and --model-dir, or add training images."
            )
        super().train()

    def before_train(self):
        """Start dassl's training and list the few-shot images."""
        if self.cfg.DATASET.NUM_SHOTS >= 1:
            write_subset(Path(self.output_dir, SUBSET_FILE), self.dm.dataset, image_root(self.dm.dataset, self.cfg))
        super().before_train()

    def need_validation(self):
        """Raise UserError if there are no validation images: test images would choose the model that they test."""
        if self.val_loader is None:
            raise UserError(
                f"TEST.SPLIT val, TEST.FINAL_MODEL best_val and TEST.NOISY_VAL need validation images, but "
                f"{self.cfg.DATASET.NAME} has none: leave them out, or add a validation split."
            )

    # Tensorboard's thread writes into the folder until it is closed. A signal while its queue is locked would leave the
    # queue locked for ever.
    def init_writer(self, log_dir):
        """Make dassl's writer the loggers of TRAIN.LOGGERS, of which one is dassl's tensorboard; a signal waits."""
        with undisturbed():
            self._writer = open_loggers(self, log_dir, super().init_writer) if self.cfg.TRAIN.LOGGERS else None
            with suppress(OSError):
                Path(log_dir).rmdir()  # dassl has made it; it stays if it is not empty

    def write_scalar(self, tag, scalar_value, global_step=None):
        """Write a scalar to the loggers; a signal waits."""
        with undisturbed():
            super().write_scalar(tag, scalar_value, global_step)

    def close_writer(self):
        """Close the loggers; a signal waits."""
        with undisturbed():
            super().close_writer()

    def load_clip(self):
        """Load the frozen CLIP of MODEL.BACKBONE.NAME; raises UserError if INPUT.SIZE does not fit it."""
        model = self.cfg.MODEL
        clip_model = load_clip(model.BACKBONE.NAME, device=self.device, clip_dir=model.CLIP_DIR or None)
        size = clip_model.visual.input_resolution
        if tuple(self.cfg.INPUT.SIZE) != (size, size):
            raise UserError(
                f"The backbone {model.BACKBONE.NAME} takes images of {size} x {size} pixels, but INPUT.SIZE is "
                f"{tuple(self.cfg.INPUT.SIZE)}: set INPUT.SIZE to ({size}, {size})."
            )
        if model.LOGIT_SCALE:
            clip_model.logit_scale.fill_(math.log(model.LOGIT_SCALE))
        print(way_of_encoding(clip_model))
        return clip_model

    def image_features(self, items, transform, views=0, raw=False):
        """Return the frozen features of items, (N, d) or (V, N, d) for training views; cached on disk.

        They are L2-normalised unless `raw`.
        """
        return frozen_features(
            self.model.clip_model,
            items,
            transform,
            cache_dir=cache_dir(),
            max_bytes=int(self.cfg.INPUT.CACHE_GB * 2**30),
            views=views,
            seed=self.cfg.SEED,
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
            device=self.device,
            backbone=self.cfg.MODEL.BACKBONE.NAME,
            raw=raw,
        )

    def with_cached_features(self, loader):
        """Return a loader of features in place of a loader of images if INPUT.CACHE asks for it."""
        if self.cfg.INPUT.CACHE == "none" or isinstance(loader, FeatureLoader):
            return loader
        dataset = loader.dataset
        views = getattr(dataset, "views", 0)
        features = self.image_features(dataset.data_source, dataset.transform, views, self.takes_raw_features)
        return FeatureLoader(features, dataset.data_source, loader.batch_size, loader.sampler, loader.drop_last)

    def move(self, device):
        """Predict on another device from now on."""
        self.device = device
        self.model.to(device)
        self._choose_precision()

    def _choose_precision(self):
        """Use the precision of the configuration, or what the device can do; override."""

    def autocast(self):
        """Return the context in which the model computes in this run's precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def fixed_text(self):
        """Return the context of an evaluation, in which the prompts do not change."""
        return nullcontext()

    def items_loader(self, items):
        """Return a loader of items under the test transform, or of their cached features if INPUT.CACHE asks for it."""
        loader = build_data_loader(
            self.cfg,
            data_source=items,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=build_transform(self.cfg, is_train=False),
            is_train=False,
            dataset_wrapper=dassl_views,
        )
        return self.with_cached_features(loader)

    def loader_accuracy(self, loader):
        """Return the accuracy in percent on the items of a loader."""
        with self.inferring(loader) as batches:
            hits = [(logits.argmax(dim=1) == label).float() for logits, label in batches]
        return 100 * torch.cat(hits).mean().item()

    def _split_loader(self, split):
        name = "val_loader" if split == "val" else "test_loader"
        setattr(self, name, self.with_cached_features(getattr(self, name)))
        return getattr(self, name)

    def _evaluating(self, split):
        return self.inferring(self._split_loader(split))

    def finite_logits(self, images, first):
        """Return logits (B, C) of a batch; raises NonFiniteError, which names the `first` image."""
        logits = self.model_inference(images)
        if not logits.isfinite().all():
            raise NonFiniteError(
                f"The logits of {first} or another image of its batch are not finite (precision {self.precision}): "
                f"check the weights of {self.cfg.MODEL.BACKBONE.NAME}, or use PREC fp32."
            )
        return logits

    @contextmanager
    def inferring(self, loader):
        """Yield (logits, label) pairs of a loader; the random generators do not change."""
        self.set_model_mode("eval")

        def batches():
            for batch in tqdm(loader, leave=False, disable=None):
                images, label = (batch[key].to(self.device, non_blocking=True) for key in ("img", "label"))
                yield self.finite_logits(images, ", ".join(batch["impath"][:1])), label

        # A loader draws from the global generator when it starts.
        with torch.no_grad(), torch.random.fork_rng(devices=[]), self.autocast(), self.fixed_text():
            yield batches()

    def test(self, split=None):
        """Evaluate on a split (default TEST.SPLIT), print dassl's result lines, fill `results`, return the accuracy."""
        start = time.perf_counter()
        split = split or self.cfg.TEST.SPLIT
        if split == "val":
            self.need_validation()
        print(f"Evaluate on the *{split}* set")
        self.evaluator.reset()
        labels, predictions, probabilities = [], [], []
        with self._evaluating(split) as batches:
            for logits, label in batches:
                self.evaluator.process(logits, label)
                labels.append(label)
                predictions.append(logits.argmax(dim=1))
                if are_of_probabilities():
                    probabilities.append(logits.float().softmax(dim=1))
        for name, value in (results := self.evaluator.evaluate()).items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        self.results = classification_results(torch.cat(labels), torch.cat(predictions), self.lab2cname)
        if probabilities:
            self.results |= measured(torch.cat(probabilities), torch.cat(labels))
        training = sum(epoch["seconds"] for epoch in self.report["history"])
        self.report["seconds"] = training + time.perf_counter() - start
        self.report["precision"] = self.precision
        self.report["peak_memory_bytes"] = peak_memory_bytes(self.device)
        return next(iter(results.values()))
