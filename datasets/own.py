"""Your own images: a folder of class folders, a split JSON, or a CSV table, by the keys `DATASET.OWN`."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict

from dspt_atlas.datasets.formats import (
    Item,
    Splits,
    by_label,
    class_folders,
    folder_images,
    read_split_json,
    read_text,
    safe_join,
)
from dspt_atlas.datasets.reader import ImageDataset, data_root
from dspt_atlas.errors import UserError
from dspt_atlas.keys.ranges import whole_number
from dspt_atlas.paths import expand_home
from dspt_atlas.seeds import derive_seed

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class OwnDataset(ImageDataset):
    """Base of the three: `DATASET.OWN.PATH` and `IMAGES` are relative to the data root unless absolute."""

    @classmethod
    def locate(cls, cfg):
        """Return the folder that holds the images."""
        path = cls.source(cfg)
        if cfg.DATASET.OWN.IMAGES:
            return _under_root(cfg, cfg.DATASET.OWN.IMAGES)
        return path if path.is_dir() else path.parent

    @classmethod
    def source(cls, cfg):
        """Return the absolute path of the folder or file that describes the data set."""
        return _under_root(cfg, cfg.DATASET.OWN.PATH)

    @classmethod
    def expected_paths(cls, cfg):
        """Return the image folder and the describing file."""
        return list(dict.fromkeys([cls.locate(cfg), cls.source(cfg)]))


class OwnFolder(OwnDataset):
    """One sub-folder per class: below `train/`, `val/` (optional) and `test/`, or split 50/20/30 within each class.

    Class names are the names of the folders; prompts read underscores as spaces. Labels follow the sorted order.
    """

    def read_splits(self, cfg):
        """Return the items of the class folders."""
        folder = self.source(cfg)
        found = split_folders(folder)
        names = class_folders(found.get("train", folder))
        if found:
            return Splits(*(_folder_items(found[s], names) if s in found else [] for s in Splits._fields))
        if len(names) == 1:
            raise UserError(
                f"{folder / names[0]} would be the only class, but at least two are needed: if it holds the classes, "
                "set DATASET.OWN.PATH to it; if it is a class, put the other classes next to it"
            )
        return stratified_split(_folder_items(folder, names), cfg.DATASET.OWN.SPLIT_SEED)


class OwnSplit(OwnDataset):
    """A split JSON in the family's format; paths are relative to `DATASET.OWN.IMAGES`, by default its own folder."""

    def read_splits(self, cfg):
        """Return the items that the split file names."""
        return read_split_json(self.source(cfg), self.locate(cfg))


class OwnCSV(OwnDataset):
    """A table with the columns `path`, `classname` or `label` (or both: the number and its name), and `split`.

    Without `split` every class is split 50/20/30; without numbers labels follow the sorted class names.
    """

    def read_splits(self, cfg):
        """Return the items of the rows."""
        path = self.source(cfg)
        try:
            rows = list(csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True))
        except csv.Error as error:
            raise UserError(f"{path} cannot be read as a table ({error}): expected one line per image") from error
        columns = rows[0].keys() if rows else set()
        if "path" not in columns or not columns & {"classname", "label"}:
            raise UserError(f"{path}: expected the columns path, classname and split, but got {list(columns)}")
        items = _csv_items(path, rows, self.locate(cfg))
        if "split" not in columns:
            return stratified_split(items, cfg.DATASET.OWN.SPLIT_SEED)
        splits = defaultdict(list)
        for line, (row, item) in enumerate(zip(rows, items, strict=True), start=2):
            split = (row["split"] or "").strip().lower()
            if split not in SPLIT_NAMES:
                raise UserError(f'{path}, line {line}: split must be train, val or test, but got "{row["split"]}"')
            splits[SPLIT_NAMES[split]].append(item)
        return Splits(*(splits[split] for split in Splits._fields))


def split_folders(folder):
    """Return {split: path} of a folder with train/ and test/, {} without both; raises UserError if it has only one."""
    names = class_folders(folder)
    found = {SPLIT_NAMES[name]: folder / name for name in names if name in SPLIT_NAMES}
    twice = [name for name in names if name in SPLIT_NAMES and found[SPLIT_NAMES[name]] != folder / name]
    if {"train", "test"} <= found.keys():
        if twice:
            raise UserError(f"{folder} holds {twice[0]} and {found['val'].name}, two validation splits: keep one")
        return found
    if len(found) + len(twice) == len(names) > 1:
        raise UserError(f"{folder} has {', '.join(names)}: expected train and test (val optional), or classes")
    return {}


def stratified_split(items, seed):
    """Return `Splits` with n//2 training, n//5 validation and the remaining test images of each class of n."""
    generator = random.Random(derive_seed(seed, "split"))
    splits = Splits([], [], [])
    for _, group in sorted(by_label(items).items()):
        count = len(group)
        if count < 2:
            raise UserError(f'The class "{group[0].classname}" has {count} image: to split a class it needs at least 2')
        shuffled = generator.sample(group, count)
        splits.train.extend(shuffled[: count // 2])
        splits.val.extend(shuffled[count // 2 : count // 2 + count // 5])
        splits.test.extend(shuffled[count // 2 + count // 5 :])
    return splits


def _folder_items(folder, names):
    unknown = sorted(set(class_folders(folder)) - set(names))
    if unknown:
        raise UserError(f'{folder} has the class "{unknown[0]}", for which there are no training images')
    return [
        Item(impath, label, name)
        for label, name in enumerate(names)
        if (folder / name).is_dir()
        for impath in folder_images(folder / name)
    ]


def _csv_items(path, rows, images):
    values = [{key: (row.get(key) or "").strip() for key in ("path", "label", "classname")} for row in rows]
    numbers = [whole_number(value["label"]) for value in values]
    numbered = None not in numbers
    if not numbered and all(any(value[key] for value in values) for key in ("label", "classname")):
        line = numbers.index(None)
        raise UserError(
            f'{path}, line {line + 2}: expected a whole number from 0 on as label, but got "{values[line]["label"]}": '
            "number the class of every image, or leave out the column label"
        )
    names = [value["classname"] or ("" if numbered else value["label"]) for value in values]
    if not all(names):
        line = names.index("") + 2
        raise UserError(f"{path}, line {line}: the class name is missing, but prompts are made of class names")
    order = {name: label for label, name in enumerate(sorted(set(names)))}
    return [
        Item(
            safe_join(images, value["path"], f"{path}, line {line}"),
            order[name] if number is None or not numbered else number,
            name,
        )
        for line, (value, number, name) in enumerate(zip(values, numbers, names, strict=True), start=2)
    ]


def _under_root(cfg, path):
    path = expand_home(path)
    return path if path.is_absolute() else data_root(cfg) / path
