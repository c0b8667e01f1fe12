"""A run's output folder: held by one process, its log, and what is removed of a start that came to nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from .environment import is_alive
from .errors import MISTAKES, UserError
from .paths import write_atomically
from .trainers.monitor import NonFiniteError

HOLDER_FILE = ".holder.json"  # beside the lock, which process holds it
SECONDS_OF_WORKERS = 20  # that a data loader's workers may outlive a process that was killed


class Interrupted(BaseException):
    """SIGINT or SIGTERM came; `exit_status` is 130 or 143."""

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


class FolderRemovedError(FileNotFoundError):
    """The output folder was removed, and perhaps made anew by another process, while a run wrote into it."""


def contents(folder):
    return {*folder.iterdir(), *folder.glob("*/model*")}


def came_to_nothing(folder, before, error):
    """Return whether a failed start left nothing worth keeping: no checkpoint, and no failure to be looked into."""
    if isinstance(error, (NonFiniteError, FolderRemovedError)):
        return False
    saved = set(folder.glob("*/model*")) - before
    return not saved and isinstance(error, (Interrupted, OSError, *MISTAKES))


def remove(paths):
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_leftovers(folder):
    """Remove the temporary files of a process that was killed while it wrote."""
    remove([*folder.glob(".*.json.*"), *folder.glob(".config.yaml.*"), *folder.glob("*/*.tmp[0-9]*")])


@contextlib.contextmanager
def hold(folder):
    """Hold the folder (created if missing); raises UserError, naming the holder, if another process does.

    The operating system drops the lock of a process that died.
    """
    created = next((parent for parent in reversed((folder, *folder.parents)) if not parent.exists()), None)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / ".lock"), folder / HOLDER_FILE
    try:
        _acquire(lock, holder)
        write_atomically(holder, json.dumps({"pid": os.getpid(), "host": platform.node()}) + "\n")
        yield
    finally:
        if lock.is_locked:
            holder.unlink(missing_ok=True)
            lock.release()
        if created is not None and folder.is_dir() and not any(path.name != ".lock" for path in folder.iterdir()):
            shutil.rmtree(created)


def _acquire(lock, holder):
    for seconds in (0, SECONDS_OF_WORKERS):
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=seconds)
            return
        pid, host = _read_holder(holder)
        if host != platform.node() or is_alive(pid):
            break
    who = f"process {pid} on {host}" if pid else "another process"
    raise UserError(f"{lock.lock_file[:-6]} is being written by {who}: wait for it, or choose another --output-dir.")


def running_process(folder: Path) -> str | None:
    """Return which process is at a run, as far as its folder tells; None if there is none or it died on this machine.

    The lock itself is left alone, so that looking never refuses a start. Of another machine its last word counts.
    """
    pid, host = _read_holder(Path(folder) / HOLDER_FILE)
    if pid is None or (host == platform.node() and not is_alive(pid)):
        return None
    return f"process {pid} on {host}"


def _read_holder(path):
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return int(holder["pid"]), str(holder["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


class _Tee:
    """A text stream that writes to the console and to a file."""

    def __init__(self, console, file):
        self.console, self.file = console, file

    def __getattr__(self, name):
        return getattr(self.console, name)

    def write(self, text):
        self.console.write(text)
        self.file.write(text)
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self):
        self.console.flush()
        self.file.flush()
        if os.fstat(self.file.fileno()).st_nlink == 0:
            folder = os.path.dirname(self.file.name)
            raise FolderRemovedError(errno.ENOENT, "the output folder was removed during the run", folder)


@contextlib.contextmanager
def log(path):
    """Copy standard output to a file, appending, so that a resumed run has one log."""
    with open(path, "a", encoding="utf-8") as file, contextlib.redirect_stdout(_Tee(sys.stdout, file)):
        if file.tell() and not path.read_bytes().endswith(b"\n"):  # the last line of a process that was killed
            file.write("\n")
        yield
