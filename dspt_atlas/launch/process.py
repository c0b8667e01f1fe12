"""One run as a process of its own, the same on every machine. Imports the standard library and filelock alone.

Ray and Slurm ship these functions by value, so that what starts train.py need not load torch first.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

TRAIN = (sys.executable, str(Path(__file__).with_name("train.py")))
POLL_SECONDS = 2
HELD = 75  # the exit status of a run whose folder another process holds; EX_TEMPFAIL of sysexits.h


def run_process(command, folder, environment=None, on_start=lambda process: None):
    """Run a command to its end; return its exit status and the last line of its standard error.

    While another process holds the run's folder it is waited for; then the command is started again, and finds the run
    finished, or goes on. `on_start` gets the process.
    """
    while True:
        status, line = _run_once(command, environment, on_start)
        if status != HELD:
            return status, line
        while is_held(folder):
            time.sleep(POLL_SECONDS)


def _run_once(command, environment, on_start):
    with tempfile.TemporaryFile() as errors:
        command = [*dies_with_parent(), *command]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        on_start(process)
        status = process.wait()
        line = last_line(errors)
    if status < 0:
        line = f"killed by {signal.Signals(-status).name}"
    return status, line


def dies_with_parent():
    """Return what to put before a command so that it gets SIGTERM when its parent dies; nothing if that cannot be."""
    path = shutil.which("setpriv")
    if path is None or b"pdeathsig" not in subprocess.run([path, "--help"], capture_output=True, check=False).stdout:
        return ()
    return path, "--pdeathsig", "TERM"


def is_held(folder):
    """Return whether a live process holds a run's folder."""
    path = Path(folder, ".lock")
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def last_line(file):
    """Return the last line with something in it of an open binary file, "" where there is none."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 4096))
    lines = file.read().decode("utf-8", "replace").split("\n")
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
