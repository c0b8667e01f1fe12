"""Doing runs: ready runs go to the launcher, failed runs are tried again, tests wait for their trainings."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from graphlib import TopologicalSorter
from os.path import abspath

from dspt_atlas.launch.job import Run
from dspt_atlas.run.records import RESULT_FILE


def drive(
    runs: list[Run],
    launcher,
    journal=None,
    retries: int = 0,
    stop_at: float = math.inf,
    on_end: Callable[[Run], object] = lambda run: None,
) -> None:
    """Do the runs that are not done; afterwards each run's state is done, failed, skipped or left.

    Ready runs start in the order of the plan; runs that failed before come last. `journal` records each failure. After
    `stop_at` (as time.time() counts) no training starts; it and its tests are left. `on_end` gets each run that is
    done, failed in its last attempt, or skipped.
    """
    left = {abspath(run.job.folder): run for run in runs if run.state != "done"}
    order = {folder: place for place, folder in enumerate(left)}
    waits = {folder: {*map(abspath, (*run.after, run.job.trained_in))} & left.keys() for folder, run in left.items()}
    sorter = TopologicalSorter({folder: others - {folder} for folder, others in waits.items()})
    sorter.prepare()
    ready, started = [], {abspath(job.folder) for job in launcher.attach([run.job for run in left.values()])}
    in_flight = len(started)
    while sorter.is_active():
        for folder in sorter.get_ready():
            if folder not in started:
                heapq.heappush(ready, (0, order[folder], folder))
        room = launcher.limit - in_flight if launcher.limit else len(ready)
        batch = []
        while ready and len(batch) < room:
            run = left[heapq.heappop(ready)[-1]]
            if _is_passed_over(run, left, stop_at):
                sorter.done(abspath(run.job.folder))
                if run.state == "skipped":
                    on_end(run)
            else:
                run.attempts += 1
                batch.append(run.job)
        if batch:
            launcher.submit(batch)
            in_flight += len(batch)
        for job, status, line in launcher.wait() if in_flight else ():
            in_flight -= 1
            run = left[abspath(job.folder)]
            if _is_over(run, status, line, journal, retries):
                sorter.done(abspath(job.folder))
                on_end(run)
            else:
                heapq.heappush(ready, (run.attempts, order[abspath(job.folder)], abspath(job.folder)))


def _is_passed_over(run, left, stop_at):
    """Skip a test without its training, and leave a training for which it is too late; return whether it was so."""
    training = left.get(abspath(run.job.trained_in), run)
    if training.state in ("failed", "skipped") and training is not run:
        run.state, run.detail = "skipped", f"because its training failed: {training.job.folder}"
    elif training.state == "left" or (time.time() >= stop_at and (training is run or training.state != "done")):
        run.state = "left"
    else:
        return False
    return True


def _is_over(run, status, line, journal, retries):
    """Record how an attempt ended; return whether it was the last."""
    run.status, run.detail = status, line
    if status == 0 and (run.job.folder / RESULT_FILE).is_file():
        run.state = "done"
        return True
    run.state, run.status = "failed", status or 1
    run.detail = line or f"exit status {status}, without {RESULT_FILE}"
    if journal is not None:
        journal.add(run.job.folder, run.detail)
    return run.attempts > retries
