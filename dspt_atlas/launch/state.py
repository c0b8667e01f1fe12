"""The state of a plan's runs before they start: done, resumable, failed or new; and which runs share features."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from dspt_atlas.config.build import plain
from dspt_atlas.config.differences import differences
from dspt_atlas.config.reading import read_yaml
from dspt_atlas.errors import UserError
from dspt_atlas.launch.estimate import estimate
from dspt_atlas.launch.job import Job, Run
from dspt_atlas.run.identity import described_run
from dspt_atlas.run.records import RESULT_FILE
from dspt_atlas.run.state import read_state
from dspt_atlas.run.tested import retrained, tested_model
from dspt_atlas.run.train import read_arguments
from dspt_atlas.trainers.registry import pair_of

# Config keys that the cached image features do not depend on.
FREE_KEYS = ("TRAINER.", "DATASET.NOISE.", "OPTIM.", "TEST.", "TRAIN.", "DATALOADER.", "MODEL.CLASS_CHUNK")


class Journal:
    """The failures of a sweep's runs, one JSON object per line; a run's last line counts."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, str]:
        """Return the last failure of each run's folder; unfinished lines of a killed sweep are skipped."""
        failures = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        for line in lines:
            try:
                entry = json.loads(line)
                failures[entry["folder"]] = entry["error"]
            except (ValueError, KeyError, TypeError):
                continue
        return failures

    def add(self, folder: Path, error: str) -> None:
        """Append a failure."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"folder": str(folder), "error": error}) + "\n")


def scan(jobs: list[Job], journal: Journal, before: Sequence[Run] = ()) -> list[Run]:
    """Return the runs with their states, estimated seconds, and the runs that each waits for.

    before: of an earlier scan; what was done then is not read again.
    """
    failures, known = journal.read(), {run.job: run for run in before if run.state == "done"}
    runs = [known.get(job) or _state(job, failures.get(str(job.folder))) for job in jobs]
    undone = {run.job.folder for run in runs if run.state != "done"}
    for run in runs:
        if run.state == "done" and run.job.trained_in != run.job.folder and run.job.trained_in in undone:
            run.state, run.detail = "new", "its training has to be done first"
    estimate(runs)
    _order(runs)
    return runs


def _state(job, failure):
    state = read_state(job.folder)
    if state.name == "done":
        return _done(job, state.result)
    if state.name == "unreadable":
        return Run(job, "failed", state.problem)
    process = state.process
    running, log = f"running ({process})" if process else "", state.log
    if failed := state.failure if state.name == "failed" else failure:
        return Run(job, "failed", "; ".join(filter(None, (running, failed, "" if log in failed else f"log: {log}"))))
    if state.name == "new":
        return Run(job)
    return Run(job, "resumable", "; ".join(filter(None, (running, f"{state.epochs} epochs done", log))))


def _done(job, result):
    now = described(job)
    if changes := differences(result, now):
        return Run(job, "failed", f"the folder holds another run's result: this run has {', '.join(changes)}")
    if _is_outdated(job, result, now):
        return Run(job, "new", "its training was done again after it")
    seconds = result.get("seconds")
    if seconds is None:  # a test of a trained model: from the start of the last attempt to its result
        times = [
            (job.folder / name).stat().st_mtime for name in ("config.yaml", RESULT_FILE) if (job.folder / name).exists()
        ]
        seconds = max(times) - min(times)
    accuracy = result.get("accuracy")
    return Run(job, "done", "" if accuracy is None else f"accuracy {accuracy:.1f}%", seconds)


def described(job: Job) -> dict:
    """Return `config` and `identity` of a run; without the identity if its data or weights are not here."""
    cfg, _ = read_arguments(list(job.arguments))
    try:
        return described_run(cfg, fresh=False)
    except UserError:
        return {"config": plain(cfg)}


def _is_outdated(job, result, now):
    """Return whether a test tested another checkpoint than its training has now."""
    evaluated = result.get("evaluated")
    if "--eval-only" not in job.arguments or not isinstance(evaluated, dict) or "identity" not in now:
        return False
    try:
        tested = tested_model(str(job.trained_in), evaluated.get("epoch"), now)
    except UserError:  # the training does not exist (any more): if it will be done, `scan` puts this run after it
        return False
    return retrained(evaluated, tested, now["config"]) is not None


def _order(runs):
    """Let runs that share image features wait for the first of them.

    So one run encodes the images while others do something else. If one is already done, the features exist.
    """
    leaders: dict[tuple, Run] = {}
    for run in sorted(runs, key=lambda run: run.state != "done"):
        if key := feature_key(run.job):
            leaders.setdefault(key, run)
    for run in runs:
        leader = leaders.get(feature_key(run.job) or ())
        if leader is not None and leader is not run and leader.state != "done":
            run.after.append(leader.job.folder)


_CACHING: dict[str, bool] = {}


def feature_key(job: Job) -> tuple | None:
    """Return the arguments that a run's cached image features depend on, or None if it does not cache features."""
    config = job.option("--config-file")
    if config not in _CACHING:
        _CACHING[config] = read_yaml(config).get("INPUT", {}).get("CACHE") == "features"
    pairs = job.pairs
    if pairs.get("INPUT.CACHE", "features" if _CACHING[config] else "none") != "features":
        return None
    is_test = "--eval-only" in job.arguments or not pair_of(job.option("--trainer")).learns
    own = tuple(item for item in sorted(pairs.items()) if not item[0].startswith(FREE_KEYS))
    if is_test:  # test images are the same for all seeds and numbers of shots
        own = tuple(item for item in own if item[0] != "DATASET.NUM_SHOTS")
    seed = None if is_test else job.option("--seed")
    epochs = None if is_test else pairs.get("OPTIM.MAX_EPOCH")  # as many views as epochs, unless INPUT.VIEWS is set
    return job.option("--dataset-config-file"), os.path.basename(config), own, seed, epochs, is_test
