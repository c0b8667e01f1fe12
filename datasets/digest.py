"""The identity of a data set: a digest of its lists as they are read, before few-shot sampling and label noise."""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePath

from dassl.data.datasets import DATASET_REGISTRY

from ..identity import text_digest
from .reader import ImageDataset

LISTS = {"train": "train_x", "unlabelled": "train_u", "val": "val", "test": "test"}


def data_identity(cfg) -> dict:
    """Return the digest and, per split and class name, the number of images and a digest of them.

    Of each image counts its path relative to the data set's folder, its size in bytes, its label, its class name and its
    split; the order of a list does not. Of a data set of somebody else's code the lists as it builds them are taken. Raises
    UserError where the data set cannot be read.
    """
    base, root, splits = _lists(cfg)
    classes = {split: _classes(items, root) for split, items in splits.items() if items}
    return {"digest": text_digest([base, *sorted(_flat(classes))]), "classes": classes}


def _lists(cfg):
    """Return the clean data set's name, the folder of its images, and {split: items} as read."""
    registered = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    clean = getattr(registered, "clean_class", registered)
    if isinstance(clean, type) and issubclass(clean, ImageDataset):
        dataset = clean.__new__(clean)  # its lists, without sampling
        splits = dataset.read(cfg)._asdict()
        return clean.__name__, clean.locate(cfg), splits
    dataset = clean(cfg)
    splits = {split: getattr(dataset, name, None) or [] for split, name in LISTS.items()}
    if splits["train"] is splits["test"]:
        splits["train"] = []
    paths = [os.path.abspath(item.impath) for items in splits.values() for item in items]
    return clean.__name__, os.path.commonpath(paths) if paths else "", splits


def _classes(items, root):
    """Return {class name: [images, digest]} of one split."""
    by_name = {}
    for item in items:
        path = PurePath(os.path.relpath(item.impath, root)).as_posix()
        by_name.setdefault(item.classname, []).append((path, _size(item.impath), item.label))
    return {
        name: [len(images), hashlib.sha256(repr(sorted(images)).encode("utf-8", "surrogateescape")).hexdigest()[:16]]
        for name, images in sorted(by_name.items())
    }


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:  # missing: whoever builds the data set says so
        return -1


def _flat(classes):
    return [(split, name, *value) for split, names in classes.items() for name, value in names.items()]
