"""Wrong labels that people bring: a table path,given,clean; a transition matrix; a list of the wrong samples."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from dspt_atlas.datasets.formats import read_json, read_lines, read_text
from dspt_atlas.datasets.noise import (
    LISTED,
    MATRIX,
    OWN,
    PLACES,
    TYPES,
    NoiseRecord,
    generator_of,
    image_place,
    image_root,
    is_record,
    other_class,
)
from dspt_atlas.datasets.tables import NOISE_NAMES, check_is_file, known_columns, read_rows, read_table
from dspt_atlas.digests import text_digest
from dspt_atlas.errors import UserError
from dspt_atlas.keys.ranges import whole_number
from dspt_atlas.paths import expand_home

TOLERANCE = 1e-3  # of the sum of a matrix's row
DIGITS = 4  # of a rate that nobody asked for: what a file makes wrong among these training images


def file_of_noise(noise) -> tuple[str, Path] | None:
    """Return the key below DATASET.NOISE that names a file, and its path; None without; raises UserError for two."""
    given = [key for key in PLACES if noise.get(key)]
    if len(given) > 1:
        raise UserError(f"DATASET.NOISE.{given[0]} and DATASET.NOISE.{given[1]} both say what is wrong: give one")
    if not given:
        return None
    return given[0], check_is_file(expand_home(noise[given[0]]), f"DATASET.NOISE.{given[0]}")


def noise_digest(noise) -> str | None:
    """Return a digest of the labels, the matrix or the list in the file of DATASET.NOISE, None without a file."""
    found = file_of_noise(noise)
    if found is None:
        return None
    key, path = found
    if key == "FILE" and is_record(path):
        record = NoiseRecord.load(path)
        settings = (record.family, record.type, record.rate, record.per_class, record.num_classes)
        return text_digest([settings, *zip(record.paths, record.clean, record.given, strict=True)])
    if key == "MATRIX":
        return text_digest([key, *read_matrix(path).tolist()])
    if key == "WRONG":
        return text_digest([key, *read_list(path)])
    return text_digest([key, *(sorted(row.items()) for _, row in _own_rows(path))])


def brought_labels(dataset, cfg, key, path, seed) -> tuple[list[int], list[int], dict]:
    """Return the clean and the given labels of `dataset.train_x`, and family, type, rate, seed and per_class.

    The family is "own" for a table, "matrix" for a transition matrix and "listed" for a list of wrong samples. Raises
    UserError for a file that does not fit the training images.
    """
    labels = [item.label for item in dataset.train_x]
    if key == "FILE":
        clean, given = _own_labels(dataset, cfg, path)
        rate = sum(map(int.__ne__, clean, given)) / len(labels)
        return clean, given, _settings(OWN, OWN, rate, -1)
    generator = generator_of(seed)
    if key == "MATRIX":
        matrix = read_matrix(path, dataset.num_classes)
        classes = range(dataset.num_classes)
        given = [generator.choices(classes, matrix[label].tolist())[0] for label in labels]
        rate = float(np.mean([1 - matrix[label, label] for label in labels]))
        return labels, given, _settings(MATRIX, MATRIX, rate, seed)
    kind, given = cfg.DATASET.NOISE.TYPE, list(labels)
    if kind not in TYPES[:2]:
        raise UserError(
            f"DATASET.NOISE.WRONG needs DATASET.NOISE.TYPE {' or '.join(TYPES[:2])}, which say how the listed labels "
            f"become wrong, but got {kind}"
        )
    wrong = _listed(dataset, cfg, path)
    for index in wrong:
        given[index] = other_class(labels[index], dataset.num_classes, kind, generator)
    return labels, given, _settings(LISTED, kind, len(wrong) / len(labels), seed)


def _settings(family, kind, rate, seed):
    return {"family": family, "type": kind, "rate": round(rate, DIGITS), "seed": seed, "per_class": False}


class _Images:
    """The training images of a run by their place, and all images of its data set, before few shots and classes."""

    def __init__(self, dataset, cfg):
        self._root = image_root(dataset, cfg)
        self.indices = {os.path.abspath(item.impath): index for index, item in enumerate(dataset.train_x)}
        self._is_whole = hasattr(dataset, "read_splits")  # a data set of other people's code has drawn already
        lists = dataset.read_splits(cfg) if self._is_whole else (dataset.train_x, dataset.val or (), dataset.test)
        items = [item for items in lists for item in items]
        self.labels = {os.path.abspath(item.impath): item.label for item in items}  # of the whole data set
        self.names = {item.label: item.classname for item in items} if self._is_whole else dict(dataset.lab2cname)
        self.training = {os.path.abspath(item.impath) for item in lists[0]}
        self.label_here = {self.labels[place]: dataset.train_x[index].label for place, index in self.indices.items()}

    def place(self, text):
        """Return the absolute path that a file means."""
        return image_place(self._root, text)

    def note_strangers(self, path, texts):
        """Print how many of the paths in a file are no images of the data set, such as misspelt ones."""
        is_one = self.labels.__contains__ if self._is_whole else os.path.isfile
        if strangers := [text for text in texts if not is_one(self.place(text))]:
            print(
                f"NOTE: left out {len(strangers)} of the {len(texts)} paths in {path} (no such image in the data set); "
                f"the first is {strangers[0]}"
            )


def _own_rows(path):
    return read_table(path, NOISE_NAMES, "given")


def _own_labels(dataset, cfg, path):
    """Return the clean and the given labels of the training images; numbers in the table are the whole data set's."""
    clean, images, said, outside = [item.label for item in dataset.train_x], _Images(dataset, cfg), {}, []
    given, rows, found = list(clean), _own_rows(path), 0
    numbers = {name: label for label, name in images.names.items()}

    def number_of(cell, own):
        number = own if images.names.get(own) == cell else numbers.get(cell, whole_number(cell))  # of twins, its own
        return number if number in images.names else cell

    for line, row in rows:
        place = images.place(row["path"])
        own = images.labels.get(place)
        labels = number_of(row["given"], own), number_of(row["clean"], own) if row.get("clean") else own
        before = said.setdefault(place, (line, labels))
        if own is not None and before[1] != labels:
            raise UserError(
                f"{path} contradicts itself: line {before[0]} and line {line} give {row['path']} different labels: "
                "keep one of them"
            )
        if place not in images.training or own not in images.label_here:  # of another split, or of another class
            continue
        _check_labels(path, line, row, own, labels, images)  # also outside of this seed's few-shot subset
        here = [images.label_here.get(label) for label in labels]
        if None in here:
            outside.append((line, row["path"], images.names[labels[here.index(None)]]))
        elif (index := images.indices.get(place)) is not None:
            found += 1
            given[index], clean[index] = here
    if outside:
        line, image, name = outside[0]
        raise UserError(
            f'{path}, line {line}: the label "{name}" of {image} is not among the {dataset.num_classes} classes of '
            f"DATASET.SUBSAMPLE_CLASSES {cfg.DATASET.SUBSAMPLE_CLASSES}, so it cannot be learned (as {len(outside)} "
            "labels in all): use a table for these classes"
        )
    images.note_strangers(path, [row["path"] for _, row in rows])
    _check_found(path, found, dataset)
    return clean, given


