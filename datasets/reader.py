"""The one reader behind every data set: files, checks, few-shot sampling, base/new classes, Dassl's lists."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dassl.data.datasets import DatasetBase, Datum

from dspt_atlas.commands import command_line
from dspt_atlas.datasets.fewshot import chosen_classes, few_shot_splits
from dspt_atlas.datasets.formats import Splits, check_splits, read_split_json
from dspt_atlas.datasets.noisy import clean_class
from dspt_atlas.datasets.prompts import check_prompts
from dspt_atlas.datasets.readable import broken_images
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home

DEFAULT_TEMPLATE = "a photo of a {}."
_waiting: list[list] = []  # for each `reading_once`, the lists that were read for the identity, until they are used


@contextlib.contextmanager
def reading_once():
    """Within it, the data set that is built first takes the lists of the run's identity: files are read once."""
    _waiting.append([])
    try:
        yield
    finally:
        _waiting.pop()


class ImageDataset(DatasetBase):
    """An image classification data set below `cfg.DATASET.ROOT`; subclasses say where and in which format.

    Few-shot sampling (`DATASET.NUM_SHOTS`, `SEED`) comes before the base/new split (`DATASET.SUBSAMPLE_CLASSES`).
    Nothing is written into the data set's folder. Raises UserError for files that are missing or malformed.
    """

    dataset_dir = ""
    image_dir = ""
    templates = (DEFAULT_TEMPLATE,)
    declared_templates = templates  # those of the class's text; somebody may replace `templates` later
    skipped: Mapping[str, str] = MappingProxyType({})  # {path: reason} of images that DATASET.SKIP_BROKEN left out
    prompt_words: Mapping[str, str] = MappingProxyType({})  # {class name: its words in prompts}, where they differ
    test_only = False  # if True, the test list itself is Dassl's train_x, never sampled

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        cls.declared_templates = cls.templates

    def __init__(self, cfg):
        self.path_root = str(self.locate(cfg))
        splits = self.read(cfg)
        if self.skipped:  # each run's log has it
            print(self.left_out(splits))
        if not self.test_only:
            drawn = few_shot_splits(splits.train, splits.val, cfg.DATASET.NUM_SHOTS, cfg.SEED)
            splits = Splits(*drawn, splits.test)
        train, val, test = self.choose(cfg, splits)
        require_files([*train, *val, *test], type(self).__name__)
        test = _to_datums(test)
        super().__init__(train_x=test if self.test_only else _to_datums(train), val=_to_datums(val) or None, test=test)

    def read(self, cfg):
        """Return all items as `Splits`, checked for labels, names, prompts and duplicates, before any sampling."""
        if _waiting and _waiting[-1] and _waiting[-1][0] == self._what(cfg):
            _, splits, noted = _waiting[-1]
            _waiting[-1].clear()
            vars(self).update(noted)
            return splits
        splits = self.read_splits(cfg)
        if cfg.DATASET.get("SKIP_BROKEN", False):
            splits = self._readable(splits, max(1, cfg.DATALOADER.NUM_WORKERS))
        name = type(self).__name__
        try:
            names = check_splits(splits, name, self.test_only)
        except UserError as error:
            raise UserError(f"{error} ({self.left_out(splits)})") if self.skipped else error from None
        check_prompts({label: self.prompt_words.get(name, name) for label, name in names.items()}, name)
        return splits

    def _readable(self, splits, num_workers):
        """Return the splits without images that are missing or broken, which `self.skipped` keeps with the reasons."""
        items = [item for split in splits for item in split]
        there = [item for item in items if os.path.isfile(item.impath)]
        missing = {item.impath: "missing" for item in items if not os.path.isfile(item.impath)}
        self.skipped = missing | broken_images(there, num_workers)
        return Splits(*([item for item in split if item.impath not in self.skipped] for split in splits))

    def left_out(self, splits):
        """Return in words how many images DATASET.SKIP_BROKEN left out of what became these splits."""
        (path, reason), total = next(iter(self.skipped.items())), sum(map(len, splits)) + len(self.skipped)
        return f"Left out: {len(self.skipped)} of {total} images, the first is {path} ({reason})"

    def choose(self, cfg, splits) -> Splits:
        """Return the splits with the classes that the keys of DATASET choose; raises UserError if one is left."""
        of_test_only = [[], []] if self.test_only else []
        chosen = Splits(*of_test_only, *chosen_classes(cfg, *splits[len(of_test_only) :]))
        if len({item.label for item in (chosen.test if self.test_only else chosen.train)}) < 2:
            raise UserError(
                f"{type(self).__name__}: expected at least two classes, but DATASET.SUBSAMPLE_CLASSES "
                f"{cfg.DATASET.SUBSAMPLE_CLASSES} leaves one: use a data set with more, or all of them"
            )
        return chosen

    def read_ahead(self, cfg):
        """Return the same as `read`; within `reading_once`, also keep it for the data set that is built next."""
        splits = self.read(cfg)
        if _waiting:
            _waiting[-1][:] = self._what(cfg), splits, dict(vars(self))  # also what the reading noted about them
        return splits

    def _what(self, cfg):
        return clean_class(type(self)), {**cfg.DATASET, "NAME": ""}

    def train_pool(self, cfg):
        """Return every training item before sampling, with the labels of the chosen classes."""
        return chosen_classes(cfg, self.read(cfg).train)[0]

    @classmethod
    def locate(cls, cfg):
        """Return the data root: image paths in `noise.json` are relative to it."""
        return data_root(cfg)

    @classmethod
    def class_roots(cls, cfg):
        """Return the folders of which every sub-folder is read as a class, whatever its name is."""
        return []

    @classmethod
    def check_output(cls, cfg, folder):
        """Raise UserError if a run's folder is the data set's own, or if it would be read as a class."""
        folder, own, roots = folder.resolve(), cls.locate(cfg).resolve(), cls.class_roots(cfg)
        inside = [own] if folder == own else [root for root in roots if folder.is_relative_to(root.resolve())]
        if inside:
            raise UserError(
                f"A run does not write among its images, but its folder {folder} lies in {inside[0]}: choose an "
                "--output-dir (--output of a plan, output= of fit) outside of it"
            )

    @classmethod
    def expected_paths(cls, cfg):
        """Return the files and folders that the data set needs."""
        folder = cls.locate(cfg) / cls.dataset_dir
        return [folder / cls.image_dir]

    def read_splits(self, cfg) -> Splits:
        """Return the items of the data set's own format as `Splits`."""
        raise UserError(f"{type(self).__name__} does not declare a format: override read_splits(cfg)")


