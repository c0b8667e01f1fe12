"""Images that a program holds, as a split file: a list of (image, label), or a torch Dataset."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import DatasetFolder

from dspt_atlas.datasets.folders import stratified_split
from dspt_atlas.datasets.formats import Item, Splits
from dspt_atlas.datasets.images import read_image
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home
from dspt_atlas.run.model import each, image_of, picture_of

SPLIT_SEED = 1  # the default of DATASET.OWN.SPLIT_SEED


def write_splits(folder: Path, splits: dict[str, Any], classnames: Sequence[str] | None) -> tuple[str, str]:
    """Write a split file of the family's format into a folder; return its name, and the folder of its images.

    splits: {"train", perhaps "val" and "test": a list of (image, label), or a torch Dataset}. Without "test", each
    class is split as OwnFolder does. If an image is not a file, all are written below the folder, as PNG. Raises
    UserError, also for a class without a training image.
    """
    names = _names(splits["train"], classnames)
    found = {split: _listed(data, split) for split, data in splits.items()}
    if any(isinstance(data, Dataset) or not all(map(_is_path, data)) for data in found.values()):
        found = {split: _written(data, folder / "images" / split) for split, data in found.items()}
    pairs = {split: [_pair(sample) for sample in data] for split, data in found.items()}
    known = names or sorted({label for own in pairs.values() for _, label in own if isinstance(label, str)})
    lists = Splits(*([_item(*pair, known, names) for pair in pairs.get(split, ())] for split in Splits._fields))
    if not lists.train:
        raise UserError("Expected images to train on, got none: give a list of (image, label) or a torch Dataset.")
    _check_trained(lists, known)
    if "test" not in splits:
        drawn = stratified_split(lists.train, SPLIT_SEED)
        lists = drawn._replace(val=lists.val or drawn.val)
    root = os.path.commonpath([os.path.dirname(item.impath) for items in lists for item in items])
    is_written = Path(root).is_relative_to(folder)
    rows = {
        split: [[Path(os.path.relpath(item.impath, root)).as_posix(), item.label, item.classname] for item in items]
        for split, items in lists._asdict().items()
    }
    name = f"{type(splits['train']).__name__ if is_written else Path(root).name or 'images'}.json"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")
    return name, os.path.relpath(root, folder) if is_written else root


def _names(data, classnames):
    """Return the class names that are given, or those of a Dataset's `classes`; None without."""
    if isinstance(classnames, str):
        raise UserError(f"Expected classnames to be a list, got the text {classnames!r}: put it into a list.")
    names = classnames if classnames is not None else getattr(data, "classes", None)
    if names is None:
        return None
    names = [str(name) for name in names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f'Expected classnames to differ, got "{twice[0]}" twice: give each class a name of its own.')
    return names


def _check_trained(lists, names):
    """Raise UserError for a class without a training image, which could not be learned."""
    trained = {item.label for item in lists.train}
    for label, name in enumerate(names):
        if label not in trained:
            splits = [split for split in ("val", "test") if any(item.label == label for item in getattr(lists, split))]
            only = f", but {' and '.join(splits)} images of it" if splits else ""
            raise UserError(
                f'Expected training images of each class, got none of "{name}"{only}: add some, or leave it out of '
                f"{' and '.join(splits or ['classnames'])}."
            )


def _listed(data, split):
    """Return samples as a list, but a Dataset of pictures unchanged."""
    if isinstance(data, DatasetFolder) and data.transforms is None:  # its files are used as they are
        return list(data.samples)
    if isinstance(data, (str, bytes, os.PathLike)):
        raise UserError(f"Expected a list of (image, label) or a torch Dataset as {split}, got {str(data)!r}.")
    return data if isinstance(data, Dataset) else list(each(data))


def _is_path(sample):
    return isinstance(image_of(sample), (str, os.PathLike))


def _pair(sample):
    """Return (absolute path, label) of a sample of a list."""
    return os.path.abspath(expand_home(image_of(sample))), _label(sample)


def _label(sample):
    label = sample.get("label") if isinstance(sample, dict) else None
    if isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) > 1:
        label = sample[1]
    if label is None:
        raise UserError(f"Expected samples of an image and its label, got {sample!r:.80}: give pairs.")
    return label


def _written(data, folder) -> Iterator[tuple[str, Any]]:
    """Yield (path, label) of each sample, written as PNG into a folder."""
    folder.mkdir(parents=True)
    for number, sample in enumerate(each(data)):
        image, path = image_of(sample), folder / f"{number:06}.png"
        read_image(picture_of(image) if isinstance(image, Tensor) else image).save(path, compress_level=1)
        yield str(path), _label(sample)


def _item(path, label, known, names):
    """Return an Item of a label that is a name, or the number of one of `names`."""
    if isinstance(label, str):
        if label not in known:
            raise UserError(f'{path} has the label "{label}", which is not one of the classes {", ".join(known)}.')
        return Item(path, known.index(label), label)
    try:
        number = operator.index(label)
    except TypeError:
        raise UserError(f"Expected the label of {path} to be a name or a whole number, got {label!r:.80}.") from None
    if names is None:
        raise UserError(f"{path} has the number {number} as label: give the classes' names, in order, by classnames=.")
    if not 0 <= number < len(names):
        raise UserError(f"{path} has the label {number}, but there are {len(names)} class names: number them from 0.")
    return Item(path, number, names[number])
