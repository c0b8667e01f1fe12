"""Runs within this process, or in a few processes that do many runs each: nothing is imported again for a run."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import torch

from dspt_atlas.environment import host_kind
from dspt_atlas.errors import is_failure, is_mistake, one_line, status_of
from dspt_atlas.launch import FutureLauncher
from dspt_atlas.launch.execute import drive
from dspt_atlas.launch.job import Job, Run
from dspt_atlas.run.train import run_arguments


class Here(FutureLauncher):
    """Does runs in this process, one after the other."""

    name, limit = "here", 1

    def __init__(self, verbose: bool):
        super().__init__()
        self.verbose = verbose

    def start(self, job: Job) -> Future:
        """Do one run; return a future that is done."""
        done = Future()
        done.set_result(run_job(job, self.verbose))
        return done


class Pool(FutureLauncher):
    """Does runs in `workers` processes of one thread each."""

    name = "pool"

    def __init__(self, workers: int, verbose: bool):
        super().__init__()
        self.limit, self.verbose, self._pool = workers, verbose, worker_pool(workers)

    def start(self, job: Job) -> Future:
        """Give one run to a process."""
        return self._pool.submit(run_job, job, self.verbose)

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=not self._jobs, cancel_futures=True)


def execute(
    jobs: list[Job],
    verbose: bool = False,
    workers: int = 0,
    stop_at: float = math.inf,
    on_done: Callable[[Path], None] = lambda folder: None,
    launcher: FutureLauncher | None = None,
) -> int:
    """Do the jobs; return 0, or the exit status of the first that failed (2: mistake, 1: failure).

    `workers`: processes at once, 0 for one per core, or one if there is a GPU. A test of a trained model waits for its
    training, and is left out if that failed. A failed job does not stop other jobs. Runs write to their log.txt; with
    `verbose` also to the console. After `stop_at` (as time.time() counts), no training starts, and its tests neither.
    `on_done` gets each finished run's folder. `launcher` does the runs in place of these processes.
    """
    runs, ended = [Run(job) for job in jobs], []

    def say(run):
        ended.append(run)
        detail = f"skipped, {run.detail}" if run.state == "skipped" else run.detail
        print(f"[{len(ended)}/{len(runs)}] {run.job.folder}: {detail or run.state}", flush=True)
        if run.state == "done":
            on_done(run.job.folder)

    if launcher is None:
        workers = min(workers or default_workers(), len({job.trained_in for job in jobs}))
        launcher = Here(verbose) if workers <= 1 else Pool(workers, verbose)
    with contextlib.closing(launcher):
        drive(runs, launcher, stop_at=stop_at, on_end=say)
    return next((run.status for run in ended if run.status), 0)


def default_workers() -> int:
    """Return how many runs to do at once: one per core that this process may use, or one if there is a GPU."""
    return 1 if torch.cuda.is_available() else host_kind()["cores"]


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Return new processes of one thread each; they start their own processes in the same way as this one."""
    context, usual = multiprocessing.get_context("spawn"), multiprocessing.get_start_method()
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker, initargs=(usual,))


def _prepare_worker(start_method):
    # Each run computes little at a time, so several runs with one thread each use the cores best.
    torch.set_num_threads(1)
    # A spawned process would spawn its loaders' workers too, and they would import torch again in every epoch.
    multiprocessing.set_start_method(start_method, force=True)


def run_job(job: Job, verbose: bool = False) -> tuple[int, str]:
    """Do one job in this process; return its exit status and a message about it."""
    start = time.perf_counter()
    hidden = contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
    try:
        with hidden:
            result = run_arguments(list(job.arguments))
    except Exception as error:  # noqa: BLE001 - a broken run must not stop the others
        if is_mistake(error) or is_failure(error):
            return status_of(error), one_line(error)
        traceback.print_exc()
        return 1, "failed"
    accuracy = (result or {}).get("accuracy", float("nan"))
    return 0, f"accuracy {accuracy:.1f}% ({time.perf_counter() - start:.0f} s)"
