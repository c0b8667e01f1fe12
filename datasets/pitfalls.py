"""Probable mistakes in a data set that can be read, and what to do about them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from dspt_atlas.datasets.class_table import doubtful_names
from dspt_atlas.datasets.folders import split_folders
from dspt_atlas.datasets.formats import HEIF_ADVICE, HEIF_SUFFIXES, Item, class_folders, folder_files, is_image
from dspt_atlas.datasets.own import OwnDataset, OwnFolder
from dspt_atlas.datasets.prompts import first_of

SPLIT_WORDS = frozenset((
    "train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "holdout", "raw",
    "images", "labels", "unlabeled", "unlabelled",
))  # fmt: skip
SHOWN = 5


class Copies(NamedTuple):
    """Groups of (split, item) with the same content: those in several splits, and those with several labels."""

    across_splits: list[list[tuple[str, Item]]]
    across_labels: list[list[tuple[str, Item]]]


def pitfalls(dataset, cfg, splits, copies: Copies):
    """Return a sentence for each probable mistake in a data set; copies: those of `identical_files`."""
    found = []
    if issubclass(dataset, OwnFolder):
        folder = dataset.source(cfg)
        if not (cfg.DATASET.SOURCE_DOMAINS or cfg.DATASET.OWN.CLASSES == "leaves"):
            found += _nested_classes(folder)
        if not cfg.DATASET.SOURCE_DOMAINS:
            found += [*_unread_folders(folder), *_unread_files(folder)]
    if issubclass(dataset, OwnDataset):
        names = {item.classname for item in (splits.train or splits.test)}
        found += [*_classes_named_as_splits(names), *doubtful_names(names)]
    return [*found, *_identical_contents(copies)]


def _listed(names):
    return first_of(sorted(map(str, names)), SHOWN)


def _classes_named_as_splits(names):
    words = {name for name in names if name.lower() in SPLIT_WORDS}
    if words and {name.lower() for name in words} != {"train"}:  # "train" is also a vehicle
        yield (
            f"the classes {_listed(words)} have names of parts of a data set: if they are parts, call the folders "
            "train, val and test, in small letters, or list the images in a table with a column split (OwnCSV)"
        )


def _nested_classes(folder):
    """Warn of class folders that hold no image themselves but several folders of them."""
    top = split_folders(folder).get("train", folder)
    inside = {name: _inner_folders(top / name) for name in class_folders(top)}
    nested = {name: inner for name, inner in inside.items() if len(inner) > 1 and name.lower() not in SPLIT_WORDS}
    if not nested:
        return
    common, every = set.intersection(*nested.values()), set.union(*nested.values())
    if len(nested) > 1 and common == every and not {name.lower() for name in common} <= SPLIT_WORDS:
        yield (
            f"the classes {_listed(nested)} all hold the folders {_listed(common)}: if they are domains that hold the "
            "classes, set DATASET.OWN.PATH to one of them, or name those to train on and those to test on by "
            "DATASET.SOURCE_DOMAINS and DATASET.TARGET_DOMAINS"
        )
    else:
        yield (
            f"the classes {_listed(nested)} hold folders instead of images ({_listed(every)}): if these are the "
            "classes, set DATASET.OWN.CLASSES leaves; if each is a data set of its own, set DATASET.OWN.PATH to one of "
            "them"
        )


def _inner_folders(folder):
    """Return the names of the folders in a class's folder that hold images; nothing if it holds images itself."""
    parts = [Path(path).relative_to(folder).parts for path in folder_files(folder) if is_image(path)]
    return set() if any(len(part) == 1 for part in parts) else {part[0] for part in parts}


def _unread_folders(folder):
    if found := split_folders(folder):
        read = {path.name for path in found.values()}
        if rest := [name for name in class_folders(folder) if name not in read]:
            yield f"besides {_listed(read)} there are folders in {folder} that are not read: {_listed(rest)}"


def _unread_files(folder):
    files = folder_files(folder)
    depth = 2 if split_folders(folder) else 1
    inside = [path for path in files if len(Path(path).relative_to(folder).parts) > depth]
    if outside := [path for path in sorted({*files} - {*inside}) if is_image(path)]:
        yield (
            f"images outside of the class folders are not read (found: {len(outside)}, the first is {outside[0]}): if "
            f"{folder} is the folder of one class, set DATASET.OWN.PATH to the folder that holds all classes"
        )
    if skipped := [path for path in inside if not is_image(path)]:
        counts = Counter(os.path.splitext(path)[1].lower() or "no extension" for path in skipped)
        listed = ", ".join(f"{count} of {suffix}" for suffix, count in counts.most_common(SHOWN))
        yield (
            f"files with other extensions are not read (found: {listed}, the first is {skipped[0]}): "
            + (HEIF_ADVICE if {*counts} & {*HEIF_SUFFIXES} else "convert images to JPEG or PNG")
        )


def identical_files(splits) -> Copies:
    """Return the files with the same content in two splits or in two classes."""
    listed = [
        (split, item) for split, items in splits._asdict().items() for item in items if os.path.isfile(item.impath)
    ]
    same, found = defaultdict(list), Copies([], [])
    for key, pair in zip(content_keys([item.impath for _, item in listed]), listed, strict=True):
        same[key].append(pair)
    for copies in same.values():
        if len({split for split, _ in copies}) > 1:
            found.across_splits.append(copies)
        if len({item.label for _, item in copies}) > 1:
            found.across_labels.append(copies)
    return found


def content_keys(paths: list[str]) -> list[str]:
    """Return a text for each file, equal for files with the same content; only files of equal size are read."""
    sizes = [os.path.getsize(path) for path in paths]
    counts = Counter(sizes)
    return [
        path if counts[size] == 1 else hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path, size in zip(paths, sizes, strict=True)
    ]


def _identical_contents(copies):
    leaked, relabelled = (
        f"(found: {len(groups)}, the first is {' = '.join(item.impath for _, item in groups[0][:2])})" if groups else ""
        for groups in copies
    )
    if leaked:
        yield (
            f"images with the same content lie in more than one of train, val and test {leaked}: keep each in one of "
            "them, because the accuracy is too high otherwise"
        )
    if relabelled:
        yield f"images with the same content have two labels {relabelled}: keep the right one"
