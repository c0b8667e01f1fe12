"""One entry of the feature cache: whether it is undamaged, who uses it, and which files of its folder are ours."""

import hashlib
import io
import json
import math
import os
import re
import socket
import time
import uuid
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import xxhash

from dspt_atlas.paths import UNSEEN_SECONDS, file_state, is_temporary
from dspt_atlas.signals import is_alive

FORMAT = 3
CHUNK_BYTES = 2**20
_KEY = re.compile(r"[0-9a-f]{64}(\.part)?")
_MARKER = re.compile(r".+-[0-9]{1,10}-[0-9a-f]{8}")
# meta.json comes first: without it, nobody opens the other files.
_FILES = ("meta.json", "progress.json", "features.npy", "images.json", "used")
_OLD_TEMPORARY = re.compile(r"\.(meta|progress|images)\.json\.[a-z0-9_]{8}")  # of version 0.1.0
_verified = set()  # arrays that this process has read and found undamaged


class Unusable(Exception):
    """Why an entry cannot be used, in a few words."""


def entry_key(inputs):
    """Return the sha256 (hex) that names the entry made of these inputs (a dict of JSON values)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def npy_header(shape):
    """Return the bytes before a float32 array of this shape in a .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    return buffer.getvalue()


def digest_of(file, length=-1):
    """Return the XXH3 digest object of the next `length` bytes of an open file, or of all if it is negative."""
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(CHUNK_BYTES))
    while length and (count := file.readinto(buffer[:length] if 0 < length < CHUNK_BYTES else buffer)):
        digest.update(buffer[:count])
        length -= count
    return digest


class Entry:
    """One folder of the cache: features.npy, meta.json, images.json, `used` (touched on each hit), users/ (processes).

    A folder whose name ends in ".part" is an unfinished entry with progress.json in place of the last three.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.key = self.path.name.removesuffix(".part")
        self.unfinished = self.path.suffix == ".part"
        self.array_path = self.path / "features.npy"

    @property
    def exists(self):
        """Whether the folder has the name of an entry and holds a file of an entry."""
        return bool(_KEY.fullmatch(self.path.name)) and any((self.path / name).is_file() for name in _FILES)

    @property
    def meta(self):
        """The contents of meta.json, or an empty dict if it cannot be read."""
        return self._read("meta.json", {})

    @property
    def images(self):
        """[path, identity] of each image in the order of the features, or an empty list if it cannot be read."""
        return self._read("images.json", [])

    def _read(self, name, default):
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return default
        return value if isinstance(value, type(default)) else default

    @property
    def is_outdated(self):
        """Whether it is from another version of this project, so that no run of this version uses it."""
        inputs = self.meta.get("inputs")
        return isinstance(inputs, dict) and inputs.get("format") != FORMAT and entry_key(inputs) == self.key

    @property
    def bytes(self):
        """Bytes of the array; for an unfinished one, its final size."""
        size = self.meta.get("bytes")
        if self.unfinished and isinstance(size, int):
            return size
        with suppress(OSError):
            return self.array_path.stat().st_size
        return 0

    @property
    def used(self):
        """Time of the last use, in seconds since the epoch."""
        for path in (self.path / "used", self.path / "progress.json", self.path):
            with suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    def check(self):
        """Read the whole array; raise Unusable if it is damaged."""
        with self._opened() as file:
            self._check_header(file, self._shape())
            self._check_rows(file)

    def open(self):
        """Return the array, memory-mapped and read-only; raise Unusable if it is damaged.

        It is read and compared with its checksum when this process opens it for the first time. The entry is marked as
        in use as long as the array exists.
        """
        with self._opened() as file:
            marker = self._mark()
            try:
                shape = self._shape()
                self._check_header(file, shape)
                identity = self.array_path, os.fstat(file.fileno()).st_ino, *file_state(file.fileno())
                if identity not in _verified:
                    self._check_rows(file)
                    _verified.add(identity)
                array = np.memmap(file, "<f4", "r", len(npy_header(shape)), shape)
            except BaseException:
                _forget(marker, os.getpid())
                raise
        weakref.finalize(array, _forget, marker, os.getpid())
        return array

    def _opened(self):
        if self.unfinished:
            raise Unusable("it is unfinished")
        return _read(open, self.array_path, "rb", buffering=0)

    def _shape(self):
        """Return the shape in meta.json; raise Unusable if meta.json does not belong to this entry."""
        meta = self.meta
        inputs, shape = meta.get("inputs"), meta.get("shape")
        if not isinstance(inputs, dict) or inputs.get("format") != FORMAT or entry_key(inputs) != self.key:
            raise Unusable("meta.json is missing, damaged, or of another entry")
        if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
            raise Unusable("meta.json is damaged")
        return tuple(shape)

    def _check_header(self, file, shape):
        header, size = npy_header(shape), os.fstat(file.fileno()).st_size
        expected = len(header) + 4 * math.prod(shape)
        if size != expected:
            raise Unusable(f"features.npy has {size:,} bytes instead of {expected:,}")
        if _read(file.read, len(header)) != header:
            raise Unusable("the header of features.npy does not agree with meta.json")

    def _check_rows(self, file):
        # It is read and not mapped: then an error of the disk does not kill the process.
        if _read(digest_of, file).hexdigest() != self.meta.get("xxh3_128"):
            raise Unusable("the checksum of features.npy has changed since it was written")

    def _mark(self):
        marker = self.path / "users" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with suppress(OSError):  # a user without permission to write can still use the cache
            (self.path / "used").touch()
            marker.parent.mkdir(exist_ok=True)
            self.clear_leftovers()
            marker.touch()
        return marker

    def in_use(self):
        """Whether a running process holds the array, as far as this can be known."""
        return any(map(_is_live, self._markers()))

    def _markers(self):
        with suppress(OSError):
            return [path for path in (self.path / "users").iterdir() if _MARKER.fullmatch(path.name)]
        return []

    def clear_leftovers(self):
        """Remove the marks of processes that have ended."""
        for marker in self._markers():
            if not _is_live(marker):
                marker.unlink(missing_ok=True)

    def remove(self):
        """Remove our files, and then empty folders; other files stay.

        The caller holds the entry's lock, so temporary files come from killed processes.
        """
        hidden = self.path.glob(".*")
        left = [path for path in hidden if is_temporary(path.name) or _OLD_TEMPORARY.fullmatch(path.name)]
        for path in (*(self.path / name for name in _FILES), *self._markers(), *left):
            path.unlink(missing_ok=True)
        for folder in (self.path / "users", self.path):
            with suppress(OSError):
                folder.rmdir()


def _read(call, *arguments, **options):
    """Return the value of a call; an error of the disk makes an entry unusable."""
    try:
        return call(*arguments, **options)
    except OSError as error:
        raise Unusable(f"features.npy cannot be read ({error.strerror})") from error


def _forget(marker, pid):
    if os.getpid() == pid:  # not in a forked worker
        with suppress(OSError):
            marker.unlink()


def _is_live(marker):
    host, pid, _ = marker.name.rsplit("-", 2)
    try:
        if host != socket.gethostname():
            return time.time() - marker.stat().st_mtime < UNSEEN_SECONDS
        return is_alive(int(pid))
    except (OSError, OverflowError):  # removed meanwhile; no process has such a number
        return False
