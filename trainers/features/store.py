"""A folder of feature arrays: each is computed once, named by a hash of its inputs, and shared by a machine's runs."""

import json
import math
import os
import shutil
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import xxhash
from filelock import FileLock, Timeout
from tqdm import tqdm

from dspt_atlas.errors import UserError
from dspt_atlas.paths import write_atomically
from dspt_atlas.trainers.features.entry import Entry, Unusable, digest_of, entry_key, npy_header

_REMEDY = "free some space, set DSPT_ATLAS_CACHE to another cache folder, or set INPUT.CACHE none"


class InputsChanged(UserError):
    """Raised while encoding if the inputs changed meanwhile; then nothing is kept."""


class FeatureStore:
    """The entries in `<cache_dir>/features/`. Every disk error becomes a UserError that says what to do."""

    def __init__(self, cache_dir):
        self.folder = Path(cache_dir).absolute() / "features"

    def entries(self):
        """Return all entries, finished or not, the least recently used first."""
        entries = [entry for entry in map(Entry, self.folder.glob("*")) if entry.exists]
        return sorted(entries, key=lambda entry: entry.used)

    def get(self, inputs, shape, encode, *, max_bytes, images=(), notes=None):
        """Return the float32 array (N, d) or (V, N, d) of `inputs`, memory-mapped; one run computes it, others wait.

        `encode(first_view)` yields the missing rows in order as blocks (b, d) that do not cross views; an interrupted
        computation resumes after its last complete view. The least recently used entries are removed above `max_bytes`.
        """
        entry = Entry(self.folder / entry_key(inputs))
        meta = {"inputs": inputs, "shape": list(shape), **(notes or {})}
        try:
            array = entry.open()  # without the lock: meta.json appears last, and there is no entry without it
        except Unusable:
            with _disk_errors(self.folder), self._locked(entry.key):
                array = self._open_or_compute(entry, meta, images, encode, max_bytes)
        print(f"Image features {entry.key[:12]} are read from {self.folder}")
        return array

    def _open_or_compute(self, entry, meta, images, encode, max_bytes):
        try:
            return entry.open()
        except Unusable as reason:
            if entry.exists:
                print(f"The cached features in {entry.path} are computed again: {reason}")
                entry.remove()
        self._compute(entry, meta, images, encode, max_bytes)
        try:
            return entry.open()
        except Unusable as reason:
            raise UserError(
                f"The features that were just written to {entry.path} are read with errors ({reason}): {_REMEDY}."
            ) from None

    def remove(self, entry):
        """Remove an entry and return True, or return False if it is locked or in use."""
        with _disk_errors(self.folder):
            try:
                with self._lock(entry.key).acquire(timeout=0):
                    if entry.in_use():
                        return False
                    entry.remove()
            except Timeout:
                return False
        return True

    def _lock(self, name):
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "locks" / f"{name}.lock")

    @contextmanager
    def _locked(self, key):
        lock = self._lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another run that is encoding the same images (features {key[:12]})")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _compute(self, entry, meta, images, encode, max_bytes):
        header = npy_header(meta["shape"])
        meta["bytes"] = len(header) + 4 * math.prod(meta["shape"])
        self._make_room(entry.key, meta["bytes"], max_bytes)
        part = Entry(entry.path.with_suffix(".part"))
        part.path.mkdir(exist_ok=True)
        try:
            write_atomically(part.path / "meta.json", json.dumps(meta))
            meta["xxh3_128"] = _fill(part.path, header, meta, encode)
            meta["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            entry.path.mkdir(exist_ok=True)
            (part.path / "features.npy").replace(entry.array_path)
            write_atomically(entry.path / "images.json", json.dumps(list(images)))
            write_atomically(entry.path / "meta.json", json.dumps(meta, indent=1))
        except BaseException as error:
            if isinstance(error, (OSError, InputsChanged)) or not (part.path / "progress.json").exists():
                part.remove()
                entry.remove()
            raise
        part.remove()

    def _make_room(self, key, needed, max_bytes):
        if needed > max_bytes:
            raise UserError(
                f"The image features need {needed / 2**30:.3g} GB, but INPUT.CACHE_GB allows "
                f"{max_bytes / 2**30:.3g}: raise it, lower INPUT.VIEWS, or set INPUT.CACHE none."
            )
        with self._lock("make-room"):
            others = [entry for entry in self.entries() if entry.key != key]
            excess = needed + sum(entry.bytes for entry in others) - max_bytes
            for entry in others:
                size = entry.bytes
                if excess > 0 and self.remove(entry):
                    excess -= size
        if excess > 0:
            print(f"The feature cache is {excess / 2**30:.3g} GB above INPUT.CACHE_GB, because other runs use the rest")
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"The image features need {needed / 2**30:.3g} GB, but the disk of {self.folder} has "
                f"{free / 2**30:.3g} left: {_REMEDY}."
            )


@contextmanager
def _disk_errors(folder):
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot use the feature cache {folder} ({reason}): {_REMEDY}.") from error


def _fill(part, header, meta, encode):
    """Write features.npy from the first missing view on; return its checksum."""
    rows_per_view, width = meta["shape"][-2:]
    total = math.prod(meta["shape"][:-1])
    rows, digest = _finished_rows(part, header, 4 * width)
    views = f" under {total // rows_per_view} views" if len(meta["shape"]) == 3 else ""
    done = f", {rows // rows_per_view} views are already there" if rows else ""
    print(f"Encoding {rows_per_view:,} images{views} into {part.parent}{done}")
    # Plain writes, not a writable memory map: then a full disk is an error and does not kill the process.
    with open(part / "features.npy", "r+b" if rows else "wb") as file:
        file.write(header)
        file.truncate(file.seek(len(header) + 4 * width * rows))
        with tqdm(total=total, initial=rows, unit="image", desc="Encoding images", leave=False, disable=None) as bar:
            for block in encode(rows // rows_per_view):
                block = np.ascontiguousarray(block, dtype="<f4")
                file.write(block.data)
                digest.update(block.data)
                rows += len(block)
                bar.update(len(block))
                if rows % rows_per_view == 0:
                    file.flush()
                    os.fsync(file.fileno())
                    progress = {"rows": rows, "xxh3_128": digest.hexdigest()}
                    write_atomically(part / "progress.json", json.dumps(progress))
    if rows != total:
        raise ValueError(f"Expected {total} rows of features, got {rows}.")
    return digest.hexdigest()


def _finished_rows(part, header, row_bytes):
    """Return (rows, digest object) of the complete views of an interrupted computation; 0 rows if there are none."""
    try:
        progress = json.loads((part / "progress.json").read_text(encoding="utf-8"))
        rows = progress["rows"]
        with open(part / "features.npy", "rb") as file:
            is_ours, digest = file.read(len(header)) == header, digest_of(file, rows * row_bytes)
        is_whole = is_ours and digest.hexdigest() == progress["xxh3_128"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0, xxhash.xxh3_128()
    return (rows, digest) if is_whole else (0, xxhash.xxh3_128())
