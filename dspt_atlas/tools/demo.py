"""The main result on the embedded benchmark: right and half wrong labels, four methods, a table and a picture."""

from __future__ import annotations

import os
import time

from dspt_atlas.commands import Parser
from dspt_atlas.launch.pool import execute
from dspt_atlas.paths import expand_home
from dspt_atlas.plan.jobs import Planner, Settings
from dspt_atlas.plan.protocols import print_report
from dspt_atlas.report.figures import plot_curves, read_curves
from dspt_atlas.run.records import RESULT_FILE

TRAINERS = ("ZeroshotCLIP", "CoOp", "CoOpGCE", "CoOpDSPT")
NOISE = (("none", 0.0), ("sym", 0.5))
DATASET, SHOTS = "emoji", 16


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas demo`."""
    parser = Parser(
        "demo",
        example="--seeds 1 --output output/demo",
        advice="the same command goes on where it stopped.",
        pairs=True,
    )
    parser.add_seeds((1, 2, 3), "default: 1 2 3")
    parser.add_argument(
        "--output", default=os.environ.get("OUTPUT", "output/demo"), help="default: $OUTPUT, else output/demo"
    )
    return parser


def demonstrate(options) -> int:
    """Do the runs, print the table, draw the picture; return the exit status."""
    start = time.perf_counter()
    pairs = ("TEST.PERIOD", "1", *options.pairs)
    settings = Settings(root="", output=expand_home(options.output), seeds=options.seeds, pairs=pairs)
    jobs = [
        job
        for noise_type, rate in NOISE
        for trainer in TRAINERS
        for job in Planner(settings, "noisy", trainer).noisy(DATASET, SHOTS, noise_type, rate)
    ]
    status = execute(jobs)
    print_report([settings.output], settings.seeds)
    done = [job.folder for job in jobs if (job.folder / RESULT_FILE).is_file()]
    paths = plot_curves(read_curves(done), f"{DATASET}, {SHOTS} shots", settings.output / "accuracy_by_epoch")
    print(f"\nPicture: {paths[0].resolve()} (also .svg, and the numbers as .csv)")
    print(f"{time.perf_counter() - start:.0f} s")
    return status


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    return build_parser().call(demonstrate, argv)
