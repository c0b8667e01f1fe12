"""Starting runs on this machine, on a Ray cluster or on Slurm. Thin adapters; each run is one train.py process."""

from __future__ import annotations

import importlib
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from dspt_atlas.commands import Parser
from dspt_atlas.errors import UserError
from dspt_atlas.keys.ranges import whole_number
from dspt_atlas.launch.job import Job
from dspt_atlas.launch.process import TRAIN

LAUNCHERS = {"local": "Local", "ray": "Ray", "slurm": "Slurm"}


@dataclass
class Options:
    """Settings of launchers: `workers` runs at once (0: as many as fit), Ray's address, Slurm's minutes and parameters.

    `folder` gets Slurm's files; `program` is the command before a run's arguments.
    """

    workers: int = 0
    address: str = ""
    minutes: int = 240
    slurm: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()
    program: tuple[str, ...] = TRAIN

    @classmethod
    def of(cls, options, folder: Path) -> Options:
        """Return the settings of a command line with `add_launcher_options`; raises UserError."""
        for name, least in (("workers", 0), ("time", 1)):
            if getattr(options, name) < least:
                raise UserError(f"Expected --{name} to be at least {least}, got {getattr(options, name)}.")
        parameters = {}
        for text in options.slurm:
            key, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"Expected --slurm KEY=VALUE, such as --slurm partition=gpu, got {text}.")
            number = whole_number(value)
            parameters[key] = value if number is None else number
        return cls(options.workers, options.address, options.time, parameters, folder)


def add_launcher_options(parser: Parser, default: str, text: str = "default: %(default)s") -> None:
    """Add the options that choose and set up a launcher."""
    parser.add_argument("--launcher", choices=list(LAUNCHERS), default=default or None, help=text)
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="runs at once (default: one per GPU, or one per core; on a cluster its own limit)",
    )
    parser.add_argument("--address", default="", help="ray: address of a running cluster (default: a new one)")
    parser.add_argument(
        "--time", type=int, default=240, metavar="MINUTES", help="slurm: limit of a run (default: %(default)s)"
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="slurm: submitit's parameters, such as partition=gpu",
    )


def make_launcher(name: str, options: Options):
    """Return a launcher by its name; raises UserError if the package that it needs is not installed."""
    module = importlib.import_module(f".{name}", __name__)
    try:
        return getattr(module, LAUNCHERS[name])(options)
    except ImportError as error:
        raise UserError(
            f"--launcher {name} needs the package {error.name}: pip install dspt-atlas[{name}], or, in a checkout, "
            f'pip install -e ".[{name}]".'
        ) from error


class FutureLauncher:
    """Base of launchers whose `start(job)` returns a future of the exit status and the last line of standard error.

    `limit`: number of runs to start at once, 0 for all that are ready.
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
        """Wait for a run to end; return (run, exit status, last line of standard error) for all that ended."""
        done, _ = wait(self._jobs, timeout, FIRST_COMPLETED)
        return [(self._jobs.pop(future), *_outcome(future)) for future in done]

    def attach(self, jobs: list[Job]) -> list[Job]:
        """Return the runs that an earlier sweep left running here; from now on, this sweep waits for them."""
        return []

    def close(self) -> None:
        """Stop the runs."""


def _outcome(future: Future) -> tuple[int, str]:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - an error of the cluster's library must not stop the other runs
        lines = [line for line in str(error).splitlines() if line.strip()]
        return 1, f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
