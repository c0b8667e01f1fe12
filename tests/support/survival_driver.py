"""Starts train.py's main in forks of one process, which has imported everything, and kills them with SIGKILL.

    python survival_driver.py ROOT KILLS ARGUMENT ...

"FOLDER" in the arguments becomes ROOT/whole (not interrupted), ROOT/half_N (killed within the N-th write of a
checkpoint, once half of it is on the disk, and resumed) or ROOT/killed_N (killed at random moments and resumed).
Prints how many were killed at a random moment, as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from dspt_atlas.run.train import main as train_main

LARGEST_CHAIN = 6  # kills in one folder
HALVES = (1, 2, 3)


def start(arguments, folder, sabotage=None):
    """Fork a run in a folder; return the process."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        output = os.open(os.devnull, os.O_WRONLY)
        os.dup2(output, 1)
        if sabotage:
            sabotage()
        status = train_main([argument.replace("FOLDER", str(folder)) for argument in arguments])
    finally:
        sys.stderr.flush()
        os._exit(status)


def die_in_checkpoint(number):
    """Return a function that lets this process die within its `number`-th write of a checkpoint, half written."""
    fsync, seen = os.fsync, []

    def half(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        seen.extend([name] * ("model.pth.tar" in name))
        if len(seen) == number and "model.pth.tar" in name:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    def install():
        os.fsync = half

    return install


def finish(pid):
    """Return whether a process went well; raises RuntimeError if it failed, rather than was killed."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"a run ended with status {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def kill_randomly(arguments, root, kills, seconds):
    """Kill runs at random moments of their time, until it was done `kills` times, and let each chain end."""
    generator, done, chain = random.Random(6), 0, 0
    while done < kills:
        folder, in_chain, alive = root / f"killed_{chain}", 0, False
        while done < kills and in_chain < LARGEST_CHAIN and not alive:
            pid = start(arguments, folder)
            time.sleep(generator.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)  # not yet waited for: at worst it has ended
            alive = finish(pid)
            in_chain += not alive
            done += not alive
        finish(start(arguments, folder))
        chain += 1
    return done


def main(root, kills, *arguments):
    torch.set_num_threads(1)
    root = Path(root)
    before = time.monotonic()
    finish(start(arguments, root / "whole"))
    seconds = time.monotonic() - before
    for number in HALVES:
        finish(start(arguments, root / f"half_{number}", die_in_checkpoint(number)))
        finish(start(arguments, root / f"half_{number}"))
    print(json.dumps({"killed": kill_randomly(arguments, root, int(kills), seconds)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
