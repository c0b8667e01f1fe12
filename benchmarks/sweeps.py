"""What sweeps cost: each launcher, a sweep against the same runs one after the other, 10,000 runs.

python benchmarks/sweeps.py --case local|ray|slurm [--runs 1000]     runs that do nothing but write a result
python benchmarks/sweeps.py --case embedded --output DIR [--workers 0]  48 runs, and the same with --workers 1
python benchmarks/sweeps.py --case large [--runs 10000]               planning, reading the states, and what it takes

A case for slurm goes to the Slurm that is there;
python tests/support/one_machine_slurm.py python benchmarks/sweeps.py ... starts one.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dspt_atlas.environment import host_kind
from dspt_atlas.launch import Options, make_launcher
from dspt_atlas.launch.execute import drive
from dspt_atlas.launch.listing import listing, summary
from dspt_atlas.launch.state import Journal, scan
from dspt_atlas.plan.planner import read_plan

ROOT = Path(__file__).resolve().parents[1]
TRIVIAL = """while [ $# -gt 0 ]; do
[ "$1" = --output-dir ] && { mkdir -p "$2"; echo '{"seconds": 0, "accuracy": 50.0}' > "$2/result.json"; exit 0; }
shift; done"""


def main():
    """Measure one case and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", required=True, choices=["local", "ray", "slurm", "embedded", "large"])
    parser.add_argument("--runs", type=int, default=0, help="default: 1000; large 10000")
    parser.add_argument("--workers", type=int, default=0, help="runs at once (default: one per core)")
    parser.add_argument("--output", type=Path, help="folder for the written files (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.output or Path(temporary)).resolve()
        if options.case == "embedded":
            measured = against_sequential(folder, options.workers)
        elif options.case == "large":
            measured = large(folder, options.runs or 10_000)
        else:
            measured = overhead(options.case, folder, options.runs or 1000, options.workers)
    print(json.dumps({"case": options.case, **measured, "host": host_kind()}))


def sweep_of(folder, runs):
    """Write a sweep of so many trainings, one seed each, and return its plan and the seconds that planning took."""
    path = folder / "trivial.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "protocol: noisy\ndatasets: emoji\ntrainers: CoOp\nnoise: sym 0.5\nINPUT.CACHE: none\n"
        f"seeds: {list(range(runs))}\n"
    )
    start = time.perf_counter()
    return read_plan(path).jobs("", folder / "output"), time.perf_counter() - start


def overhead(launcher_name, folder, runs, workers):
    """Return the seconds a run that does nothing costs, start of the launcher included and apart."""
    jobs, _ = sweep_of(folder, runs)
    journal = Journal(folder / "failures.jsonl")
    states = scan(jobs, journal)
    start = time.perf_counter()
    launcher = make_launcher(
        launcher_name, Options(workers=workers, folder=folder, program=("sh", "-c", TRIVIAL, "sh"), minutes=5)
    )
    started = time.perf_counter()
    with contextlib.closing(launcher):
        drive(states, launcher, journal, 0)
        end = time.perf_counter()
    done = sum(run.state == "done" for run in states)
    return {
        "runs": runs,
        "done": done,
        "launcher_start_seconds": round(started - start, 2),
        "milliseconds_a_run": round(1000 * (end - started) / runs, 1),
        "peak_memory_mib": peak_memory(),
    }


def against_sequential(folder, workers):
    """Return the seconds of the sweep embedded_48 and of the same runs one after the other, each with a fresh cache."""
    seconds = {}
    for name, count in (("sweep", workers), ("one_after_the_other", 1)):
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        environment = {**os.environ, "DSPT_ATLAS_CACHE": str(target / "cache")}
        command = [
            sys.executable,
            str(ROOT / "scripts" / "sweep.py"),
            "embedded_48",
            "--output",
            str(target / "output"),
        ]
        start = time.perf_counter()
        subprocess.run([*command, "--workers", str(count)], env=environment, check=True)
        seconds[f"{name}_seconds"] = round(time.perf_counter() - start, 1)
    return {"runs": 48, **seconds}


def large(folder, runs):
    """Return time, memory, open files and files on disk of planning a sweep and reading its states, half of it done."""
    before = peak_memory()
    jobs, planning = sweep_of(folder, runs)
    history = [{"epoch": epoch, "loss": 0.5, "accuracy": 50.0, "seconds": 0.1} for epoch in range(1, 51)]
    config = {"SEED": 0, "DATASET": {"NOISE": {"TYPE": "sym", "RATE": 0.5}}, "INPUT": {"VIEWS": 10}}
    result = json.dumps({"seconds": 12.0, "accuracy": 50.0, "history": history, "config": config}, indent=1)
    for job in jobs[::2]:
        job.folder.mkdir(parents=True)
        text = result.replace('"SEED": 0', f'"SEED": {job.option("--seed")}')
        (job.folder / "result.json").write_text(text)
    start = time.perf_counter()
    states = scan(jobs, Journal(folder / "failures.jsonl"))
    scanning = time.perf_counter() - start
    done = sum(run.state == "done" for run in states)
    text = listing(states, folder)
    listing_seconds = time.perf_counter() - start - scanning
    launcher = make_launcher("local", Options(folder=folder, program=("true",)))
    opened = []
    with contextlib.closing(launcher), contextlib.redirect_stderr(io.StringIO()):
        original = launcher.wait

        def counted(timeout=None):
            opened.append(len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)
            return original(timeout)

        launcher.wait = counted
        drive(states[: max(200, runs // 50)], launcher, Journal(folder / "failures.jsonl"), 0)
    summary(states, folder, "sweep.py")
    return {
        "runs": runs,
        "done": done,
        "planning_seconds": round(planning, 1),
        "reading_states_seconds": round(scanning, 1),
        "listing_seconds": round(listing_seconds, 1),
        "listing_lines": text.count("\n") + 1,
        "open_files": max(opened),
        "files_of_the_sweep_itself": sum(path.is_file() for path in folder.glob("*")),
        "memory_before_mib": before,
        "peak_memory_mib": peak_memory(),
    }


def peak_memory():
    """Return this process's peak resident memory in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
