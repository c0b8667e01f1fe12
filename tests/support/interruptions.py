"""What happens to a run at a moment that a test chooses."""

import signal
import time
from contextlib import contextmanager

from dspt_atlas.signals import Interrupted
from dspt_atlas.trainers.trainer import PromptTrainer


@contextmanager
def at_epoch(monkeypatch, number, action):
    """Do something when an epoch (from 1) begins."""
    original = PromptTrainer.before_epoch

    def before_epoch(self):
        if self.epoch + 1 == number:
            action()
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "before_epoch", before_epoch)
        yield


def stop(signum=signal.SIGTERM):
    """Stop the run as a signal would."""
    raise Interrupted(signum)


def wait_for(condition, process=None, seconds=240):
    """Wait until a condition holds and return what it gives; raises TimeoutError if it is late or the process ended."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline or (process is not None and process.poll() is not None and not condition()):
            said = process.communicate()[0] if process is not None and process.stdout else ""
            raise TimeoutError(f"it did not come to that: {(said or '')[-3000:]}")
        time.sleep(0.005)
    return value
