"""File formats of the data sets: each function turns files into lists of `Item`."""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import itertools
import json
import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dspt_atlas.datasets.images import register_heif
from dspt_atlas.errors import UserError
from dspt_atlas.paths import is_of_run

# The formats that Pillow reads, without videos, and without those whose pixels need another program.
NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_ADVICE = "for HEIC images install pillow-heif (pip install 'dspt-atlas[heic]'), or convert them to JPEG or PNG"


class Item(NamedTuple):
    """One image: absolute path, label, class name, number of its domain."""

    impath: str
    label: int
    classname: str
    domain: int = 0


class Splits(NamedTuple):
    """The items of each split; a split that a data set lacks is empty."""

    train: list[Item]
    val: list[Item]
    test: list[Item]


def read_text(path, of_people=False):
    """Return the text of a UTF-8 file; raises UserError if it is missing, empty or not UTF-8.

    of_people: UTF-16 with its mark and cp1252 are read too, as spreadsheets write them.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = _decoded(data) if of_people else data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing" + _nearby(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}): save it as UTF-8 text") from None
    if not text.strip():
        raise UserError(f"{path} is empty: write its lines, or put a complete copy there")
    return io.StringIO(text, newline=None).read()  # with \n as the only end of a line


def _decoded(data):
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def read_lines(path):
    """Return the non-empty lines of a UTF-8 file."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path):
    """Return the content of a JSON file; raises UserError if it is missing or malformed."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError, too, for a number of 5,000 digits
        raise UserError(f"{path} is not valid JSON ({error}): mend it there, or put a complete copy there") from None


def class_folders(folder):
    """Return the sorted names of the sub-folders of `folder`; raises UserError if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"The folder {folder} is missing" + _nearby(folder))
    above = {_identity(path) for path in (folder.resolve(), *folder.resolve().parents)}
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and os.path.isdir(folder / name))
    names = [name for name in names if _identity(folder / name) not in above]  # a link back is not a class
    if not names:
        raise UserError(f"{folder} has no sub-folders: expected one folder of images per class")
    return names


def folder_files(folder):
    """Return the sorted paths of the files in `folder` and below; follow links, each folder once.

    Hidden names and folders of runs below it are left out.
    """
    found, seen = [], {_identity(folder)}
    for directory, folders, names in os.walk(folder, followlinks=True):
        paths = {name: _identity(os.path.join(directory, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, identity in paths.items() if not (identity in seen or seen.add(identity))]
        if is_of_run(names) and directory != os.fspath(folder):
            folders[:] = names = []
        found += [os.path.join(directory, name) for name in names if not name.startswith(".")]
    return sorted(found)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the extensions of the image formats that Pillow reads here, in small letters; HEIC's with pillow-heif."""
    register_heif()
    Image.init()
    extensions = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in extensions if kind in Image.OPEN and kind not in NO_IMAGES)


def is_image(path):
    """Return whether a file's name has the extension of an image."""
    return os.path.splitext(path)[1].lower() in image_suffixes()


def folder_images(folder):
    """Return the sorted paths of the images in `folder` and below; raises UserError if there are none."""
    if not (found := [path for path in folder_files(folder) if is_image(path)]):
        raise UserError(f"{folder} holds no images that Pillow can read by their extension" + _other_files(folder))
    return found


def _other_files(folder):
    others = folder_files(folder)
    if any(path.lower().endswith(HEIF_SUFFIXES) for path in others):
        return f": {HEIF_ADVICE}"
    return f", but {len(others)} other files, such as {others[0]}: convert them" if others else ": it is empty"


def by_label(items):
    """Return {label: [items]}, labels in order of first appearance."""
    groups = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return groups


def _identity(folder):
    """Return the same value for two paths of one folder."""
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def check_path(path, source):
    """Raise UserError unless a path is a text that names a file: not empty, without NUL, in the file system's code."""
    with contextlib.suppress(UnicodeEncodeError):  # half of a surrogate pair
        if isinstance(path, str) and path.strip() and b"\0" not in os.fsencode(path):
            return
    raise UserError(f"{source}: expected the path of an image, but got {path!r}")


def safe_join(folder, relative, source):
    """Return `folder/relative`; raises UserError for an empty or absolute path and for one that leaves the folder."""
    check_path(relative, source)
    parts = relative.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or relative[1:2] == ":":
        raise UserError(f'{source}: "{relative}" must be relative to {folder} and stay inside it')
    return f"{folder}/" + "/".join(part for part in parts if part not in ("", "."))


def read_split_json(path, images, place=safe_join):
    """Return the `Splits` of a split file of the family, with paths relative to the folder `images`.

    place: (images, path, source) -> where an image is.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not {"train", "test"} & content.keys():
        raise UserError(f'{path}: expected an object with the keys "train", "val" and "test"')
    return Splits(*(_json_items(content.get(split, []), images, f"{path}, {split}", place) for split in Splits._fields))


def _json_items(rows, images, source, place):
    if not isinstance(rows, list):
        raise UserError(f"{source}: expected a list of [relative path, label, class name]")
    items = []
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 3 or type(row[1]) is not int or not isinstance(row[2], str):
            raise UserError(f"{source}, entry {index}: expected [relative path, label, class name], but got {row!r}")
        items.append(Item(place(images, row[0], f"{source}, entry {index}"), row[1], row[2]))
    return items


def check_splits(splits, name, test_only=False):
    """Return {label: class name}; raise UserError unless labels are 0 to C-1 with one name each, and images unique."""
    leading = splits.test if test_only else splits.train
    if not leading or not splits.test:
        raise UserError(f"{name}: the {'test' if leading or test_only else 'training'} split is empty: add its images")
    names = {}
    for item in leading:
        if names.setdefault(item.label, item.classname) != item.classname:
            raise UserError(f'{name}: label {item.label} is called both "{names[item.label]}" and "{item.classname}"')
    for split, items in zip(splits._fields, splits, strict=True):
        unknown = [item for item in items if item.label not in names and item.classname not in names.values()]
        if unknown:
            raise UserError(
                f'{name}: the class "{unknown[0].classname}" (label {unknown[0].label}) has {split} images, but no '
                f"training image: add some, or take it out of {split}"
            )
    if min(names) < 0 or max(names) >= len(names):
        gaps = itertools.islice((label for label in itertools.count() if label not in names), 5)
        below = [label for label in gaps if label < max(names)]
        wrong = f"{below} have no training image, and {max(names)} has one" if below else f"{min(names)} is negative"
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
    return names


def _nearby(path):
    """Say where a file or folder of the same name lies one level up or down, where an archive was unpacked wrongly."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    found = [other for other in (parent.parent / path.name, *sorted(parent.glob(f"*/{path.name}"))) if other.exists()]
    return f", but {found[0]} is there: move it" if found else f" ({parent} is there)"