class SplitFileDataset(ImageDataset):
    """A data set with the family's split file, `{"train"|"val"|"test": [[relative path, label, class name], ...]}`."""

    split_file = ""

    @classmethod
    def expected_paths(cls, cfg):
        """Return the image folder and the split file."""
        return [*super().expected_paths(cfg), cls.locate(cfg) / cls.dataset_dir / cls.split_file]

    def read_splits(self, cfg):
        """Return the items that the split file names."""
        images, split_file = self.expected_paths(cfg)
        return read_split_json(split_file, images)


def data_root(cfg):
    """Return `cfg.DATASET.ROOT` as an absolute path; raises UserError if there is no such folder."""
    if not cfg.DATASET.ROOT:
        raise UserError("No data root is set: give --root DIR (DATASET.ROOT), the folder that holds the data sets")
    root = Path(os.path.abspath(expand_home(cfg.DATASET.ROOT)))
    if not root.is_dir():
        raise UserError(f"The data root {root} is not a folder: give --root DIR (DATASET.ROOT)")
    return root


def require_files(items, name):
    """Raise UserError if images are missing, with their number and the first of them."""
    missing = [item.impath for item in items if not os.path.isfile(item.impath)]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of {len(items)} images are missing, the first is {missing[0]}: "
            f"`{command_line('check-data', name)}` lists what is expected"
        )


def _to_datums(items):
    return [Datum(**item._asdict()) for item in items]
