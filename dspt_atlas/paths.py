"""Where the cache is, and files that are either whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.signals import is_alive

_HERE = Path(__file__).parent  # the folder above has `configs` in a clone without links, as git makes it on Windows
CONFIGS = (_HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs").resolve()
RESULT_FILE, CONFIG_FILE, IDENTITY_FILE = "result.json", "config.yaml", "identity.json"  # of a run
UNSEEN_SECONDS = 7 * 86400  # so long, files of another machine's process count as in use, because it cannot be seen
_TEMPORARY = re.compile(
    r"\..*\.dspt-atlas-(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]+\.tmp(\.[0-9a-f]+\.partial)?", re.DOTALL
)
_own_cache: ContextVar[Path | None] = ContextVar("own_cache", default=None)
_writing: set[str] = set()  # numbers for names of this process's temporary files
_written: dict[str, tuple[int, ...]] = {}  # the files that this process wrote, with their state then


def cache_dir() -> Path:
    """Return $DSPT_ATLAS_CACHE, or $XDG_CACHE_HOME/dspt-atlas, or ~/.cache/dspt-atlas; raises UserError.

    Within `caching_in`, it is that folder.
    """
    if (folder := _own_cache.get()) is not None:
        return folder
    if own := os.environ.get("DSPT_ATLAS_CACHE"):
        return expand_home(own)
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dspt-atlas"


@contextlib.contextmanager
def caching_in(folder: Path | None):
    """Let this thread use another folder as the cache in a block; None changes nothing."""
    token = _own_cache.set(folder or _own_cache.get())
    try:
        yield
    finally:
        _own_cache.reset(token)


def expand_home(path: str | os.PathLike) -> Path:
    """Return a path with the home folder in place of a leading ~ or ~NAME; raises UserError if it is not known."""
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"Expected a path, got {path!r}.")
    path = Path(path)
    is_own = path.parts[:1] == ("~",)
    try:
        if not is_own or os.environ.get("HOME") != "":
            return path.expanduser()
    except RuntimeError:
        pass
    reason = "HOME is not set and this user has no home folder" if is_own else f"there is no user {path.parts[0][1:]}"
    raise UserError(
        f"Expected a home folder for {path}, but {reason}: set HOME, or give the full path (of the cache by "
        "DSPT_ATLAS_CACHE)."
    )


def relative_posix(path: str | os.PathLike, root: str | os.PathLike) -> str:
    """Return a path relative to a folder, with forward slashes."""
    return Path(os.path.relpath(path, root)).as_posix()


def is_of_run(names: Iterable[str]) -> bool:
    """Return whether a folder with files of these names is a run's, or holds checkpoints of one."""
    names = {*names}
    is_run = CONFIG_FILE in names and names & {RESULT_FILE, IDENTITY_FILE, ".lock"}
    return bool(is_run) or ("checkpoint" in names and any(name.startswith("model") for name in names))


def check_output(path: Path, option: str) -> None:
    """Raise UserError if an option's folder cannot be made, because a file has its name or a parent's name."""
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise UserError(f"Expected {option} to be a folder, but {part} is a file: choose another {option}.")


def write_atomically(path: str | os.PathLike, data: str | bytes) -> None:
    """Write a file under a temporary name in its folder (created if missing), sync it, rename it.

    Readers see the old file or the complete new one. Incomplete files of dead processes in the folder are removed.
    Raises OSError, and leaves no temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = path.with_name(temporary_name(path.name))
    _writing.add(temporary.name)
    try:
        with open(temporary, "xb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
            state = os.fstat(file.fileno())
        note_written(path, state)  # before renaming, because a signal may come immediately after it
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _writing.discard(temporary.name)


def temporary_name(name: str) -> str:
    """Return a name for an incomplete file; it has the process and the machine that write it."""
    return f".{name}.dspt-atlas-{os.getpid()}-{_host()}-{secrets.token_hex(6)}.tmp"  # as the engine's atomic_path does


def _host():
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def is_temporary(name: str) -> bool:
    """Return whether a file's name comes from `temporary_name`, or from torch.hub's download to such a name."""
    return _TEMPORARY.fullmatch(name) is not None


def is_leftover(path: Path) -> bool:
    """Return whether a file is a temporary one of a dead process of this project (on another machine: after a week)."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None or not path.is_file():
        return False
    if match["host"] != _host():
        return time.time() - path.stat().st_mtime > UNSEEN_SECONDS
    if int(match["pid"]) == os.getpid():  # in a container, other processes may have had this number
        return path.name not in _writing
    return not is_alive(int(match["pid"]))


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of this project's dead processes from a folder."""
    for path in folder.glob(".*.dspt-atlas-*"):
        with contextlib.suppress(OSError):  # removed meanwhile, or another user's
            if is_leftover(path):
                path.unlink()


def note_written(path: str | os.PathLike, state: os.stat_result) -> None:
    """Remember that this process wrote a file, and the file's state."""
    _written[os.path.abspath(path)] = _identity(state)


def is_as_written(path: str | os.PathLike) -> bool:
    """Return whether a file exists and is still the one that this process wrote with that name."""
    try:
        return _written.get(os.path.abspath(path)) == _identity(os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def remove_written(folder: Path) -> None:
    """Remove the files below a folder that this process wrote and nobody replaced; the oldest goes last."""
    inside = os.path.join(os.path.abspath(folder), "")
    for path in reversed(list(_written)):
        if path.startswith(inside) and is_as_written(path):
            os.unlink(path)


def _identity(state):
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def file_state(path: str | os.PathLike | int) -> tuple[int, int, int]:
    """Return a file's size and the times when its content and inode changed, in nanoseconds.

    Size and time of the content can be set back (cp -p, rsync -t, unzip), but not the inode's time. Raises OSError.
    """
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8 and has no NUL."""
    try:
        return b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        return False
