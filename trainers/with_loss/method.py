"""A method apart from its trainer: what methods read of a trainer of ours, found on another repository's trainer."""

from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch

from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import KEYS, check_own_values
from dspt_atlas.trainers.clip_trainer import ClipTrainer


class Host:
    """Stands behind a method's mixin in place of PromptTrainer; what it lacks is read from the trainer.

    `dataset` and `clip_model`: functions of the trainer, for `dm.dataset` and for the CLIP of MODEL.BACKBONE.NAME.
    """

    method_node = ""
    load_clip, image_features = ClipTrainer.load_clip, ClipTrainer.image_features

    def __init__(self, trainer, dataset=None, clip_model=None):
        self._trainer, self._find_dataset, self._find_clip = trainer, dataset, clip_model
        self.report: dict = {}
        self._is_prepared = type(self).build_state is Host.build_state

    def __getattr__(self, name):
        return getattr(self._trainer, name)

    def check_cfg(self, cfg):
        """Raise UserError for settings of the method that are missing or not allowed."""
        node = self.method_node
        if node not in cfg.TRAINER and node in {key.node for key in KEYS.values() if key.node}:
            raise UserError(
                f"Expected TRAINER.{node} in the configuration of {type(self._trainer).__name__}: call "
                "dspt_atlas.extend_cfg(cfg) after the repository's own extend_cfg."
            )
        check_own_values(cfg, *filter(None, [node]))

    def build_state(self):
        """Make nothing; a method's own part is in its mixin."""

    def before_epoch(self):
        """Do nothing; a method's own part is in its mixin."""

    def prepare(self):
        """Make the method's state once; CLIP is loaded if the method reads it, and freed; the generator stays."""
        if self._is_prepared:
            return
        self.dm, self.model = SimpleNamespace(dataset=self.training_set), _FrozenModel(self)
        with torch.random.fork_rng(devices=[]):  # an edited build_model draws weights before it loads ours
            self.build_state()
        del self.model
        self._is_prepared = True

    def other_classes(self, logits):
        """Return how many classes the method has made labels for if logits (B, C) have others, else None."""
        known = len(self.training_set.classnames) if "training_set" in vars(self) else logits.shape[1]
        return known if known != logits.shape[1] else None

    def batch(self, batch, label):
        """Return a batch for the criterion: `label`, and `index` in the training set by path when it is read."""
        return _Batch({**{key: value for key, value in batch.items() if key != "index"}, "label": label}, self, batch)

    @cached_property
    def training_set(self) -> Any:
        """The data set with train_x and classnames; raises UserError without one."""
        find = self._find_dataset or (lambda trainer: getattr(getattr(trainer, "dm", None), "dataset", None))
        found: Any = find(self._trainer)
        if not (hasattr(found, "train_x") and hasattr(found, "classnames")):
            raise UserError(
                f"{type(self).__name__} needs the training set, but {type(self._trainer).__name__} has no dm.dataset "
                "with train_x and classnames: give with_loss the argument dataset, a function of the trainer that "
                "returns one."
            )
        return found

    @cached_property
    def rows(self):
        """The position of each image path in the training set."""
        return {item.impath: row for row, item in enumerate(self.training_set.train_x)}

    def find_clip(self):
        """Return the frozen CLIP; raises UserError if it is not found."""
        try:
            found = self._find_clip(self._trainer) if self._find_clip else self.load_clip()
            reason = "" if hasattr(found, "visual") else f"clip_model returns {type(found).__name__}"
        except Exception as error:  # noqa: BLE001 - an edited build_model may raise anything
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            reason = f"{kind}{error}".split("\n")[0].rstrip(".")
        if reason:
            raise UserError(
                f"{type(self).__name__} needs the frozen CLIP of {type(self._trainer).__name__} ({reason}): give "
                "with_loss the argument clip_model, a function of the trainer that returns CLIP without prompts."
            )
        return found


class _FrozenModel:
    """A model of which only the frozen CLIP is known, and loaded when it is read."""

    def __init__(self, host):
        self._host = host

    @cached_property
    def clip_model(self):
        return self._host.find_clip()


class _Batch(dict):
    """A batch whose `index` is found by the images' paths, because a fork's may be missing, or count in a part."""

    def __init__(self, content, host, batch):
        super().__init__(content)
        self._host, self._batch = host, batch

    def __missing__(self, key):
        if key != "index":
            raise KeyError(key)
        paths, index = self.get("impath"), self._batch.get("index")
        if paths is None and index is not None:
            return index
        unknown = [path for path in paths or () if path not in self._host.rows]
        if paths is None or unknown:
            raise UserError(
                f"{type(self._host).__name__} needs the place of each image in the training set, but a batch of "
                f"{type(self._host._trainer).__name__} has "
                + (f"{unknown[0]}, which is not in it" if unknown else "neither impath nor index")
                + ": let the data loader's batches have the impath of every item of train_x."
            )
        return torch.tensor([self._host.rows[path] for path in paths], device=self["label"].device)
