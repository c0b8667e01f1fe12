"""GPU hours of the papers' tables, estimated: `python benchmarks/sweep_hours.py`. Nothing is run.

Before: floating-point operations of the naive way (every step encodes its images and all 77 tokens of every class,
every test batch of 100 encodes the classes anew), over an assumed rate. After: the training steps and tests divided by
the ratios of docs/evidence/performance.json, plus encoding each image once for each view.
"""

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

from dspt_atlas.config.reading import read_yaml
from dspt_atlas.launch.state import feature_key
from dspt_atlas.plan.planner import PLANS, read_plan
from dspt_atlas.trainers.registry import pair_of

TABLES = ("dspt_noisy", "coop_fewshot", "atlas_base2new", "atlas_crossdataset", "atlas_domain_generalisation")
# Classes and test images of the full data sets, as their papers say.
SIZES = {
    "imagenet": (1000, 50000), "caltech101": (100, 2465), "oxford_pets": (37, 3669), "stanford_cars": (196, 8041),
    "oxford_flowers": (102, 2463), "food101": (101, 30300), "fgvc_aircraft": (100, 3333), "sun397": (397, 19850),
    "dtd": (47, 1692), "eurosat": (10, 8100), "ucf101": (101, 3783), "imagenetv2": (1000, 10000),
    "imagenet_sketch": (1000, 50889), "imagenet_a": (200, 7500), "imagenet_r": (200, 30000),
}  # fmt: skip
TEXT = 77 * 2 * 37.8e6  # one class, forward: 77 tokens through 37.8 million weights of 12 layers of width 512
IMAGE = {"ViT-B/16": 35e9, "RN50": 12e9}  # one image, forward
MEASURED = Path(__file__).parents[1] / "docs" / "evidence" / "performance.json"  # by benchmarks/run.py
CASES = {"CoOp": "coop", "CoCoOp": "cocoop", "MaPLe": "maple-100"}  # at 100 classes


def operations(job):
    """Return a run's floating-point operations: training and tests the naive way, and encoding its images once."""
    config = read_yaml(job.option("--config-file"))
    pairs, learner = job.pairs, pair_of(job.option("--trainer")).learner
    classes, tests = SIZES[Path(job.option("--dataset-config-file")).stem]
    share = 1 if pairs.get("DATASET.SUBSAMPLE_CLASSES", "all") == "all" else 0.5
    classes, tests = classes * share, tests * share
    image = IMAGE[config["MODEL"]["BACKBONE"]["NAME"]]
    # A conditional context has other text for every image.
    testing = tests * image + TEXT * classes * (tests if learner == "CoCoOp" else tests / 100)
    if "--eval-only" in job.arguments or not pair_of(job.option("--trainer")).learns:
        return 0, testing, tests * image
    epochs, batch = config["OPTIM"]["MAX_EPOCH"], config["DATALOADER"]["TRAIN_X"]["BATCH_SIZE"]
    images = int(pairs["DATASET.NUM_SHOTS"]) * classes * epochs
    texts = images if learner == "CoCoOp" else images / batch
    # Backward through frozen weights costs as much as forward.
    training = 2 * TEXT * classes * texts + images * image * (2 if learner == "MaPLe" else 1)
    return training, testing, images * image + tests * image


def main():
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rate", type=float, default=20e12, help="operations per second of one GPU (default: %(default).0e)"
    )
    rate = parser.parse_args().rate
    ratios = {record["case"]: record["ratio"] for record in json.loads(MEASURED.read_text())["cases"]}
    rows, planned = [], set()
    for name in TABLES:
        before = after = 0.0
        runs, encoded = 0, set()
        for job in read_plan(PLANS / f"{name}.yaml").jobs(str(PLANS), Path("output")):
            if job.folder in planned:  # domain generalisation tests the models of cross-dataset
                continue
            planned.add(job.folder)
            runs += 1
            training, testing, encoding = operations(job)
            before += training + testing
            learner = pair_of(job.option("--trainer")).learner
            step = ratios[CASES[learner]] if learner in CASES else 1  # zero-shot CLIP takes no step
            after += training / step + testing / (step if learner == "MaPLe" else ratios["evaluation"])
            key = feature_key(job)
            if key is not None and key not in encoded:
                encoded.add(key)
                after += encoding
        rows.append([name, runs, before / rate / 3600, after / rate / 3600])
    rows.append(["together", *(sum(row[column] for row in rows) for column in (1, 2, 3))])
    print(tabulate(rows, ["sweep", "runs", "GPU hours before", "after"], tablefmt="github", floatfmt=".1f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
