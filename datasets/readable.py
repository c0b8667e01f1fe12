"""Whether images can be read: decoding them once, with a memory in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from dspt_atlas.datasets.images import READING, open_image
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, file_state, write_atomically

SHOWN = 5  # of each list of files


class Examined(NamedTuple):
    """An image file: why it cannot be read ("" if it can), the mode of its pixels, whether its EXIF data turn it."""

    path: str
    problem: str
    mode: str
    is_turned: bool


def examine_images(items, num_workers=2):
    """Decode the items' images completely and return them as `Examined`, in their order."""
    paths = [item.impath for item in items]
    with ThreadPoolExecutor(num_workers) as pool:
        return list(tqdm(pool.map(_examine, paths), total=len(paths), desc="Checking images", disable=None))


def broken_images(items, num_workers=2) -> dict[str, str]:
    """Return {path: why it cannot be read} of the items' images; the cache remembers it for unchanged files."""
    states = [(item.impath, *file_state(item.impath)) for item in items if os.path.isfile(item.impath)]
    identity = [READING, len(items), sorted(states)]
    memory = cache_dir() / "checked" / hashlib.sha256(repr(identity).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(memory.read_text(encoding="utf-8") or "{}"))  # older versions wrote empty files
    broken = {image.path: image.problem for image in examine_images(items, num_workers) if image.problem}
    if all(map(os.path.isfile, broken)):
        with contextlib.suppress(OSError):  # without a cache they are examined again next time
            write_atomically(memory, json.dumps(broken))
    return broken


def check_images(items, num_workers=2):
    """Raise UserError for images that cannot be decoded; lists without such images are remembered in the cache."""
    if broken := broken_images(items, num_workers):
        listed = "; ".join(f"{path} ({problem})" for path, problem in list(broken.items())[:SHOWN])
        raise UserError(
            f"{len(broken)} of {len(items)} images cannot be read: {listed}: repair or replace them, or leave them out "
            "by --skip-broken (DATASET.SKIP_BROKEN True)"
        )


def _examine(path):
    try:
        opened = open_image(path)
    except Exception as error:  # noqa: BLE001 Pillow raises a dozen kinds for a broken file
        return Examined(path, f"{type(error).__name__}: {error}".replace(f" '{path}'", "").strip(), "", False)
    return Examined(path, "", opened.mode, opened.is_turned)
