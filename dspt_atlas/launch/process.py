"""One run as its own process, the same on every machine. Imports only the standard library and filelock.

Ray and Slurm send these functions by value. So the process that starts train.py does not load torch first.
"""

import os
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


def run_process(command, folder, environment=None, on_start=lambda process: None):
    """Run a command to its end; return its exit status and the last line of its standard error.

    While another process holds the run's folder, this function waits. Then it starts the command again, which finds the
    run finished or resumes it. `on_start` gets the process.
    """
    while True:
        status, line = _run_once(command, environment, on_start)
        if status != os.EX_TEMPFAIL:  # of errors.FolderHeldError
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
    """Return words before a command by which it gets SIGTERM when its parent dies; nothing if that is not possible."""
    path = shutil.which("setpriv")
    if path is None or b"pdeathsig" not in subprocess.run([path, "--help"], capture_output=True, check=False).stdout:
        return ()
    return path, "--pdeathsig", "TERM"


def is_held(folder):
    """Return whether a running process holds a run's folder."""
    path = Path(folder, ".lock")
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def last_line(file):
    """Return the last non-empty line of an open binary file, or ""."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 4096))
    lines = file.read().decode("utf-8", "replace").split("\n")
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
