"""What is wrong with a data set, found before training: unreadable images, missing files, malformed lists."""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

from tabulate import tabulate

from dspt_atlas.datasets.formats import Splits
from dspt_atlas.datasets.pitfalls import Copies, identical_files, pitfalls
from dspt_atlas.datasets.readable import SHOWN, examine_images
from dspt_atlas.datasets.reader import ImageDataset
from dspt_atlas.errors import UserError


class Checked(NamedTuple):
    """A usable data set: its object with what reading it noted, its lists, warnings, and images with one content."""

    dataset: ImageDataset
    splits: Splits
    warnings: list[str]
    copies: Copies


def report(dataset, cfg, decode=True) -> Checked | None:
    """Print what `dataset` expects, what is there, and what is wrong or doubtful; return None if it is not usable."""
    print(f"{dataset.__name__} expects")
    complete = True
    for path in dataset.expected_paths(cfg):
        complete &= path.exists()
        print(f"  {'found  ' if path.exists() else 'MISSING'} {path}")
    try:
        unsampled = dataset.__new__(dataset)
        splits = unsampled.read(cfg)
        if unsampled.skipped:
            print(unsampled.left_out(splits))
        splits = unsampled.choose(cfg, splits)
    except UserError as error:
        print(f"NOT USABLE: {error}")
        return None
    _print_counts(splits)
    items = [item for split in splits for item in split]
    missing = [item.impath for item in items if not os.path.isfile(item.impath)]
    _print_files("images are missing", missing, len(items))
    usable = complete and not missing
    if decode:
        absent = set(missing)
        usable &= _print_examined(examine_images([item for item in items if item.impath not in absent]), len(items))
    copies = identical_files(splits) if decode else Copies([], [])
    warnings = pitfalls(dataset, cfg, splits, copies)
    for warning in warnings:
        print(f"WARNING: {warning}")
    if not usable:
        print("NOT USABLE")
        return None
    print(
        "Usable" + ("" if decode else ", images not decoded") + (", if the warnings are unfounded" if warnings else "")
    )
    return Checked(unsampled, splits, warnings, copies)


def _print_examined(images, total):
    """Print which images cannot be read, which are turned and which are scaled; return whether all can be read."""
    broken = [f"{image.path} ({image.problem})" for image in images if image.problem]
    _print_files("images cannot be read", broken, total)
    if turned := [image.path for image in images if image.is_turned]:
        _print_files("images are turned upright, as their EXIF orientation says", turned, total)
    if scaled := [f"{image.path} (mode {image.mode})" for image in images if image.mode[:1] in ("I", "F")]:
        _print_files("images have more than 8 bits per value and are scaled to 8", scaled, total)
    return not broken


def _print_counts(splits):
    names = {item.label: item.classname for split in splits for item in split}
    counts = [Counter(item.label for item in split) for split in splits]
    rows = [(label, names[label], *(count[label] for count in counts)) for label in sorted(names)]
    rows.append(("", f"all {len(names)} classes", *map(len, splits)))
    print(tabulate(rows, headers=("label", "class name", *splits._fields)))


def _print_files(what, files, total):
    print(f"{len(files)} of {total} {what}")
    for path in files[:SHOWN]:
        print(f"  {path}")
    if len(files) > SHOWN:
        print(f"  and {len(files) - SHOWN} more")
