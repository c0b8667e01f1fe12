"""Lists of a plan's runs for people: before, with state and time; at the end, with failures and their reasons."""

from __future__ import annotations

from collections import Counter

from tabulate import tabulate

from dspt_atlas.launch.job import Run


def listing(runs: list[Run], root) -> str:
    """Return the table of a dry run: each run with its state and time, and sums."""
    rows = [[_below(run.job.folder, root), run.state, _time(run.seconds), run.detail] for run in runs]
    table = tabulate(rows, ["run", "state", "time", ""], tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{_counts(runs)}; {time_left(runs)}"


def time_left(runs: list[Run]) -> str:
    """Return what the estimates of the runs that are not done say together."""
    left = [run for run in runs if run.state != "done"]
    known = [run.seconds for run in left if run.seconds is not None]
    total = f"{_time(sum(known)) if known else 'unknown'} one after the other"
    if known and len(known) < len(left):
        total += f", without {len(left) - len(known)} runs of unknown time"
    return f"time left: {total if left else 'none'}"


def summary(runs: list[Run], root, command: str) -> str:
    """Return the table at the end: finished runs by data set and trainer, failures and their reasons, how to go on."""
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
        texts.append(f"Finished runs stay; this command does the other runs:\n{command}")
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
