"""Where runs are started: this machine, a Ray cluster, Slurm. Thin adapters; each run is one train.py process."""

from __future__ import annotations

import importlib
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.launch.process import TRAIN

LAUNCHERS = {"local": "Local", "ray": "Ray", "slurm": "Slurm"}


@dataclass
class Options:
    """What launchers need: `workers` runs at once (0: as many as fit), Ray's address, Slurm's minutes and parameters.

    `folder` is where Slurm's files go; `program` is the command that a run's arguments are added to.
    """

    workers: int = 0
    address: str = ""
    minutes: int = 240
    slurm: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()
    program: tuple[str, ...] = TRAIN


def make_launcher(name: str, options: Options):
    """Return a launcher by its name; raises UserError where the package that it needs is not installed."""
    module = importlib.import_module(f".{name}", __name__)
    try:
        return getattr(module, LAUNCHERS[name])(options)
    except ImportError as error:
        raise UserError(
            f"--launcher {name} needs the package {error.name}: pip install dspt-atlas[{name}], or, in a checkout, "
            f'pip install -e ".[{name}]".'
        ) from error


class FutureLauncher:
    """What launchers share whose `start(job)` returns a future of the exit status and the last line of standard error.

    `limit`: runs to hand over at once, 0 for all that are ready.
    """

    limit = 0
    name = ""

    def __init__(self):
        self._jobs: dict[Future, Job] = {}

    def start(self, job: Job) -> Future:
        """Start one run."""
        raise NotImplementedError

    def submit(self, jobs: list[Job]) -> None:
        """Start runs."""
        self._jobs.update((self.start(job), job) for job in jobs)

    def wait(self, timeout: float | None = None) -> list[tuple[Job, int, str]]:
        """Wait for a run to end; return (run, exit status, last line of standard error) of all that did."""
        done, _ = wait(self._jobs, timeout, FIRST_COMPLETED)
        return [(self._jobs.pop(future), *_outcome(future)) for future in done]

    def attach(self, jobs: list[Job]) -> list[Job]:
        """Return those of the runs that an earlier sweep left running here, which from now on are waited for."""
        return []

    def close(self) -> None:
        """Stop what is running."""


def _outcome(future: Future) -> tuple[int, str]:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - whatever the cluster's library raises, the other runs are still wanted
        lines = [line for line in str(error).splitlines() if line.strip()]
        return 1, f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
