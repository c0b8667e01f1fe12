"""The main result on the embedded benchmark: right and half wrong labels, four methods, a table and a picture."""

import os
import sys
import time

from dspt_atlas.cli import Parser, guarded
from dspt_atlas.launch.pool import execute
from dspt_atlas.paths import expand_home
from dspt_atlas.plan.jobs import Planner, Settings
from dspt_atlas.plan.protocols import print_report
from dspt_atlas.report.figures import plot_curves, read_curves
from dspt_atlas.run.records import RESULT_FILE

TRAINERS = ("ZeroshotCLIP", "CoOp", "CoOpGCE", "CoOpDSPT")
NOISE = (("none", 0.0), ("sym", 0.5))
DATASET, SHOTS = "emoji", 16


def main():
    """Run the demo; return the exit status."""
    parser = Parser(
        prog="demo.sh", description=__doc__, epilog="KEY VALUE pairs of the configuration go last, after --."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--output", default=os.environ.get("OUTPUT", "output/demo"), help="default: $OUTPUT, else output/demo"
    )
    argv = sys.argv[1:]
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    pairs = ("TEST.PERIOD", "1", *argv[split + 1 :])

    def command():
        output = expand_home(options.output)
        return demonstrate(Settings(root="", output=output, seeds=tuple(options.seeds), pairs=pairs))

    return guarded(command, "demo.sh", "the same command goes on where it stopped.")


def demonstrate(settings):
    """Do the runs, print the table, draw the picture; return the exit status."""
    start = time.perf_counter()
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


if __name__ == "__main__":
    sys.exit(main())
