"""Your own images: a folder of class folders, a split JSON, or a table, by the keys `DATASET.OWN`."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import ClassVar

from dassl.data.datasets import DATASET_REGISTRY

from dspt_atlas.datasets.class_table import CLASS_TABLE, doubtful_names, read_class_table, with_names
from dspt_atlas.datasets.folders import read_domains, read_folders, split_folders, stratified_split
from dspt_atlas.datasets.formats import Item, Splits, check_path, read_split_json, safe_join
from dspt_atlas.datasets.reader import ImageDataset, data_root
from dspt_atlas.datasets.tables import SPLIT_NAMES, read_table
from dspt_atlas.errors import UserError
from dspt_atlas.keys.ranges import whole_number
from dspt_atlas.paths import expand_home


class OwnDataset(ImageDataset):
    """Base of the three: `DATASET.OWN.PATH` and `IMAGES` are relative to the data root unless absolute.

    A file classes.csv next to the data, or DATASET.OWN.NAMES, gives classes their names, and prompts their words. The
    templates are those of the data set DATASET.OWN.PROMPTS_OF.
    """

    needs_file = ""  # an example of the file that DATASET.OWN.PATH has to name; without it a folder, also the root

    def __init__(self, cfg):
        super().__init__(cfg)
        for sentence in doubtful_names(set(self.classnames)):
            print(f"NOTE: {sentence}")

    @classmethod
    def locate(cls, cfg):
        """Return the folder that holds the images."""
        path = cls.source(cfg)
        if cfg.DATASET.OWN.IMAGES:
            return _under_root(cfg, cfg.DATASET.OWN.IMAGES)
        return path if path.is_dir() else path.parent

    @classmethod
    def source(cls, cfg):
        """Return the absolute path of the folder or file that describes the data set; raises UserError without one."""
        if cls.needs_file and not cfg.DATASET.OWN.PATH:
            raise UserError(
                f"{cls.__name__} has no file to read: set DATASET.OWN.PATH to it, such as DATASET.OWN.PATH "
                f"/path/to/{cls.needs_file}"
            )
        return _under_root(cfg, cfg.DATASET.OWN.PATH)

    @classmethod
    def expected_paths(cls, cfg):
        """Return the image folder, the describing file, and the table of class names if one is given or there."""
        return list(dict.fromkeys(filter(None, (cls.locate(cfg), cls.source(cfg), cls.class_table(cfg)))))

    @classmethod
    def class_table(cls, cfg):
        """Return the path of the table of class names, or None if none is given and none is there."""
        if cfg.DATASET.OWN.NAMES:
            return _under_root(cfg, cfg.DATASET.OWN.NAMES)
        source = cls.source(cfg)
        beside = (source if source.is_dir() else source.parent) / CLASS_TABLE
        return beside if beside.is_file() and beside != source else None

    def read_splits(self, cfg):
        """Return the items, with the names of the table of class names."""
        if name := cfg.DATASET.OWN.PROMPTS_OF:
            self.templates = _templates_of(name)
        splits, path = self.read_lists(cfg), self.class_table(cfg)
        if splits.test and not splits.train and not splits.val:
            self.test_only = True
        if path is not None:
            table = read_class_table(path)
            splits = with_names(splits, table, path)
            self.prompt_words = {row.name: row.prompt for row in table.values() if row.prompt != row.name}
        return splits

    def read_lists(self, cfg) -> Splits:
        """Return the items with the class names that the data itself has."""
        raise NotImplementedError


class OwnFolder(OwnDataset):
    """One sub-folder per class: below `train/`, `val/` (optional) and `test/`, or split 50/20/30 within each class.

    Class names are the names of the folders; prompts read underscores as spaces. Labels follow the sorted order.
    """

    domains: ClassVar[list[str]] = ["any folder of class folders"]  # as DATASET.SOURCE_DOMAINS names them

    @classmethod
    def class_roots(cls, cfg):
        """Return the folders of the splits or domains, or the one of the classes."""
        folder = cls.source(cfg)
        domains = (*cfg.DATASET.SOURCE_DOMAINS, *cfg.DATASET.TARGET_DOMAINS)
        if domains or not folder.is_dir():
            return [folder / name for name in domains]
        return [*split_folders(folder).values()] or [folder]

    def read_lists(self, cfg):
        """Return the items of the class folders, or of the domains' class folders."""
        folder, own, data = self.source(cfg), cfg.DATASET.OWN, cfg.DATASET
        if folder.is_file():
            kind = "OwnSplit" if folder.suffix.lower() == ".json" else "OwnCSV"
            raise UserError(f"{folder} is a file, but OwnFolder reads a folder: use {kind} as data set")
        is_nested = own.CLASSES == "leaves"
        if data.SOURCE_DOMAINS or data.TARGET_DOMAINS:
            return read_domains(folder, data.SOURCE_DOMAINS, data.TARGET_DOMAINS, is_nested, own.SPLIT_SEED)
        return read_folders(folder, is_nested, own.SPLIT_SEED)


