"""A run's output folder: one process holds it; its log; removing the files of a start that failed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from dspt_atlas.errors import FolderHeldError, NonFiniteError, UserError, is_mistake
from dspt_atlas.paths import is_as_written, note_written, remove_leftovers, remove_written, write_atomically
from dspt_atlas.run.records import CONFIG_FILE, IDENTITY_FILE, read_settings
from dspt_atlas.signals import Interrupted, ending, is_alive, undisturbed

HOLDER_FILE = ".holder.json"  # next to the lock: the process that holds it
CHECKPOINTS = ("*/checkpoint", "*/model*.pth.tar*")
# A run writes files with these names, and log.txt; an empty log.txt does no harm.
RUN_FILES = (
    CONFIG_FILE,
    IDENTITY_FILE,
    "noise.json",
    "classes.json",
    "subset.csv",
    "failed.json",
    "cmat.pt",
    "cmat.csv",
    *CHECKPOINTS,
)
SECONDS_OF_WORKERS = 20  # so long, a data loader's workers may live after their process was killed


class FolderRemovedError(FileNotFoundError):
    """The output folder was removed while a run wrote into it; another process may have made it again."""


def has_run(folder):
    """Return whether a run was started in a folder; raises UserError if it has files that no run wrote."""
    if read_settings(folder)["config"] is not None:
        return True
    found = [path for pattern in RUN_FILES for path in sorted(folder.glob(pattern))]
    if (folder / "log.txt").is_file() and (folder / "log.txt").stat().st_size:  # empty: made by a shell for this start
        found.append(folder / "log.txt")
    if found:
        raise UserError(
            f"{found[0]} would be overwritten, but no run of dspt-atlas wrote it (there is no {CONFIG_FILE} of a run): "
            "choose another --output-dir, or move the file away."
        )
    return False


def came_to_nothing(folder, error):
    """Return whether a failed start left nothing to keep: no checkpoint, and no failure to examine."""
    if isinstance(error, (NonFiniteError, FolderRemovedError)):
        return False
    saved = any(path for pattern in CHECKPOINTS for path in folder.glob(pattern))
    return not saved and (isinstance(error, (Interrupted, KeyboardInterrupt, OSError)) or is_mistake(error))


def remove_start(folder, models, made=()):
    """Remove what this process wrote into a run's folder, and the folders of `models` and of tensorboard if empty.

    made: folders that are this process's own.
    """
    with undisturbed():
        for path in folder.glob(f"tensorboard/events.out.tfevents.*.{os.getpid()}.*"):
            path.unlink()
        for own in made:
            shutil.rmtree(own, ignore_errors=True)
        remove_written(folder)
        for name in ("tensorboard", *models):
            _remove_empty(folder / name)


def _remove_empty(folder):
    with contextlib.suppress(OSError):  # not there, or now another process's
        folder.rmdir()


@contextlib.contextmanager
def hold(folder):
    """Hold the folder (created if missing) and yield whether it is new: no run was started in it.

    Raises FolderHeldError with the holder's name if another process holds it, and UserError if it has files that no run
    wrote. The operating system releases the lock of a dead process.
    """
    has_run(folder)
    lock, made = FileLock(folder / ".lock"), []

    def let_go():
        _let_go(folder, lock, made)

    with ending(let_go), ending(let_go):  # again, if a signal comes before the first has begun
        _make(folder, made)
        _acquire(lock, folder / HOLDER_FILE)
        is_new = not has_run(folder)
        write_atomically(folder / HOLDER_FILE, json.dumps({"pid": os.getpid(), "host": platform.node()}) + "\n")
        for part in (folder, *folder.iterdir()):
            remove_leftovers(part)
        yield is_new


def _let_go(folder, lock, made):
    if lock.is_locked:
        names = [HOLDER_FILE] if is_as_written(folder / CONFIG_FILE) else [HOLDER_FILE, ".lock"]
        for path in (folder / name for name in names):
            if is_as_written(path):
                path.unlink()
        lock.release()
    while made:
        _remove_empty(made.pop())


def _make(folder, made):
    """Make a folder and its parents; add those that were missing to `made`, from the top."""
    while not folder.is_dir():
        missing = next(path for path in (*reversed(folder.parents), folder) if not path.is_dir())
        try:
            with undisturbed():  # a signal between making and noting would leave the folder
                missing.mkdir()
                made.append(missing)
        except FileNotFoundError:  # another start that failed has just removed the folder above
            continue
        except FileExistsError:
            if not missing.is_dir():
                raise


def _acquire(lock, holder):
    last = time.monotonic() + SECONDS_OF_WORKERS
    while not _take(lock):
        pid, host = _read_holder(holder)
        if pid is None or host != platform.node() or is_alive(pid) or time.monotonic() > last:
            who = f"process {pid} on {host}" if pid else "another process"
            raise FolderHeldError(
                f"{lock.lock_file[:-6]} is being written by {who}: wait for it, or choose another --output-dir."
            )
        time.sleep(0.05)


def _take(lock):
    """Take a lock and return True, or False if another process holds it; its file is noted if this makes it."""
    path = Path(lock.lock_file)
    with undisturbed(), contextlib.suppress(Timeout):  # a signal between making and noting would leave the file
        is_new = not path.exists()
        lock.acquire(timeout=0)
        if is_new:
            note_written(path, path.stat())
        return True
    return False


def running_process(folder: Path) -> str | None:
    """Return which process is doing a run, as its folder says; None if there is none or it died on this machine.

    The lock itself is not touched, so that looking never stops a start. For another machine, its last entry counts.
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
    with undisturbed():  # a signal between opening and noting would leave the file
        is_new = not path.exists()
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - the next `with` closes it
        if is_new:
            note_written(path, os.fstat(file.fileno()))

    console = sys.stdout

    def end():
        sys.stdout = console
        with contextlib.suppress(OSError):  # a full disk
            file.flush()
        if is_new:
            note_written(path, os.fstat(file.fileno()))

    with file, ending(end), ending(end):
        sys.stdout = _Tee(console, file)
        if file.tell() and not path.read_bytes().endswith(b"\n"):  # the last line of a process that was killed
            file.write("\n")
        yield
