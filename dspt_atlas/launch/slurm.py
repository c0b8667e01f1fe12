"""Runs on Slurm by submitit: job arrays with a time limit; preempted or timed-out jobs are queued again and resume."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.launch import Options, _outcome, process
from dspt_atlas.launch.job import Job
from dspt_atlas.paths import write_atomically

ARRAY = 1000  # Slurm's default MaxArraySize is 1001
POLL_SECONDS = 5
PATIENCE_SECONDS = 180  # longer than Slurm's KillWait, 30 s by default
OWN_PARAMETERS = {"additional_parameters": {"requeue": True}, "stderr_to_stdout": True}
IGNORING_USR2 = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh")


class Restartable:
    """A run for submitit, which calls `checkpoint` before the job is preempted or runs out of time.

    Slurm sends its signals to all processes of a job. train.py ignores the warning, SIGUSR2; checkpoint ends it.
    """

    def __init__(self, command, folder):
        self.command, self.folder, self._process = command, folder, None

    def __call__(self):
        """Do the run; return its exit status and the last line of its standard error."""
        status, line = process.run_process([*IGNORING_USR2, *self.command], self.folder, on_start=self._remember)
        if status in (143, -15, -9):
            # The job is being ended, and perhaps queued again; a result now would look like a normal end.
            time.sleep(PATIENCE_SECONDS)
        return status, line

    def _remember(self, started):
        self._process = started

    def checkpoint(self):
        """End the process, which will resume after its last finished epoch, and return the job to queue again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            # Popen.wait() would wait for itself: this is a signal handler that interrupted it.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Restartable(self.command, self.folder))


class Slurm:
    """Every run is an element of a job array. A sweep that ends early leaves jobs queued; the next one finds them."""

    name = "slurm"
    limit = 0

    def __init__(self, options: Options):
        import cloudpickle
        import submitit

        for module in (process, sys.modules[__name__]):
            cloudpickle.register_pickle_by_value(module)
        self._submitit, self._program, self._folder = submitit, options.program, options.folder / "slurm"
        self._numbers = options.folder / "slurm.json"
        self._jobs: dict[str, tuple[Job, object]] = {}
        self._own: set[str] = set()  # the folders of this sweep's runs
        for name in OWN_PARAMETERS.keys() & options.slurm:
            raise UserError(f"Expected --slurm without {name}, because a sweep sets it itself: leave it out.")
        try:
            self._executor = submitit.SlurmExecutor(self._folder, max_num_timeout=1000)
            parameters = {
                "job_name": "dspt-atlas",
                "time": options.minutes,
                "array_parallelism": options.workers or 256,
            }
            self._executor.update_parameters(**{**parameters, **options.slurm, **OWN_PARAMETERS})
        except (RuntimeError, ValueError) as error:
            raise UserError(f"Slurm cannot be used: {' '.join(str(error).split())}") from error

    def submit(self, jobs: list[Job]) -> None:
        """Queue runs as arrays; raises UserError if Slurm does not take one."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        for start in range(0, len(jobs), ARRAY):
            part = jobs[start : start + ARRAY]
            try:
                # submitit repeats sbatch's message there, line by line.
                with contextlib.redirect_stderr(io.StringIO()), self._executor.batch():
                    handles = [
                        self._executor.submit(Restartable([*self._program, *job.arguments], str(job.folder)))
                        for job in part
                    ]
            except (FailedJobError, FailedSubmissionError) as error:
                raise UserError(
                    f"Slurm does not take {len(part)} of the runs ({' '.join(str(error).split())}): change --slurm or "
                    "--time, or wait, and start the same sweep again."
                ) from error
            self._jobs |= {handle.job_id: (job, handle) for handle, job in zip(handles, part, strict=True)}
            self._note()

    def _note(self):
        """Write the numbers of the queued jobs to a file, for a later start of the sweep.

        Numbers of another sweep with the same name stay.
        """
        own = {str(job.folder): number for number, (job, _) in self._jobs.items()}
        self._own |= own.keys()
        others = {folder: number for folder, number in self._noted().items() if folder not in self._own}
        write_atomically(self._numbers, json.dumps({**others, **own}))

    def _noted(self):
        try:
            return dict(json.loads(self._numbers.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def attach(self, jobs: list[Job]) -> list[Job]:
        """Return the runs that an earlier sweep left in the queue; from now on, this sweep waits for them."""
        numbers = self._noted()
        if not numbers:
            return []
        queued = _queued()
        found = [(job, numbers[str(job.folder)]) for job in jobs if numbers.get(str(job.folder)) in queued]
        self._jobs |= {number: (job, self._submitit.SlurmJob(self._folder, number)) for job, number in found}
        self._own |= {str(job.folder) for job in jobs}
        return [job for job, _ in found]

    def wait(self, timeout: float | None = None) -> list[tuple[Job, int, str]]:
        """Wait for runs to end; return (run, exit status, last line) for all that ended."""
        deadline = time.monotonic() + (timeout or float("inf"))
        while True:
            queued = _queued()
            ended = [number for number in self._jobs if number not in queued]
            if ended or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        outcomes = [self._ended(*self._jobs.pop(number)) for number in ended]
        if ended:
            self._note()
        return outcomes

    def _ended(self, job, handle) -> tuple[Job, int, str]:
        paths = handle.paths
        if not paths.result_pickle.exists():  # ended by Slurm: cancelled, or out of memory
            line = _last_line(paths.stdout)
            return job, 1, f"Slurm's job {handle.job_id} ended without a result{': ' if line else ''}{line}"
        status, line = _outcome(handle)
        if status == 0:
            for path in (paths.result_pickle, paths.submitted_pickle, paths.stdout):
                path.unlink(missing_ok=True)
        return job, status, line

    def close(self) -> None:
        """Print what continues without this sweep."""
        if self._jobs:
            print(f"{len(self._jobs)} runs stay in Slurm's queue; start the same sweep again to wait for them.")


def _last_line(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return process.last_line(file)
    except OSError:
        return ""


def _queued() -> set[str]:
    """Return the numbers of the jobs that are queued or running; raises UserError if Slurm does not answer."""
    command = [
        "squeue",
        "--me",
        "--noheader",
        "--array",
        "--format=%i",
        "--states=PD,R,CF,CG,RQ,RH,RF,RS,S,SI,SO,ST,SE",
    ]
    for pause in (1, 5, 30, 60, 120, 0):
        try:
            return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split())
        except (OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(getattr(error, "stderr", "") or error).split())
            time.sleep(pause)
    raise UserError(f"Slurm does not answer ({reason}): start the same sweep again when it does.")
