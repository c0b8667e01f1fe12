"""Files, images, seeds, names."""

import difflib
import hashlib
import json
import os
import platform
import random
import secrets
import sys
import time
import urllib.request
import warnings
from contextlib import contextmanager, suppress

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps

from .errors import InvalidInputError

__all__ = [
    "atomic_path",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]


def mkdir_if_missing(dirname):
    """Create a folder with its parents; an existing folder and the empty name are fine."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath):
    """Return whether `fpath` is a file, with a UserWarning if it is not."""
    isfile = os.path.isfile(fpath)
    if not isfile:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return isfile


@contextmanager
def atomic_path(fpath):
    """Yield a temporary path next to `fpath`; on success sync the file and rename it, on failure remove it.

    Its name has the machine and the process that write it. So the files of a killed process can be recognised.
    """
    folder, name = os.path.split(fpath)
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    name = f".{name}.dspt-atlas-{os.getpid()}-{host}-{secrets.token_hex(6)}.tmp"  # as dspt_atlas.paths knows it
    temporary = os.path.join(folder, name)
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, fpath)
    finally:
        with suppress(FileNotFoundError):
            os.remove(temporary)


def read_json(fpath):
    """Return the content of a JSON file."""
    with open(fpath, encoding="utf-8") as file:
        return json.load(file)


def write_json(obj, fpath):
    """Write `obj` as JSON (indent 4, ASCII), atomically, creating the parent folder."""
    mkdir_if_missing(os.path.dirname(fpath))
    with atomic_path(fpath) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def set_random_seed(seed):
    """Seed `random`, NumPy's global generator, torch and all CUDA devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def download_url(url, dst):
    """Download `url` to the file `dst`, atomically, with a progress line on stdout."""
    print(f'* url="{url}"')
    print(f'* destination="{dst}"')
    start = time.time()

    def report(count, block_size, total_size):
        done, seconds = count * block_size, max(time.time() - start, 1e-6)
        percent = min(100, 100 * done // total_size) if total_size > 0 else 0
        speed = done / 1024 / seconds
        sys.stdout.write(f"\r...{percent}%, {done >> 20} MB, {speed:.0f} KB/s, {seconds:.0f} seconds passed")
        sys.stdout.flush()

    with atomic_path(dst) as temporary:
        urllib.request.urlretrieve(url, temporary, report)  # nosec B310: the caller chooses the URL
    sys.stdout.write("\n")


def read_image(path):
    """Return the image at `path` as a Pillow RGB image, upright by its EXIF orientation; OSErrors name the path.

    Images with more than 8 bits per value are refused, because Pillow would clip them at 255.
    """
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"mode {image.mode} has more than 8 bits per value; convert it to 8 bits")
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'No image at "{path}". If the data folder was moved, a stale few-shot cache under '
            "split_fewshot may still name the old place: delete it."
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(
            f'Cannot read the image "{path}" ({error}): check the file; if the path is outdated, '
            "delete the stale few-shot cache under split_fewshot."
        ) from error


def collect_env_info():
    """Return torch's description of the environment with Pillow's version appended."""
    from torch.utils.collect_env import get_pretty_env_info

    return f"{get_pretty_env_info()}\n        Pillow ({PIL.__version__})"


def listdir_nohidden(path, sort=False):
    """Return the sorted names in `path` that do not start with a dot (`sort` is accepted; it is always sorted)."""
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def get_most_similar_str_to_a_from_b(a, b):
    """Return the string of `b` that is most similar to `a` (the last of equals), or None if `b` is empty."""
    best, highest = None, 0.0
    for candidate in b:
        similarity = difflib.SequenceMatcher(None, a, candidate).ratio()
        if similarity >= highest:
            best, highest = candidate, similarity
    return best


def check_availability(requested, available):
    """Raise InvalidInputError with a suggestion unless `requested` is one of the names `available`."""
    if requested not in available:
        best = get_most_similar_str_to_a_from_b(requested, available)
        raise InvalidInputError(
            f"The requested one is expected to belong to {available}, but got [{requested}] (do you mean [{best}]?)"
        )


def tolist_if_not(x):
    """Return `x` if it is a list, otherwise `[x]`."""
    return x if isinstance(x, list) else [x]
