"""Few-shot subsets and the base/new split of the classes (CoOp, IJCV 2022; CoCoOp, CVPR 2022)."""

from __future__ import annotations

import csv
import io
import random

from dspt_atlas.datasets.formats import Item, by_label
from dspt_atlas.errors import UserError
from dspt_atlas.paths import relative_posix, write_atomically

VAL_SHOTS = 4
SUBSET_FILE = "subset.csv"  # in the folder of a run with few shots


def sample_few_shot(items, shots, seed):
    """Return `shots` items of every label: the subset that CoOp publishes for the same seed.

    One `random.Random(seed)` draws for the whole list, labels in order of first appearance. A label with fewer items
    keeps all of them. `items` have an attribute `label`. `shots < 1` keeps everything. `seed < 0` means unseeded: the
    global `random` draws.
    """
    return _draw(items, shots, _generator(seed))


def few_shot_splits(train, val, shots, seed):
    """Return the few-shot (train, val): min(shots, 4) validation shots, drawn after train from the same generator."""
    generator = _generator(seed)
    if shots >= 1:
        print(f"Creating a {shots}-shot dataset" + (" (no seed: it cannot be drawn again)" if seed < 0 else ""))
    train = _draw(train, shots, generator)
    return train, _draw(val, min(shots, VAL_SHOTS), generator)


def subsample_classes(choice: str, *splits: list[Item]) -> tuple[list[Item], ...]:
    """Return the splits restricted to the "all", "base" (first ceil(C/2) labels) or "new" classes, relabelled from 0.

    Labels count in ascending order of those in the first split. Raises UserError for another choice, or if no class is
    left.
    """
    if choice == "all":
        return splits
    if choice not in ("base", "new"):
        raise UserError(f'DATASET.SUBSAMPLE_CLASSES must be "all", "base" or "new", but got "{choice}"')
    labels = sorted({item.label for item in splits[0]})
    half = (len(labels) + 1) // 2
    chosen = labels[:half] if choice == "base" else labels[half:]
    if not chosen:
        raise UserError(f'"{choice}" keeps no class of a data set with {len(labels)}: use a data set with at least two')
    return _relabelled(chosen, splits)


def chosen_classes(cfg, *splits: list[Item]) -> tuple[list[Item], ...]:
    """Return the splits restricted to the classes that the keys of DATASET choose: by lists of names, or by halves.

    Labels keep their order. Raises UserError for names that the data set does not have or that are in both lists, also
    where all classes are chosen.
    """
    data = cfg.DATASET
    choice, base, new = data.SUBSAMPLE_CLASSES, list(data.get("BASE_CLASSES", ())), list(data.get("NEW_CLASSES", ()))
    if new and not base:
        raise UserError("DATASET.NEW_CLASSES has no effect without DATASET.BASE_CLASSES: list the base classes too")
    if not base:
        return subsample_classes(choice, *splits)
    there = {item.classname for item in splits[0]}
    new = new or there.difference(base)
    for key, names in (("BASE_CLASSES", base), ("NEW_CLASSES", new)):
        if unknown := sorted({*names} - there):
            raise UserError(
                f"DATASET.{key} names {', '.join(map(repr, unknown))}, but the classes are {', '.join(sorted(there))}"
            )
    if both := {*base} & {*new}:
        raise UserError(f"DATASET.BASE_CLASSES and NEW_CLASSES both name {', '.join(sorted(both))}: keep one of them")
    if not new:
        raise UserError("DATASET.BASE_CLASSES names all classes, so none is new: name fewer")
    if choice not in ("base", "new"):
        return subsample_classes(choice, *splits)
    wanted = base if choice == "base" else new
    return _relabelled(sorted({item.label for item in splits[0] if item.classname in wanted}), splits)


def _relabelled(chosen, splits):
    relabelled = {label: index for index, label in enumerate(chosen)}
    return tuple(
        [item._replace(label=relabelled[item.label]) for item in split if item.label in relabelled] for split in splits
    )


def write_subset(path, dataset, root) -> None:
    """Write the training and validation images of a data set as subset.csv, a table for OwnCSV without test images.

    Its paths are relative to the folder `root`. Labels are the given ones, which may be wrong.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("index", "path", "label", "classname", "split"))
    names = dataset.lab2cname
    for split, items in (("train", dataset.train_x), ("val", dataset.val or ())):
        for index, item in enumerate(items):
            table.writerow((index, relative_posix(item.impath, root), item.label, names[item.label], split))
    write_atomically(path, text.getvalue())


def _generator(seed):
    return random if seed < 0 else random.Random(seed)


def _draw(items, shots, generator):
    if shots < 1:
        return list(items)
    chosen = []
    for group in by_label(items).values():
        chosen.extend(generator.sample(group, shots) if len(group) >= shots else group)
    return chosen
