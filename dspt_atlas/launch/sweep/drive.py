"""Doing a sweep's runs: what is ready goes to the launcher, failures are tried again, the end is summed up."""

from __future__ import annotations

import shlex
from collections import Counter, deque
from graphlib import TopologicalSorter

from tabulate import tabulate
from tqdm import tqdm

from dspt_atlas.launch.sweep.state import Journal, Run
from dspt_atlas.run.records import RESULT_FILE


def drive(runs: list[Run], launcher, journal: Journal, retries: int) -> None:
    """Do the runs that are not done; afterwards each one's state is done, failed or skipped."""
    left = {run.job.folder: run for run in runs if run.state != "done"}
    sorter = TopologicalSorter({folder: [one for one in run.after if one in left] for folder, run in left.items()})
    sorter.prepare()
    ready, started = deque(), set()
    started.update(job.folder for job in launcher.attach([run.job for run in left.values()]))
    in_flight = len(started)
    with tqdm(total=len(left), unit="run", disable=None) as bar:
        while sorter.is_active():
            ready.extend(folder for folder in sorter.get_ready() if folder not in started)
            room = launcher.limit - in_flight if launcher.limit else len(ready)
            batch = []
            while ready and len(batch) < room:
                run = left[ready.popleft()]
                if _skip(run, left):
                    sorter.done(run.job.folder)
                    bar.update()
                else:
                    run.attempts += 1
                    batch.append(run.job)
            if batch:
                launcher.submit(batch)
                in_flight += len(batch)
            for job, status, line in launcher.wait() if in_flight else ():
                in_flight -= 1
                run = left[job.folder]
                if _is_over(run, status, line, journal, retries):
                    sorter.done(job.folder)
                    bar.update()
                else:
                    ready.append(job.folder)


def _skip(run, left):
    """Skip a test whose training is not there; return whether it is skipped."""
    training = left.get(run.job.trained_in)
    if training is None or training is run or training.state == "done":
        return False
    run.state, run.detail = "skipped", f"because its training failed: {training.job.folder}"
    return True


def _is_over(run, status, line, journal, retries):
    """Note how an attempt ended; return whether it was the last."""
    if status == 0 and (run.job.folder / RESULT_FILE).is_file():
        run.state, run.detail = "done", ""
        return True
    run.state = "failed"
    run.detail = line or f"exit status {status}, without {RESULT_FILE}"
    journal.add(run.job.folder, run.detail)
    return run.attempts > retries


def listing(runs: list[Run], root) -> str:
    """Return the table of a dry run: each run with its state and time, and the sums."""
    rows = [[_below(run.job.folder, root), run.state, _time(run.seconds), run.detail] for run in runs]
    left = [run for run in runs if run.state != "done"]
    known = [run.seconds for run in left if run.seconds is not None]
    total = f"{_time(sum(known)) if known else 'unknown'} one after the other"
    if known and len(known) < len(left):
        total += f", without {len(left) - len(known)} runs of unknown time"
    table = tabulate(rows, ["run", "state", "time", ""], tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{_counts(runs)}; time left: {total if left else 'none'}"


def summary(runs: list[Run], root, command: list[str]) -> str:
    """Return the table at the end: what is done by data set and trainer, what failed and why, how to go on."""
    states = ("done", "failed", "skipped")
    groups: dict[tuple, Counter] = {}
    for run in runs:
        path = _below(run.job.folder, root).split("/")[0]
        dataset = (run.job.option("--dataset-config-file") or "").rsplit("/", 1)[-1].removesuffix(".yaml")
        groups.setdefault((path, dataset, run.job.option("--trainer")), Counter())[run.state] += 1
    rows = [[*key, *(count[state] for state in states)] for key, count in groups.items()]
    texts = [tabulate(rows, ["folder", "data set", "trainer", *states], tablefmt="github"), _counts(runs)]
    problems = [[_below(run.job.folder, root), run.state, run.detail] for run in runs if run.state in states[1:]]
    if problems:
        texts.append(tabulate(problems, ["run", "state", "why"], tablefmt="github"))
        texts.append(f"What is done stays done; this goes on with the rest:\n{shlex.join(command)}")
    return "\n\n".join(texts)


def _counts(runs):
    return f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in Counter(run.state for run in runs).items())


def _below(folder, root):
    return str(folder.relative_to(root)) if folder.is_relative_to(root) else str(folder)


def _time(seconds):
    if seconds is None:
        return "unknown"
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
