"""The cost of reading results: the table and the page of a tree of results, next to a naive reference in the same run.

python benchmarks/results.py [--runs 9240] [--output DIR]

The tree holds copies of docs/evidence/runs with other seeds. The naive reference parses each result.json and averages
the accuracies of each trainer, data set and noise: without identities, checks and labels, it mixes results that no
table mixes.
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dspt_atlas.environment import host_kind
from dspt_atlas.results.archive import read_archives

ROOT = Path(__file__).resolve().parents[1]


def main():
    """Measure and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9240)
    parser.add_argument("--output", type=Path, help="folder for the written files (default: a temporary one)")
    parser.add_argument("--naive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.naive:
        print(len(naive(options.naive)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        write_tree(folder / "runs", options.runs)
        print(json.dumps({"runs": options.runs, **measure(folder), "host": host_kind()}))


def write_tree(folder, runs):
    """Write so many results: the kept ones repeatedly, each time with other seeds."""
    kept = list(read_archives(ROOT / "docs" / "evidence" / "runs").items())
    for number in range(runs):
        (source, result), copy = kept[number % len(kept)], number // len(kept)
        seed = result["seed"] + 10 * copy
        target = folder / str(copy) / source
        target.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**result, "seed": seed, "config": {**result["config"], "SEED": seed}})
        (target / "result.json").write_text(text)


def naive(folder):
    """Return {(trainer, data set, noise): mean accuracy}."""
    found = collections.defaultdict(list)
    for path in folder.rglob("result.json"):
        result = json.loads(path.read_text())
        noise = result["noise"] or {}
        found[result["trainer"], result["dataset"], noise.get("type"), noise.get("rate")].append(result["accuracy"])
    return {key: statistics.fmean(values) for key, values in found.items()}


def measure(folder):
    """Return wall and processor seconds and peak memory of each command, and its ratio to the naive reference."""
    page = ["report", folder / "runs", "--output", folder / "report.html"]
    commands = {
        "naive": [__file__, "--naive", folder / "runs"],
        "table": ["-m", "dspt_atlas", "table", folder / "runs"],
        "page": ["-m", "dspt_atlas", *page],
        "page_without_figures": ["-m", "dspt_atlas", *page, "--no-figures"],
    }
    measured = {name: timed(command) for name, command in commands.items()}
    for name in list(measured)[1:]:
        measured[name]["times_naive"] = round(
            measured[name]["processor_seconds"] / measured["naive"]["processor_seconds"], 1
        )
    return measured


def timed(command):
    """Return wall and processor seconds and the largest memory of a Python command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    seconds = {"seconds": time.perf_counter() - start, "processor_seconds": usage.ru_utime + usage.ru_stime}
    return {**{name: round(value, 1) for name, value in seconds.items()}, "memory_mib": round(usage.ru_maxrss / 1024)}


if __name__ == "__main__":
    main()
