"""About how long runs take: from finished runs like them, or from measured costs of the embedded benchmark."""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from pathlib import Path

from dspt_atlas.config.reading import read_yaml
from dspt_atlas.datasets.embedded import BACKBONES
from dspt_atlas.launch.job import Job, Run
from dspt_atlas.trainers.declare import LEARNERS
from dspt_atlas.trainers.registry import pair_of

# Seconds on one core of an AMD EPYC (docs/evidence.md): by prompt learner, per training image and epoch and per test
# image; per start; per encoded view of an image. The cost of any other learner is that of the one of its kind here.
COSTS = {"CoOp": (0.00058, 0.0002), "CoCoOp": (0.0085, 0.0050), "MaPLe": (0.0070, 0.0022), "ZeroshotCLIP": (0, 0.0002)}
START, ENCODING, VIEWS = 0.7, 0.0021, 10
SLOWER = {"CoOpNLPrompt": 1.4}
IMAGES = {  # classes, and test images per class
    "emoji": (60, 20), "emoji_objects": (44, 16), "emoji_v2": (60, 10), "emoji_flat": (60, 10), "emoji_ink": (60, 10),
}  # fmt: skip


def estimate(runs: list[Run]) -> None:
    """Give each run that is not done its estimated seconds, or None if they are not known.

    The estimate is the median of finished runs with the same keys (of other seeds), or else of the same method, data
    set, configuration file and shots, or of those of any method. Without such runs, on the embedded benchmark, it is a
    sum of measured costs; the first run of a training set starts with an empty cache.
    """
    known, encoded = defaultdict(list), set()
    for run in runs:
        if run.state == "done":
            for key in _likenesses(run.job):
                known[key].append(run.seconds)
    for run in runs:
        if run.state != "done":
            likeness = next((key for key in _likenesses(run.job) if key in known), None)
            run.seconds = statistics.median(known[likeness]) if likeness else _embedded_seconds(run.job, encoded)


def _likenesses(job):
    config, dataset, trainer = (job.option(name) for name in ("--config-file", "--dataset-config-file", "--trainer"))
    pairs = job.pairs
    alike = config, dataset, pairs["DATASET.NUM_SHOTS"], "--eval-only" in job.arguments
    return (*alike, trainer, tuple(pairs.items())), (*alike, trainer), alike


def _embedded_seconds(job: Job, encoded: set) -> float | None:
    trainer, config = job.option("--trainer"), _config(job.option("--config-file"))
    learner = _of_its_kind(pair_of(trainer).learner)
    dataset = Path(job.option("--dataset-config-file")).stem
    backbone = job.pairs.get("MODEL.BACKBONE.NAME", config.get("MODEL", {}).get("BACKBONE", {}).get("NAME"))
    if learner not in COSTS or dataset not in IMAGES or backbone not in BACKBONES:
        return None
    classes, tests = IMAGES[dataset]
    classes //= 1 if job.pairs.get("DATASET.SUBSAMPLE_CLASSES", "all") == "all" else 2
    by_training, by_test = COSTS[learner]
    if learner == "CoCoOp":  # every image has its own prompts for every class
        by_training, by_test = by_training * classes / 60, by_test * classes / 60
    seconds = START + by_test * classes * tests
    if by_training and "--eval-only" not in job.arguments:
        images = classes * int(job.pairs["DATASET.NUM_SHOTS"])
        epochs = int(job.pairs.get("OPTIM.MAX_EPOCH") or config["OPTIM"]["MAX_EPOCH"])
        seconds += SLOWER.get(trainer, 1.0) * epochs * by_training * images
        cached = learner != "MaPLe" and (dataset, job.option("--seed"), images)
        if cached and cached not in encoded:
            encoded.add(cached)
            seconds += ENCODING * VIEWS * images
    return seconds


def _of_its_kind(learner: str) -> str:
    """Return the learner in COSTS of the same kind: it prompts images, or has a prompt per image, or neither."""
    declared = LEARNERS.get(learner)
    if learner in COSTS or declared is None:
        return learner
    return "MaPLe" if declared.prompts_images else "CoCoOp" if declared.conditional else "CoOp"


@functools.lru_cache
def _config(path):
    return read_yaml(path)
