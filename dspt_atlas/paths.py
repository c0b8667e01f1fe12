"""Where the cache is, and files that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Return $DSPT_ATLAS_CACHE, else $XDG_CACHE_HOME/dspt-atlas, else ~/.cache/dspt-atlas."""
    if own := os.environ.get("DSPT_ATLAS_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dspt-atlas"


def write_atomically(path: str | os.PathLike, data: str | bytes) -> None:
    """Write a file under a temporary name in its folder (created if missing), sync it, rename it.

    Readers see the old file or the whole new one. Raises OSError, and leaves no temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_state(path: str | os.PathLike | int) -> tuple[int, int, int]:
    """Return what changes whenever a file's content does: size, times of change of content and inode in nanoseconds.

    Size and time of the content alone can be set back (cp -p, rsync -t, unzip). Raises OSError.
    """
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8 and has no NUL; bytes that Python could not read cannot."""
    try:
        return b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
