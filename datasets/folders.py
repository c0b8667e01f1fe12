"""Class folders: splits, nested classes and domains by the names of folders."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from pathlib import Path

from dspt_atlas.datasets.formats import Item, Splits, by_label, class_folders, folder_images, is_image
from dspt_atlas.datasets.tables import SPLIT_NAMES
from dspt_atlas.errors import UserError
from dspt_atlas.paths import is_of_run, relative_posix
from dspt_atlas.seeds import derive_seed


def split_folders(folder):
    """Return {split: path} of a folder with train/ and test/, or with test/ alone, {} without; small letters or not.

    Raises UserError if there is only train and val, or a split twice.
    """
    names = _sub_folders(folder)
    found, twice = {}, []
    for name in names:
        if split := SPLIT_NAMES.get(name.lower()):
            if split in found:
                twice.append((found[split].name, name, split))
            found.setdefault(split, Path(folder, name))
    if {"train", "test"} <= found.keys():
        if twice:
            raise UserError(f"{folder} holds {twice[0][0]} and {twice[0][1]}, two of {twice[0][2]}: keep one")
        return found
    if names == [found["test"].name] if "test" in found else False:
        return found
    if len(found) + len(twice) == len(names) > 1:
        raise UserError(
            f"{folder} has {', '.join(names)}: expected train and test (val optional), or test alone, or classes: if "
            f"you test on {names[-1]}, rename it to test"
        )
    return {}


def _sub_folders(folder):
    """Return the sub-folders without those of runs; raises UserError, which counts images that lie there alone."""
    try:
        return [name for name in class_folders(folder) if not _holds_only_runs(os.path.join(folder, name))]
    except UserError as error:
        flat = sorted(filter(is_image, os.listdir(folder))) if os.path.isdir(folder) else []
        if not flat:
            raise
        raise UserError(
            f"{folder} has {len(flat)} images, such as {flat[0]}, but no sub-folders: put the images of each class "
            "into a folder, or write a table with the columns path and class and use OwnCSV"
        ) from error


def _holds_only_runs(folder):
    """Return whether a folder holds a run, or checkpoints of one, and no image besides."""
    found = False
    for _, folders, names in os.walk(folder):
        if is_of_run(names):
            found, folders[:] = True, []
        elif any(map(is_image, names)):
            return False
    return found


def read_folders(folder, is_nested, seed) -> Splits:
    """Return the items of class folders: by the split folders, or split 50/20/30 within each class.

    is_nested: each folder with images of its own is a class, not the folders at the top. Raises UserError.
    """
    found = split_folders(folder)
    images = {split: _by_class(path, is_nested) for split, path in (found or {"": Path(folder)}).items()}
    classes = sorted(images["train" if "train" in images else "test" if found else ""])
    if found:
        for split, groups in images.items():
            if unknown := sorted(groups.keys() - set(classes)):
                raise UserError(f'{found[split]} has the class "{unknown[0]}", for which there are no training images')
        return Splits(*(_items(images.get(split, {}), classes) for split in Splits._fields))
    if len(classes) == 1:
        raise UserError(
            f"{Path(folder) / classes[0]} would be the only class, but at least two are needed: if it holds the "
            "classes, set DATASET.OWN.PATH to it; if it is a class, put the other classes next to it"
        )
    return stratified_split(_items(images[""], classes), seed)


def read_domains(folder, sources, targets, is_nested, seed) -> Splits:
    """Return training and validation items of the source domains, and test items of the target domains.

    The domains are folders of class folders. If these have no splits, a fifth of each class of a source is for
    validation, and all images of a target are for the test. Raises UserError for a domain or class that is not there.
    """
    there = class_folders(folder)
    if unknown := [name for name in (*sources, *targets) if name not in there]:
        raise UserError(f"{folder} has no domain {unknown[0]}: the domains are {', '.join(there)}")
    if not sources or not targets or {*sources} & {*targets}:
        raise UserError(
            f"Expected DATASET.SOURCE_DOMAINS and DATASET.TARGET_DOMAINS to be different domains of {', '.join(there)},"
            f" but got {list(sources)} and {list(targets)}"
        )
    read = {name: _domain(Path(folder, name), is_nested) for name in (*sources, *targets)}
    classes = sorted({name for source in sources for split in read[source].values() for name in split})
    splits = Splits([], [], [])
    for number, name in enumerate((*sources, *targets)):
        images = read[name]
        if unknown := sorted({c for split in images.values() for c in split} - set(classes)):
            raise UserError(f'The target domain {name} has the class "{unknown[0]}", which no source domain has')
        own = {split: _items(groups, classes, number) for split, groups in images.items()}
        if name in targets:
            splits.test.extend(own.get("test") or own.get("", []))
        elif "" in own:
            parts = stratified_split(own[""], seed, training=lambda count: count - count // 5)
            splits.train.extend(parts.train)
            splits.val.extend(parts.val + parts.test)
        else:
            splits.train.extend(own["train"])
            splits.val.extend(own.get("val", []))
    return splits


def _domain(folder, is_nested):
    found = split_folders(folder)
    found = found if "train" in found else {"": folder}
    return {split: _by_class(path, is_nested) for split, path in found.items()}


def _by_class(folder, is_nested):
    """Return {class name: paths}; nested classes with the same name have their parents' names before it."""
    if not is_nested:
        return {name: folder_images(folder / name) for name in _sub_folders(folder)}
    groups = defaultdict(list)
    for path in folder_images(folder):
        groups[relative_posix(os.path.dirname(path), folder)].append(path)
    if "." in groups:
        raise UserError(f"{groups['.'][0]} lies outside of the class folders: put it into one of them, or move it away")
    last = [key.rsplit("/", 1)[-1] for key in groups]
    return {
        name if last.count(name) == 1 else key.replace("/", " "): paths
        for (key, paths), name in zip(groups.items(), last, strict=True)
    }


def _items(groups, classes, domain=0):
    return [Item(path, label, name, domain) for label, name in enumerate(classes) for path in groups.get(name, ())]


def stratified_split(items, seed, training=lambda count: count // 2):
    """Return `Splits` with n//2 training, n//5 validation and the remaining test images of each class of n.

    training: another number of training images for n.
    """
    generator = random.Random(derive_seed(seed, "split"))
    splits = Splits([], [], [])
    for _, group in sorted(by_label(items).items()):
        count = len(group)
        if count < 2:
            raise UserError(f'The class "{group[0].classname}" has {count} image: to split a class it needs at least 2')
        shuffled, first = generator.sample(group, count), training(count)
        splits.train.extend(shuffled[:first])
        splits.val.extend(shuffled[first : first + count // 5])
        splits.test.extend(shuffled[first + count // 5 :])
    return splits
