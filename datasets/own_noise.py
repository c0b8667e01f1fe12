"""Wrong labels that people bring: a table path,given,clean; a transition matrix; a list of the wrong samples."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from dspt_atlas.datasets.formats import read_json, read_lines, read_text
from dspt_atlas.datasets.noise import PLACES, TYPES, NoiseRecord, generator_of, other_class, relative_path
from dspt_atlas.datasets.tables import NOISE_NAMES, check_is_file, known_columns, read_rows, read_table
from dspt_atlas.digests import text_digest
from dspt_atlas.errors import UserError
from dspt_atlas.keys.ranges import whole_number
from dspt_atlas.paths import expand_home

OWN, MATRIX, LISTED = "own", "matrix", "listed"  # families of noise.json
TOLERANCE = 1e-3  # of the sum of a matrix's row
DIGITS = 4  # of a rate that nobody asked for


def file_of_noise(noise) -> tuple[str, Path] | None:
    """Return the key below DATASET.NOISE that names a file, and its path; None without; raises UserError for two."""
    given = [key for key in PLACES if noise.get(key)]
    if len(given) > 1:
        raise UserError(f"DATASET.NOISE.{given[0]} and DATASET.NOISE.{given[1]} both say what is wrong: give one")
    if not given:
        return None
    return given[0], check_is_file(expand_home(noise[given[0]]), f"DATASET.NOISE.{given[0]}")


def is_record(path) -> bool:
    """Return whether a file of DATASET.NOISE.FILE is a noise.json, by its extension."""
    return Path(path).suffix.lower() == ".json"


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


def _indices(dataset, cfg):
    return {relative_path(dataset, cfg, item.impath): index for index, item in enumerate(dataset.train_x)}


def _key(dataset, cfg, text):
    return relative_path(dataset, cfg, text) if os.path.isabs(text) else text.replace("\\", "/").removeprefix("./")


def _own_rows(path):
    return read_table(path, NOISE_NAMES, "given")


def _own_labels(dataset, cfg, path):
    clean, indices, found = [item.label for item in dataset.train_x], _indices(dataset, cfg), 0
    given = list(clean)
    names = {name: label for label, name in dataset.lab2cname.items()}

    def label_of(line, cell):
        number = names.get(cell, whole_number(cell))
        if number is None or number >= dataset.num_classes:
            raise UserError(
                f'{path}, line {line}: expected a class name, or a number below {dataset.num_classes}, but got "{cell}"'
            )
        return number

    for line, row in _own_rows(path):
        index = indices.get(_key(dataset, cfg, row["path"]))
        if index is None:  # of another split, or outside of the few-shot subset
            continue
        found += 1
        labels = label_of(line, row["given"]), label_of(line, row["clean"]) if row.get("clean") else clean[index]
        if clean[index] not in labels:
            raise UserError(
                f"{path}, line {line}: the data set says {clean[index]} for {row['path']}, which is neither its given "
                f"nor its clean label ({labels[0]}, {labels[1]}): use the file of this data set"
            )
        given[index], clean[index] = labels
    _check_found(path, found, dataset)
    return clean, given


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


def read_list(path) -> list[str]:
    """Return the indices or paths in a list: .npy, JSON, or text with one per line, perhaps with a header."""
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        values = np.load(path, allow_pickle=False)
        return [str(index) for index in (np.flatnonzero(values) if values.dtype == bool else values.ravel())]
    if suffix == ".json":
        return [str(value) for value in read_json(path)]
    if suffix != ".csv":
        return [line.strip() for line in read_text(path, of_people=True).splitlines() if line.strip()]
    rows = [row.cells for row in read_rows(path)]
    column = known_columns(rows[0], {"entry": "path image filename file index"}).get("entry")
    return [row[column or 0] for row in rows[column is not None :]]


def _listed(dataset, cfg, path):
    indices, found = _indices(dataset, cfg), set()
    for text in read_list(path):
        number = whole_number(text)
        if number is not None and number >= len(dataset.train_x):
            raise UserError(f"{path} names sample {number}, but there are {len(dataset.train_x)}, counted from 0")
        found.add(indices.get(_key(dataset, cfg, text)) if number is None else number)
    found.discard(None)
    _check_found(path, len(found), dataset)
    return sorted(found)
