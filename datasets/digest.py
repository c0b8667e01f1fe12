"""The identity of a data set: a digest of its lists as they are read, before few-shot sampling and label noise."""

from __future__ import annotations

import hashlib
import os

from dassl.data.datasets import DATASET_REGISTRY

from dspt_atlas.datasets.noisy import clean_class
from dspt_atlas.datasets.reader import DEFAULT_TEMPLATE, ImageDataset
from dspt_atlas.digests import text_digest
from dspt_atlas.paths import relative_posix

DRAWN = ("train", "val")  # images are drawn from these splits
LISTS = {"train": "train_x", "unlabelled": "train_u", "val": "val", "test": "test"}


def data_identity(cfg) -> dict:
    """Return the digest and, per split and class name, the number of images and a digest of them.

    Of each image, its path relative to the data set's folder, its size in bytes, its label, its class name and its
    split count. The order of a list counts if few images are drawn from it or its labels are made wrong. For a data set
    of other people's code, the lists count as it builds them, in any order. Raises UserError if the data set cannot be
    read.
    """
    base, root, splits, is_ours, words = _lists(cfg)
    classes = {split: _classes(items, root) for split, items in splits.items() if items}
    orders = [(split, *_order(splits[split], root)) for split in DRAWN if is_ours]
    return {
        "digest": text_digest([base, *sorted(_flat(classes)), *(order for order in orders if order[1:]), *words]),
        "classes": classes,
    }


def templates_digest(dataset) -> str | None:
    """Return the digest of a data set's own hand-written prompts, None for those that this package declares for it.

    dataset: a registered class, or its object.
    """
    kind = clean_class(dataset if isinstance(dataset, type) else type(dataset))
    ours = (base.declared_templates for base in kind.__mro__ if base.__module__.startswith("dspt_atlas.datasets."))
    own = getattr(dataset, "templates", ()) or (DEFAULT_TEMPLATE,)
    return None if own == next(ours, (DEFAULT_TEMPLATE,)) else text_digest(own)


def _lists(cfg):
    """Return the clean data set's name, its folder, {split: items} as read, whether its code is ours, prompt words."""
    clean = clean_class(DATASET_REGISTRY.get(cfg.DATASET.NAME))
    if isinstance(clean, type) and issubclass(clean, ImageDataset):
        dataset = clean.__new__(clean)  # its lists, without sampling
        splits = dataset.read_ahead(cfg)._asdict()
        return clean.__name__, clean.locate(cfg), splits, True, sorted(dataset.prompt_words.items())
    dataset = clean(cfg)
    splits = {split: getattr(dataset, name, None) or [] for split, name in LISTS.items()}
    if splits["train"] is splits["test"]:
        splits["train"] = []
    paths = [os.path.abspath(item.impath) for items in splits.values() for item in items]
    return clean.__name__, os.path.commonpath(paths) if paths else "", splits, False, []


def _order(items, root):
    """Return the images in their order, or nothing if they are sorted by label and path."""
    listed = [(item.label, relative_posix(item.impath, root)) for item in items]
    return [] if listed == sorted(listed) else listed


def _classes(items, root):
    """Return {class name: [images, digest]} of one split."""
    by_name = {}
    for item in items:
        path = relative_posix(item.impath, root)
        by_name.setdefault(item.classname, []).append((path, _size(item.impath), item.label))
    return {
        name: [len(images), hashlib.sha256(repr(sorted(images)).encode("utf-8", "surrogateescape")).hexdigest()[:16]]
        for name, images in sorted(by_name.items())
    }


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:  # missing: the builder of the data set says so
        return -1


def _flat(classes):
    return [(split, name, *value) for split, names in classes.items() for name, value in names.items()]
