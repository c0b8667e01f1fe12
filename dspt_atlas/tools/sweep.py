"""The command `dspt-atlas sweep`."""

from __future__ import annotations

import contextlib
import os

from filelock import FileLock, Timeout
from tqdm import tqdm

from dspt_atlas.commands import Parser, command_line, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.launch import Options, add_launcher_options, make_launcher
from dspt_atlas.launch.execute import drive
from dspt_atlas.launch.listing import listing, summary
from dspt_atlas.paths import expand_home
from dspt_atlas.plan.planner import read_plan


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas sweep`."""
    parser = Parser(
        "sweep",
        example="embedded_noisy --dry-run",
        more="Finished runs are not done again; interrupted runs resume.",
        advice="the same command continues where it stopped.",
        pairs=True,
    )
    parser.add_argument("sweep", metavar="SWEEP", help="a plan: yaml file, or a name in configs/plans")
    parser.add_argument("--dry-run", action="store_true", help="list the runs with state and time, and stop")
    add_launcher_options(parser, "local")
    parser.add_argument(
        "--retries", type=int, default=1, help="further attempts at a failed run (default: %(default)s)"
    )
    parser.add_argument(
        "--root", default="", help="folder of the data sets (default: DATASET.ROOT of a yaml, or $DATA, or data)"
    )
    parser.add_output("default: $OUTPUT, or output", default=os.environ.get("OUTPUT", "output"))
    return parser


def run_sweep(options) -> int:
    """Do a sweep and print its outcome; return 0, or 1 if a run failed. Raises UserError."""
    from dspt_atlas.launch.state import Journal, scan  # it loads torch

    if options.retries < 0:
        raise UserError(f"Expected --retries to be at least 0, got {options.retries}.")
    plan = read_plan(options.sweep)
    # Absolute, because the runs may start in another folder or on another machine.
    output = options.output.resolve()
    root = str(expand_home(options.root).resolve()) if options.root else ""
    jobs = plan.jobs(root, output, options.pairs)
    folder = output / "sweeps" / plan.path.stem
    journal = Journal(folder / "failures.jsonl")
    for_launcher = Options.of(options, folder)
    runs = scan(jobs, journal)
    if options.dry_run:
        print(listing(runs, output))
        return 0
    if any(run.state != "done" for run in runs):
        if (folder / "lock").exists():
            with _only_one(folder):  # mistakes are refused before a cluster starts
                pass
        launcher = make_launcher(options.launcher, for_launcher)  # before anything is written, because it may refuse
        with _only_one(folder), contextlib.closing(launcher):
            runs = scan(jobs, journal, runs)  # another process may have done some of them meanwhile
            done = sum(run.state == "done" for run in runs)
            print(f"{len(runs)} runs, {done} of them done already; results: {output}", flush=True)
            with tqdm(total=len(runs) - done, unit="run", disable=None) as bar:
                drive(runs, launcher, journal, options.retries, on_end=lambda run: bar.update())
    print(summary(runs, output, command_line("sweep", *options.words)))
    print(f"Tables: {command_line('table', output)}")
    return int(any(run.state != "done" for run in runs))


@contextlib.contextmanager
def _only_one(folder):
    """Hold a sweep; raises UserError if another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise UserError(
            f"This sweep is already running ({folder} is locked): wait for it, look at it with --dry-run, or choose "
            "another --output."
        ) from None


main = main_of(build_parser, run_sweep)
