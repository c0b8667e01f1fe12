"""About how long runs take: as long as finished ones like them, else as the embedded benchmark was measured."""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from pathlib import Path

from dspt_atlas.config.build import read_yaml
from dspt_atlas.datasets.embedded import BACKBONES
from dspt_atlas.launch.job import Job, Run
from dspt_atlas.trainers.registry import pair_of

# Seconds on one core of an AMD EPYC (docs/evidence.md): by prompt learner a training image and epoch, and a test image;
# a start; encoding a view of an image.
COSTS = {"CoOp": (0.00058, 0.0002), "CoCoOp": (0.0085, 0.0050), "MaPLe": (0.0070, 0.0022), "ZeroshotCLIP": (0, 0.0002)}
START, ENCODING, VIEWS = 0.7, 0.0021, 10
SLOWER = {"CoOpNLPrompt": 1.4}
IMAGES = {  # classes, and test images per class
    "emoji": (60, 20), "emoji_objects": (44, 16), "emoji_v2": (60, 10), "emoji_flat": (60, 10), "emoji_ink": (60, 10),
}  # fmt: skip


def estimate(runs: list[Run]) -> None:
    """Give each run that is not done the seconds that it should take, None where nothing tells.

    That is the median of finished runs of the same method, data set, configuration and shots; else of the same without
    the method; else, on the embedded benchmark, a sum of measured costs, with the cache empty for the first of a
    training set.
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
    alike = config, dataset, job.pairs["DATASET.NUM_SHOTS"], "--eval-only" in job.arguments
    return (*alike, trainer), alike


def _embedded_seconds(job: Job, encoded: set) -> float | None:
    trainer, config = job.option("--trainer"), _config(job.option("--config-file"))
    learner = pair_of(trainer).learner
    dataset = Path(job.option("--dataset-config-file")).stem
    backbone = job.pairs.get("MODEL.BACKBONE.NAME", config.get("MODEL", {}).get("BACKBONE", {}).get("NAME"))
    if learner not in COSTS or dataset not in IMAGES or backbone not in BACKBONES:
        return None
    classes, tests = IMAGES[dataset]
    classes //= 1 if job.pairs.get("DATASET.SUBSAMPLE_CLASSES", "all") == "all" else 2
    by_training, by_test = COSTS[learner]
    if learner == "CoCoOp":  # every image has prompts of its own for every class
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


@functools.lru_cache
def _config(path):
    return read_yaml(path)