def _check_labels(path, line, row, own, labels, images):
    """Raise UserError for a label that no class has, or if the data set's own label is neither given nor clean."""
    for label in labels:
        if label not in images.names:
            raise UserError(
                f'{path}, line {line}: expected a class name, or a number below {len(images.names)}, but got "{label}"'
            )
    if own not in labels:
        raise UserError(
            f"{path}, line {line}: the data set says {own} for {row['path']}, which is neither its given nor its clean "
            f"label ({labels[0]}, {labels[1]}): use the file of this data set"
        )


def _check_found(path, found, dataset):
    if not found:
        raise UserError(
            f"{path} names none of the {len(dataset.train_x)} training images: write their paths relative to "
            f"{getattr(dataset, 'path_root', 'the data root')}, as in subset.csv or noise.json, or absolute"
        )


def read_matrix(path, num_classes=None) -> np.ndarray:
    """Return a transition matrix T (C, C) from .npy or text, T[y, z] = p(given z | clean y); raises UserError."""
    try:
        if Path(path).suffix.lower() == ".npy":
            matrix = np.load(path, allow_pickle=False).astype(float)
        else:
            matrix = np.array([[float(cell) for cell in re.split(r"[,;\s]+", line)] for line in read_lines(path)])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a transition matrix ({error}): expected C lines of C numbers, or .npy"
        ) from error
    size = num_classes or len(matrix)
    if matrix.shape != (size, size):
        raise UserError(f"{path}: expected a matrix of {size} x {size}, one row per class, but got {matrix.shape}")
    sums = matrix.sum(axis=1)
    wrong = np.flatnonzero(~(abs(sums - 1) <= TOLERANCE) | ~(matrix >= 0).all(axis=1))
    if len(wrong):
        raise UserError(
            f"{path}: expected numbers of at least 0 that sum to 1 in each row, but row {wrong[0]} sums to "
            f"{sums[wrong[0]]:g}"
        )
    return matrix / sums[:, None]


def read_list(path, count=None) -> list[str]:
    """Return the indices or paths in a list: .npy, JSON, or text with one per line, perhaps with a header.

    A .npy may also hold one bool per sample. count: the number of samples, if it is known. Raises UserError.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        values = np.load(path, allow_pickle=False)
        if values.dtype == bool and count not in (None, values.size):
            raise UserError(f"{path} says of {values.size} samples whether they are wrong, but there are {count}")
        return [str(index) for index in (np.flatnonzero(values) if values.dtype == bool else values.ravel())]
    if suffix == ".json":
        if not isinstance(values := read_json(path), list):
            raise UserError(f"{path}: expected a JSON list of indices or paths, but got {type(values).__name__}")
        return [str(value) for value in values]
    if suffix != ".csv":
        return [line.strip() for line in read_text(path, of_people=True).splitlines() if line.strip()]
    rows = [row.cells for row in read_rows(path)]
    column = known_columns(rows[0], {"entry": "path image filename file index"}).get("entry")
    return [row[column or 0] for row in rows[column is not None :]]


def _listed(dataset, cfg, path):
    images, paths, count, found = _Images(dataset, cfg), [], len(dataset.train_x), set()
    for text in read_list(path, count):
        number = whole_number(text.removeprefix("-"))
        if number is None:
            paths.append(text)
        elif text.startswith("-") or number >= count:
            raise UserError(f"{path} names sample {text}, but there are {count}, counted from 0")
        else:
            found.add(number)
    images.note_strangers(path, paths)
    found.update(images.indices[place] for place in map(images.place, paths) if place in images.indices)
    _check_found(path, len(found), dataset)
    return sorted(found)
