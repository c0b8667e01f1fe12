"""All images of a data set with the labels that a run was given, and those that are known to be right."""

from __future__ import annotations

import numpy as np

from dspt_atlas.datasets.fewshot import chosen_classes
from dspt_atlas.datasets.formats import Item, Splits
from dspt_atlas.datasets.noise import OWN, REAL
from dspt_atlas.datasets.reader import ImageDataset
from dspt_atlas.tools.labels.errors import UNKNOWN, Labels


def all_lists(dataset, cfg) -> Splits:
    """Return every image of a data set before few-shot sampling, with the labels that its run was given."""
    names = dict(enumerate(dataset.classnames))
    if not isinstance(dataset, ImageDataset):
        return Splits(*(_items(items or (), names) for items in (dataset.train_x, dataset.val, dataset.test)))
    splits = dataset.read(cfg)
    there = {split: items for split, items in splits._asdict().items() if items}
    chosen = chosen_classes(cfg, *there.values())
    splits = Splits([], [], [])._replace(**dict(zip(there, chosen, strict=True)))
    given = {item.impath: item.label for item in dataset.train_x}  # after its noise
    train = [_labelled(item, given.get(item.impath, item.label), names) for item in splits.train]
    return splits._replace(train=train)


def _items(data, names):
    return [Item(datum.impath, datum.label, names[datum.label], datum.domain) for datum in data]


def _labelled(item: Item, label: int, names) -> Item:
    return item if item.label == label else item._replace(label=label, classname=names[label])


def labels_of(dataset, splits: Splits) -> Labels:
    """Return the labels of all images, with the true ones where the record of the noise tells them."""
    listed = [(split, index, item) for split, items in splits._asdict().items() for index, item in enumerate(items)]
    given = np.array([item.label for _, _, item in listed])
    noise, clean = getattr(dataset, "noise", None), None
    if noise is not None:
        true = dict(zip((item.impath for item in dataset.train_x), noise.clean, strict=True))
        is_made = noise.family not in (REAL, OWN)  # by us: other labels are right
        clean = np.array([true.get(item.impath, item.label if is_made else UNKNOWN) for _, _, item in listed])
    names, columns = list(dataset.classnames), list(zip(*listed, strict=True))
    return Labels(list(columns[0]), list(columns[1]), [item.impath for item in columns[2]], names, given, clean)
