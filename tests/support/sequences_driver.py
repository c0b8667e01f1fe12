"""Starts commands in forks of one process, which has imported everything, and kills them where it is asked to.

Reads a JSON object a line, `{"command": [NAME, ARGUMENT, ...], "errors": FILE, "environment": {}, "folder": FOLDER,
"watched": FOLDER, "signal": NUMBER or 0, "moment": N}`, and answers each with the exit status, negative for a signal.
With a signal the command gets it just before the N-th time that it makes, opens for writing, renames or removes what is
below `watched`.
"""

import gc
import json
import os
import select
import signal
import sys
from concurrent.futures import Future
from pathlib import Path

import torch

from dspt_atlas.commands import guarded
from dspt_atlas.launch import FutureLauncher
from dspt_atlas.launch.execute import drive
from dspt_atlas.launch.state import Journal, scan
from dspt_atlas.plan.planner import read_plan
from dspt_atlas.run.train import main as train_main
from dspt_atlas.tools import run_plan as plan_command

LONGEST = 600  # seconds of a command
HANGS = 99  # the exit status of one that took longer
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}


def forked(command, errors):
    """Call a command in a fork with its standard error in a file; return the exit status, negative for a signal."""
    if pid := os.fork():
        waiting = select.poll()
        waiting.register(descriptor := os.pidfd_open(pid), select.POLLIN)
        hangs = not waiting.poll(1000 * LONGEST)
        os.close(descriptor)
        if hangs:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return HANGS if hangs else status
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        status = command()
    finally:
        sys.stderr.flush()
        os._exit(status)


class Here(FutureLauncher):
    """Does a sweep's runs one by one, each in a fork."""

    limit, name = 1, "here"

    def __init__(self, folder):
        super().__init__()
        self.errors = folder / "errors.txt"

    def start(self, job):
        """Do a run; return its status and the last line of its standard error, as a future that is done."""
        status = forked(lambda: train_main(list(job.arguments)), self.errors)
        done = Future()
        done.set_result((status, self.errors.read_text().strip().rpartition("\n")[2]))
        return done


def sweep(path, root, output, scratch):
    """Do a sweep as `dspt-atlas sweep` does, on a launcher that starts no interpreters."""

    def command():
        journal = Journal(Path(output) / "sweeps" / "failures.jsonl")
        runs = scan(read_plan(Path(path)).jobs(root, Path(output)), journal)
        drive(runs, Here(Path(scratch)), journal, 0)
        return int(any(run.state != "done" for run in runs))

    return guarded(command, "sweep.py", "the same command goes on where it stopped.")


def kill_at(moment, signum, watched):
    """Let this process get a signal just before the `moment`-th change below a folder."""
    seen = []

    def hook(event, arguments):
        is_written = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        is_change = (event in CHANGES or is_written) and not isinstance(arguments[0], int)
        if is_change and os.path.abspath(os.fsdecode(arguments[0])).startswith(watched):
            seen.append(event)
            if len(seen) == moment:
                os.kill(os.getpid(), signum)

    sys.addaudithook(hook)


def run(request):
    """Do a request in this process; return the exit status."""
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    name, *arguments = request["command"]
    if request["signal"]:
        kill_at(request["moment"], request["signal"], request["watched"])
    if name == "train":
        return train_main(arguments)
    return sweep(*arguments) if name == "sweep" else plan_command.main([name, *arguments])


def main():
    torch.set_num_threads(1)
    gc.freeze()  # else each fork copies all that is imported when it collects
    for line in sys.stdin:
        request = json.loads(line)
        print(forked(lambda request=request: run(request), request["errors"]), flush=True)


if __name__ == "__main__":
    main()
