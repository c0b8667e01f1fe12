"""What is wrong with a data set, found before training: unreadable images, missing files, malformed lists."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from ..errors import UserError
from ..paths import cache_dir, file_state, write_atomically
from .reader import ImageDataset

SHOWN = 5  # of each list of files


def unreadable_images(items, num_workers=2):
    """Return [(path, reason)] of the items whose image cannot be decoded completely, in their order."""
    paths = [item.impath for item in items]
    with ThreadPoolExecutor(num_workers) as pool:
        reasons = list(tqdm(pool.map(_decode_error, paths), total=len(paths), desc="Checking images", disable=None))
    return [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason]


def check_images(items, num_workers=2):
    """Raise UserError that names the images that cannot be decoded; lists found good are remembered in the cache."""
    states = [(item.impath, *file_state(item.impath)) for item in items if os.path.isfile(item.impath)]
    identity = [len(items), sorted(states)]
    stamp = cache_dir() / "checked" / hashlib.sha256(repr(identity).encode()).hexdigest()
    if stamp.exists():
        return
    broken = unreadable_images(items, num_workers)
    if broken:
        listed = "; ".join(f"{path} ({reason})" for path, reason in broken[:SHOWN])
        raise UserError(f"{len(broken)} of {len(items)} images cannot be read: {listed}: fetch them again")
    with contextlib.suppress(OSError):  # without a cache they are checked again next time
        write_atomically(stamp, "")


def _decode_error(path):
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{type(error).__name__}: {error}".replace(str(path), "").strip()
    return ""


def find_dataset(name):
    """Return our data set class with the registered or yaml name `name` ("OxfordPets", "oxford_pets", "dtd")."""
    ours = {}
    for registered in DATASET_REGISTRY.registered_names():
        if isinstance(dataset := DATASET_REGISTRY.get(registered), type) and issubclass(dataset, ImageDataset):
            ours.setdefault(registered, dataset)
    simple = {"dtd": "DescribableTextures"} | {key.lower(): key for key in ours if not key.startswith("Noisy")}
    found = simple.get(name.replace("_", "").lower())
    if found is None:
        raise UserError(f'There is no data set "{name}"; there are {", ".join(sorted(set(simple.values())))}')
    return ours[found]


def report(dataset, cfg, decode=True):
    """Print what `dataset` expects, what is there and what is wrong; return whether it is usable."""
    print(f"{dataset.__name__} expects")
    complete = True
    for path in dataset.expected_paths(cfg):
        complete &= path.exists()
        print(f"  {'found  ' if path.exists() else 'MISSING'} {path}")
    try:
        splits = dataset.__new__(dataset).read(cfg)  # without sampling
    except UserError as error:
        print(f"NOT USABLE: {error}")
        return False
    _print_counts(splits)
    items = [item for split in splits for item in split]
    missing = [item.impath for item in items if not os.path.isfile(item.impath)]
    _print_files("images are missing", missing, len(items))
    broken = []
    if decode:
        absent = set(missing)
        broken = unreadable_images([item for item in items if item.impath not in absent])
        _print_files("images cannot be read", [f"{path} ({reason})" for path, reason in broken], len(items))
    usable = complete and not missing and not broken
    print("Usable" + ("" if decode else ", images not decoded") if usable else "NOT USABLE")
    return usable


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
