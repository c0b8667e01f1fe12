"""File formats of the data sets: each function turns files into lists of `Item`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..paths import is_utf8

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Item(NamedTuple):
    """One image: absolute path, label, class name."""

    impath: str
    label: int
    classname: str


class Splits(NamedTuple):
    """The items of each split; a split that a data set lacks is empty."""

    train: list[Item]
    val: list[Item]
    test: list[Item]


def read_text(path):
    """Return the text of a UTF-8 file; raises UserError if it is missing, empty or not UTF-8."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing" + _nearby(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}): fetch it again") from None
    if not text.strip():
        raise UserError(f"{path} is empty: fetch it again")
    return text


def read_lines(path):
    """Return the non-empty lines of a UTF-8 file."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path):
    """Return the content of a JSON file; raises UserError if it is missing or malformed."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch it again") from None


def class_folders(folder):
    """Return the sorted names of the sub-folders of `folder`; raises UserError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"The folder {folder} is missing" + _nearby(folder))
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder} has no sub-folders: one folder of images for each class is expected")
    return names


def folder_images(folder):
    """Return the sorted paths of the images in `folder` and below; raises UserError if there is none."""
    found = sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(folder, followlinks=True)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
    )
    if not found:
        raise UserError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return found


def safe_join(folder, relative, source):
    """Return `folder/relative`; raises UserError for an empty or absolute path and for one that leaves the folder."""
    if not isinstance(relative, str) or not relative.strip() or "\0" in relative:
        raise UserError(f"{source}: expected a relative image path, but got {relative!r}")
    parts = relative.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or relative[1:2] == ":":
        raise UserError(f'{source}: "{relative}" must be relative to {folder} and stay inside it')
    return f"{folder}/" + "/".join(part for part in parts if part not in ("", "."))


def read_split_json(path, images):
    """Return the `Splits` of a split file of the family, with paths relative to the folder `images`."""
    content = read_json(path)
    if not isinstance(content, dict) or not {"train", "test"} & content.keys():
        raise UserError(f'{path}: expected an object with the keys "train", "val" and "test"')
    return Splits(*(_json_items(content.get(split, []), images, f"{path}, {split}") for split in Splits._fields))


def _json_items(rows, images, source):
    if not isinstance(rows, list):
        raise UserError(f"{source}: expected a list of [relative path, label, class name]")
    items = []
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 3 or type(row[1]) is not int or not isinstance(row[2], str):
            raise UserError(f"{source}, entry {index}: expected [relative path, label, class name], but got {row!r}")
        items.append(Item(safe_join(images, row[0], f"{source}, entry {index}"), row[1], row[2]))
    return items


def check_splits(splits, name, test_only=False):
    """Raise UserError unless labels are 0 to C-1 with one class name each and no image occurs twice."""
    leading = splits.test if test_only else splits.train
    if not leading or not splits.test:
        raise UserError(f"{name}: the {'test' if leading or test_only else 'training'} split is empty")
    names = {}
    for item in leading:
        if not item.classname.replace("_", " ").strip():
            raise UserError(f"{name}: label {item.label} has an empty class name; prompts are made of class names")
        if not is_utf8(item.classname):
            raise UserError(
                f"{name}: the class name {item.classname!r} is no text in UTF-8: rename it, or set PYTHONUTF8=1 if it is"
            )
        if names.setdefault(item.label, item.classname) != item.classname:
            raise UserError(f'{name}: label {item.label} is called both "{names[item.label]}" and "{item.classname}"')
    gaps = sorted(set(range(max(names) + 1)) - names.keys())
    if gaps or min(names) < 0:
        wrong = f"{gaps[:5]} have no training image" if gaps else f"{min(names)} is negative"
        raise UserError(f"{name}: labels must be 0 to C-1 without gaps, but {wrong}")
    seen = set()
    for split, items in zip(splits._fields, splits, strict=True):
        for item in items:
            if names.get(item.label) != item.classname:
                raise UserError(
                    f'{name}, {split}: {item.impath} has label {item.label} and class name "{item.classname}", '
                    f'where training calls label {item.label} "{names.get(item.label)}"'
                )
            if item.impath in seen:
                raise UserError(f"{name}, {split}: {item.impath} occurs twice; every image belongs to one split, once")
            seen.add(item.impath)
    if len(names) < 2:
        raise UserError(f'{name}: expected at least two classes, but there is only "{names[0]}"')


def _nearby(path):
    """Say where a file or folder of the same name lies one level off, for archives unpacked too deep or too shallow."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    found = [other for other in (parent.parent / path.name, *sorted(parent.glob(f"*/{path.name}"))) if other.exists()]
    return f", but {found[0]} is there: move it" if found else f" ({parent} is there)"