class OwnSplit(OwnDataset):
    """A split JSON in the family's format; paths are absolute or relative to `DATASET.OWN.IMAGES` or its own folder."""

    needs_file = "split.json"

    def read_lists(self, cfg):
        """Return the items that the split file names."""
        return read_split_json(_file(self, cfg, "OwnSplit", "a split JSON"), self.locate(cfg), _place)


class OwnCSV(OwnDataset):
    """A table with a column for the path, one or two for the class (its name, its number, or both), and `split`.

    Other usual names of columns are known too, see `dspt_atlas.datasets.tables`. Paths are absolute or relative to
    `DATASET.OWN.IMAGES`, by default the table's own folder. Without `split` every class is split 50/20/30; without
    numbers labels follow the sorted class names.
    """

    needs_file = "birds.csv"

    def read_lists(self, cfg):
        """Return the items of the rows."""
        path = _file(self, cfg, "OwnCSV", "a table")
        rows = read_table(path)
        items = _csv_items(path, rows, self.locate(cfg), self.class_table(cfg) is not None)
        if "split" not in rows[0][1]:
            return stratified_split(items, cfg.DATASET.OWN.SPLIT_SEED)
        splits = defaultdict(list)
        for (line, row), item in zip(rows, items, strict=True):
            if (split := row["split"].lower()) not in SPLIT_NAMES:
                raise UserError(f'{path}, line {line}: split must be train, val or test, but got "{row["split"]}"')
            splits[SPLIT_NAMES[split]].append(item)
        return Splits(*(splits[split] for split in Splits._fields))


def _templates_of(name):
    if name not in (names := DATASET_REGISTRY.registered_names()):
        raise UserError(f'Expected DATASET.OWN.PROMPTS_OF to be one of {", ".join(names)}, got "{name}".')
    return getattr(DATASET_REGISTRY.get(name), "templates", ()) or OwnDataset.templates


def _file(dataset, cfg, name, what):
    path = dataset.source(cfg)
    if path.is_dir():
        raise UserError(f"{name} reads {what}, but {path} is a folder: set DATASET.OWN.PATH to the file")
    is_json = path.suffix.lower() == ".json"
    if path.is_file() and is_json != (name == "OwnSplit"):
        raise UserError(f"{name} reads {what}, but {path} is another kind: use {'OwnSplit' if is_json else 'OwnCSV'}")
    return path


def _csv_items(path, rows, images, are_named):
    """Return the items of rows; are_named: numbers alone are enough, because a table names them."""
    numbers = [whole_number(row.get("label", "")) for _, row in rows]
    numbered = None not in numbers
    if not numbered and "label" in rows[0][1] and "classname" in rows[0][1]:
        line, row = next(row for row, number in zip(rows, numbers, strict=True) if number is None)
        raise UserError(
            f'{path}, line {line}: expected a whole number from 0 on as label, but got "{row["label"]}": '
            "number the class of every image, or leave out the column label"
        )
    names = [row.get("classname", "" if numbered and not are_named else row.get("label", "")) for _, row in rows]
    if not all(names):
        line = rows[names.index("")][0]
        raise UserError(
            f"{path}, line {line}: the class name is missing, but prompts are made of class names: add a column "
            f"classname, or write {CLASS_TABLE} next to the table with lines such as `0,wren`"
        )
    order = {name: label for label, name in enumerate(sorted(set(names)))}
    return [
        Item(
            _place(images, row["path"], f"{path}, line {line}"),
            order[name] if number is None or not numbered else number,
            name,
        )
        for (line, row), number, name in zip(rows, numbers, names, strict=True)
    ]


def _place(images, path, source):
    check_path(path, source)
    return os.path.normpath(path) if os.path.isabs(path) else safe_join(images, path, source)


def _under_root(cfg, path):
    path = expand_home(path)
    return path if path.is_absolute() else data_root(cfg) / path
