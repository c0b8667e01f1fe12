"""A folder of feature arrays: each computed once, named by a hash of what it was made of, shared by all runs of a machine."""

import hashlib
import io
import json
import math
import os
import shutil
import socket
import time
import uuid
import weakref
import zlib
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..environment import is_alive
from ..errors import UserError
from ..paths import write_atomically

FORMAT = 2
_FOREIGN_USE_SECONDS = 7 * 86400  # a marker of another host, whose processes cannot be seen, counts for so long
_CHUNK_BYTES = 2**24
_REMEDY = "free some space, name another cache folder by DSPT_ATLAS_CACHE, or set INPUT.CACHE none"


def entry_key(inputs):
    """Return the sha256 (hex) that names the entry made of these inputs (a dict of JSON values)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


class Entry:
    """One folder of the cache: features.npy, meta.json, images.json, `used` (touched on each hit), users/ (live processes).

    A folder whose name ends in ".part" is an unfinished entry with progress.json in place of the last three.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.key = self.path.name.removesuffix(".part")
        self.unfinished = self.path.suffix == ".part"
        self.array_path = self.path / "features.npy"

    @property
    def meta(self):
        """The contents of meta.json, an empty dict where it cannot be read."""
        return self._read("meta.json", {})

    @property
    def images(self):
        """[path, identity] of each image in the order of the features, an empty list where it cannot be read."""
        return self._read("images.json", [])

    def _read(self, name, default):
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return default
        return value if isinstance(value, type(default)) else default

    @property
    def bytes(self):
        """Bytes of the array, when finished."""
        size = self.meta.get("bytes")
        return size if isinstance(size, int) else sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())

    @property
    def used(self):
        """Time of the last use, in seconds since the epoch."""
        for path in (self.path / "used", self.path / "progress.json", self.path):
            with suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    def problem(self, thorough=False):
        """Return why this entry cannot be used, in a few words, or None. `thorough` reads the whole array."""
        if not self.path.is_dir():
            return "it does not exist"
        if self.unfinished:
            return "it is unfinished"
        meta = self.meta
        try:
            if meta["inputs"]["format"] != FORMAT or entry_key(meta["inputs"]) != self.key:
                return "meta.json is of another format or entry"
            if (size := self.array_path.stat().st_size) != meta["bytes"]:
                return f"features.npy has {size:,} bytes instead of {meta['bytes']:,}"
            array = np.load(self.array_path, mmap_mode="r", allow_pickle=False)
            if array.dtype != np.float32 or list(array.shape) != meta["shape"]:
                return f"features.npy holds {array.dtype} {list(array.shape)} instead of float32 {meta['shape']}"
            if thorough and _checksum(array) != meta["crc32"]:
                return "features.npy has another checksum than when it was written"
        except (KeyError, TypeError):
            return "meta.json is missing or damaged"
        except (OSError, ValueError) as error:
            return f"features.npy cannot be read ({error})"
        return None

    def open(self):
        """Return the array, memory-mapped and read-only, or None where it is not usable.

        The entry is marked as in use for as long as the array lives.
        """
        if self.problem() is not None:
            return None
        marker = self.path / "users" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with suppress(OSError):  # a cache that this user may only read still serves
            (self.path / "used").touch()
            marker.parent.mkdir(exist_ok=True)
            marker.touch()
        try:
            array = np.load(self.array_path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:  # removed by another run since
            return None
        weakref.finalize(array, _forget, marker, os.getpid())
        return array

    def in_use(self):
        """Whether a live process holds the array, as far as can be known."""
        with suppress(OSError):
            return any(_is_live(marker) for marker in (self.path / "users").iterdir())
        return False


def _forget(marker, pid):
    if os.getpid() == pid:  # not in a forked worker
        with suppress(OSError):
            marker.unlink()


def _is_live(marker):
    host, pid, _ = marker.name.rsplit("-", 2)
    if host != socket.gethostname():
        return time.time() - marker.stat().st_mtime < _FOREIGN_USE_SECONDS
    return is_alive(int(pid))


def _checksum(array, crc=0):
    data = memoryview(array).cast("B")
    for start in range(0, len(data), _CHUNK_BYTES):
        crc = zlib.crc32(data[start : start + _CHUNK_BYTES], crc)
    return crc


class FeatureStore:
    """The entries under `<cache_dir>/features/`. Every disk error is raised as a UserError that says what to do."""

    def __init__(self, cache_dir):
        self.folder = Path(cache_dir).absolute() / "features"

    def entries(self):
        """Return all entries, finished or not, the least recently used first."""
        folders = [path for path in self.folder.glob("*") if len(path.name.removesuffix(".part")) == 64]
        return sorted((Entry(path) for path in folders), key=lambda entry: entry.used)

    def get(self, inputs, shape, encode, *, max_bytes, images=(), notes=None):
        """Return the float32 array (N, d) or (V, N, d) of `inputs`, memory-mapped; computed by one run, others wait.

        `encode(first_view)` yields the missing rows in order as blocks (b, d) that do not cross views; an interrupted
        computation resumes after its last whole view. The least recently used entries make room within `max_bytes`.
        """
        entry = Entry(self.folder / entry_key(inputs))
        array = entry.open()  # without the lock: an entry appears whole, by one rename
        if array is None:
            with _disk_errors(self.folder), self._locked(entry.key):
                array = entry.open()
                if array is None:
                    if entry.path.exists():
                        print(f"The cached features in {entry.path} are computed anew: {entry.problem()}")
                        self._discard(entry.path)
                    self._compute(entry, {"inputs": inputs, "shape": list(shape), **(notes or {})}, images, encode, max_bytes)
                    array = entry.open()
        print(f"Image features {entry.key[:12]} are read from {self.folder}")
        return array

    def remove(self, entry):
        """Remove an entry and return True, or return False where it is locked or in use."""
        with _disk_errors(self.folder):
            try:
                with self._lock(entry.key).acquire(timeout=0):
                    if entry.in_use():
                        return False
                    self._discard(entry.path)
            except Timeout:
                return False
        return True

    def _discard(self, path):
        trash = self.folder / f"trash-{uuid.uuid4().hex[:8]}"
        with suppress(FileNotFoundError):
            path.rename(trash)  # so that nobody sees half an entry
        for left in self.folder.glob("trash-*"):
            shutil.rmtree(left, ignore_errors=True)

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
        header = _npy_header(meta["shape"])
        meta["bytes"] = len(header) + 4 * math.prod(meta["shape"])
        self._make_room(entry.key, meta["bytes"], max_bytes)
        part = entry.path.with_suffix(".part")
        part.mkdir(exist_ok=True)
        try:
            write_atomically(part / "meta.json", json.dumps(meta))
            meta["crc32"] = _fill(part, header, meta, encode)
        except OSError:
            self._discard(part)
            raise
        except BaseException:
            if not (part / "progress.json").exists():
                self._discard(part)
            raise
        meta["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_atomically(part / "images.json", json.dumps(list(images)))
        write_atomically(part / "meta.json", json.dumps(meta, indent=1))
        (part / "progress.json").unlink()
        part.rename(entry.path)

    def _make_room(self, key, needed, max_bytes):
        if needed > max_bytes:
            raise UserError(f"The image features need {needed / 2**30:.3g} GB, but INPUT.CACHE_GB allows "
                            f"{max_bytes / 2**30:.3g}: raise it, lower INPUT.VIEWS, or set INPUT.CACHE none.")
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
            raise UserError(f"The image features need {needed / 2**30:.3g} GB, but the disk of {self.folder} has "
                            f"{free / 2**30:.3g} left: {_REMEDY}.")


@contextmanager
def _disk_errors(folder):
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot use the feature cache {folder} ({reason}): {_REMEDY}.") from error


def _npy_header(shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    return buffer.getvalue()


def _fill(part, header, meta, encode):
    """Write features.npy from the first missing view on; return its checksum."""
    rows_per_view, width = meta["shape"][-2:]
    total = math.prod(meta["shape"][:-1])
    rows, crc = _finished_rows(part, header, 4 * width)
    views = f" under {total // rows_per_view} views" if len(meta["shape"]) == 3 else ""
    done = f", {rows // rows_per_view} views are already there" if rows else ""
    print(f"Encoding {rows_per_view:,} images{views} into {part.parent}{done}")
    # Plain writes, not a writable memory map: a full disk is then an error instead of a killed process.
    with open(part / "features.npy", "r+b" if rows else "wb") as file:
        file.write(header)
        file.truncate(file.seek(len(header) + 4 * width * rows))
        with tqdm(total=total, initial=rows, unit="image", desc="Encoding images", leave=False, disable=None) as bar:
            for block in encode(rows // rows_per_view):
                block = np.ascontiguousarray(block, dtype="<f4")
                file.write(block)
                crc, rows = zlib.crc32(block, crc), rows + len(block)
                bar.update(len(block))
                if rows % rows_per_view == 0:
                    file.flush()
                    os.fsync(file.fileno())
                    write_atomically(part / "progress.json", json.dumps({"rows": rows, "crc32": crc}))
    if rows != total:
        raise ValueError(f"Expected {total} rows of features, got {rows}.")
    return crc


def _finished_rows(part, header, row_bytes):
    """Return (rows, checksum) of the whole views that an interrupted computation left intact, else (0, 0)."""
    try:
        progress = json.loads((part / "progress.json").read_text(encoding="utf-8"))
        crc, left = 0, progress["rows"] * row_bytes
        with open(part / "features.npy", "rb") as file:
            intact = file.read(len(header)) == header
            while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
    return (progress["rows"], crc) if intact and left == 0 and crc == progress["crc32"] else (0, 0)
