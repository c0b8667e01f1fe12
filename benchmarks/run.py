"""Measure what the encoders save: `python benchmarks/run.py [--case NAME] [--json FILE] [--plot FILE]`.

Each side of a case runs in its own process. The two take turns, and the ratio is the median over the rounds. Peak
memory is the memory that the steps add to the process's resident memory with weights and inputs loaded.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import steps
import torch
from tabulate import tabulate

from dspt_atlas.environment import host_kind
from dspt_atlas.paths import write_atomically
from dspt_atlas.report.figures import style


@dataclass(frozen=True)
class Case:
    """`required`: least ratio of reference to ours, or (at_most) greatest ratio of ours to reference."""

    name: str
    step: str
    required: float
    classes: int = 100
    batch: int = 1
    memory_required: float | None = None
    at_most: bool = False
    rounds: int | None = None


CASES = {
    "text-100": Case("text tower, forward + backward, 16 context tokens, 100 classes", "text", 12),
    "text-1000": Case(
        "text tower, forward + backward, 16 context tokens, 1,000 classes", "text", 12, 1000, memory_required=10
    ),
    "coop": Case("CoOp step, batch 32, features cached, 100 classes", "coop", 15, batch=32),
    "cocoop": Case("CoCoOp step, batch 8, 100 classes", "cocoop", 10, batch=8),
    "maple-100": Case("MaPLe step, batch 4, 100 classes", "maple", 3, batch=4),
    "maple-1000": Case("MaPLe step, batch 4, 1,000 classes", "maple", 8, 1000, batch=4),
    "kgcoop": Case("KgCoOp step, batch 32, features cached, 100 classes", "kgcoop", 12, batch=32),
    "prograd": Case("ProGrad step, batch 32, features cached, 100 classes", "prograd", 12, batch=32),
    "tcp": Case("TCP step, batch 32, features cached, 100 classes", "tcp", 8, batch=32),
    "dept-coop": Case("DePT on CoOp step, batch 4, features cached, 100 classes", "deptcoop", 12, batch=4),
    "dept-kgcoop": Case("DePT on KgCoOp step, batch 4, features cached, 100 classes", "deptkgcoop", 12, batch=4),
    "dept-maple": Case("DePT on MaPLe step, batch 4, 100 classes", "deptmaple", 3, batch=4),
    "ivlp": Case("IVLP step, batch 4, 100 classes", "ivlp", 4, batch=4),
    "vpt": Case("VPT step, batch 4, 100 classes; the reference encodes the text in each step", "vpt", 4, batch=4),
    "vpt-images": Case("VPT step, batch 4, 100 classes; the text is encoded once", "vptimages", 1, batch=4),
    "promptsrc": Case("PromptSRC step, batch 4, frozen features cached, 100 classes", "promptsrc", 4, batch=4),
    "evaluation": Case("evaluation, 100 classes, 25 batches of 100 features", "evaluation", 50, batch=100),
    "cache-check": Case(
        "cached features read from disk and compared with their checksum, 50 x 1,600 x 1,024",
        "cache_check",
        1.1,
        1600,
        at_most=True,
        rounds=15,
    ),
    "sweep": Case("12-run sweep on the embedded benchmark (3 seeds x 2 noise types x 2 methods)", "sweep", 4, rounds=1),
    "limit-100": Case("distance to the limit, text tower, 100 classes", "limit", 1.5, at_most=True),
    "limit-1000": Case("distance to the limit, text tower, 1,000 classes", "limit", 1.5, 1000, at_most=True),
}
SCALING = (10, 30, 100, 300, 1000, 3000)
REFERENCE_SCALING = (10, 30, 100, 300)
QUICK_CLASSES = 12


class Worker:
    """One side of a case in its own process."""

    def __init__(self, results, step, side, classes, batch, quick, threads, class_chunk=0):
        self.results = Path(results) / f"{side}.pt"
        arguments = [step, side, classes, batch, int(quick), threads, class_chunk, self.results]
        self.process: Any = subprocess.Popen(
            [sys.executable, __file__, "--worker", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
        self.receive()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"A worker ended with status {self.process.wait()}; its message is above.")
        return json.loads(line)

    def run(self):
        """Seconds of one step."""
        print("go", file=self.process.stdin, flush=True)
        return self.receive()["seconds"]

    def finish(self):
        """(result of the first step, peak bytes, whether the peak is extrapolated from a part of the classes)."""
        self.process.stdin.close()
        report = self.receive()
        self.process.wait()
        self.process.stdout.close()
        return torch.load(self.results, weights_only=True), report["peak_bytes"], report["extrapolated"]


def work(step, side, classes, batch, quick, threads, class_chunk, results):
    """The worker's side: a step for each line on standard input."""
    torch.set_num_threads(int(threads))
    problem = steps.Problem(int(classes), quick == "1", int(batch), int(class_chunk))
    build = getattr(steps, step)
    if step != "sweep":
        small = build(side, steps.Problem(min(4, problem.classes), problem.quick, 1))
        small()  # libraries initialise themselves
        del small
    run = build(side, problem)
    gc.collect()
    base = reset_peak()
    print(json.dumps({"ready": True}), flush=True)
    first = None
    for count, _ in enumerate(sys.stdin):
        getattr(run, "prepare", int)()
        start = time.perf_counter()
        result = run()
        seconds = (time.perf_counter() - start) * getattr(run, "scale", 1.0)
        first = result if count == 0 else first
        print(json.dumps({"seconds": seconds}), flush=True)
    torch.save(first, results)
    parts, peak = getattr(run, "parts", 1), steps.kibibytes("/proc/self/status", "VmHWM") - base
    if step == "sweep":
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest run, with libraries
    print(json.dumps({"peak_bytes": peak * parts, "extrapolated": parts > 1}), flush=True)


def reset_peak():
    """Forget the process's highest resident memory; return its resident memory in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return steps.kibibytes("/proc/self/status", "VmRSS")


def measure(case, rounds, quick, threads):
    """Let both sides take turns; one record of the JSON file."""
    classes = QUICK_CLASSES if quick else case.classes
    batch = min(case.batch, 3) if quick else case.batch
    seconds = {"reference": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        workers = {side: Worker(folder, case.step, side, classes, batch, quick, threads) for side in seconds}
        for _ in range(case.rounds or rounds):
            for side, worker in workers.items():
                seconds[side].append(worker.run())
        (expected, reference_peak, extrapolated), (result, peak, _) = (worker.finish() for worker in workers.values())
    ratios = [slow / fast for slow, fast in zip(seconds["reference"], seconds["ours"], strict=True)]
    ratio = statistics.median(1 / ratio for ratio in ratios) if case.at_most else statistics.median(ratios)
    record = {
        "name": case.name,
        "ratio": ratio,
        "required": case.required,
        "reference_seconds": statistics.median(seconds["reference"]),
        "seconds": statistics.median(seconds["ours"]),
        "reference_peak_bytes": reference_peak,
        "peak_bytes": peak,
        "at_most": case.at_most,
        "reference_peak_extrapolated": extrapolated,
        "memory_required": case.memory_required,
        "reference_rounds": seconds["reference"],
        "rounds": seconds["ours"],
    }
    if expected is not None and result is not None:
        record["relative_difference"] = ((result - expected).abs().max() / expected.abs().max()).item()
    enough_memory = case.memory_required is None or reference_peak >= case.memory_required * peak
    record["reached"] = (ratio <= case.required if case.at_most else ratio >= case.required) and enough_memory
    return record


def measure_scaling(rounds, quick, threads):
    """Seconds and peak bytes of the text tower for growing numbers of classes."""
    sizes = [("reference", 0, n) for n in REFERENCE_SCALING] + [
        ("ours", chunk, n) for chunk in (0, 100) for n in SCALING
    ]
    records = []
    for side, class_chunk, classes in [size for size in sizes if not quick or size[2] <= 10]:
        with tempfile.TemporaryDirectory() as folder:
            worker = Worker(folder, "text", side, classes, 1, quick, threads, class_chunk)
            seconds = statistics.median(worker.run() for _ in range(rounds))
            records.append(
                {
                    "side": side,
                    "class_chunk": class_chunk,
                    "classes": classes,
                    "seconds": seconds,
                    "peak_bytes": worker.finish()[1],
                }
            )
    return records


def plot(records, path):
    """Time and memory against the number of classes, one line per side and chunk."""
    figure, axes = style.panels(2, width=6.4, height=2.4, across=1, share_y="none")
    lines = {
        "77 tokens per class": ("reference", 0),
        "shared prefix": ("ours", 0),
        "shared prefix, chunks of 100": ("ours", 100),
    }
    looks = style.looks(dict(zip(lines, style.LOOKS, strict=False)))
    for label, key in lines.items():
        points = [record for record in records if (record["side"], record["class_chunk"]) == key]
        classes = [record["classes"] for record in points]
        for axis, values in zip(axes, ("seconds", "peak_bytes"), strict=True):
            unit = 2**20 if values == "peak_bytes" else 1
            axis.plot(classes, [record[values] / unit for record in points], label=label, **looks[label])
    for axis, title in zip(axes, ("seconds, forward + backward", "peak memory of a step (MiB)"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="classes", title=title)
    style.add_legend(figure, axes)
    style.save_picture(figure, Path(path))


def table(records):
    """The records of cases as a markdown table, which docs/performance.md shows."""
    rows = []
    for record in records:
        memory = [f"{record[key] / 2**20:,.0f} MiB" for key in ("reference_peak_bytes", "peak_bytes")]
        memory[0] += "*" if record["reference_peak_extrapolated"] else ""
        rows.append(
            [
                record["name"],
                f"{record['reference_seconds']:.3f} s",
                f"{record['seconds']:.3f} s",
                f"{record['ratio']:.2f}",
                f"{'at most ' if record['at_most'] else ''}{record['required']:g}",
                "yes" if record["reached"] else "**no**",
                *memory,
                f"{record['relative_difference']:.1e}" if "relative_difference" in record else "",
            ]
        )
    head = "case", "reference", "ours", "ratio", "aim", "reached", "memory, reference", "memory, ours", "differs by"
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def scaling_table(records):
    """The records of the scaling case as a markdown table: one row per number of classes."""
    found = {(record["side"], record["class_chunk"], record["classes"]): record for record in records}
    sides = {"reference": ("reference", 0), "ours": ("ours", 0), "ours, chunks of 100": ("ours", 100)}
    units = {"seconds": (1, ".2f", "s"), "peak_bytes": (2**20, ",.0f", "MiB")}
    rows = [
        [f"{classes:,}"]
        + [
            f"{record[key] / unit:{form}} {name}" if (record := found.get((*side, classes))) else "–"
            for key, (unit, form, name) in units.items()
            for side in sides.values()
        ]
        for classes in sorted({classes for *_, classes in found})
    ]
    return tabulate(
        rows, ["classes", *sides, *(f"memory, {side}" for side in sides)], tablefmt="github", disable_numparse=True
    )


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[*CASES, "scaling"], help="only this case (may be repeated)")
    parser.add_argument("--json", type=Path, help="write the figures to this file; those of other cases in it stay")
    parser.add_argument(
        "--plot", type=Path, default=Path("scaling.png"), help="file for the picture of the scaling case"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that everything runs; figures mean nothing"
    )
    return parser.parse_args(arguments)


def earlier(options):
    """The figures of a JSON file that are kept: those of cases that are not measured again."""
    if not options.json or not options.json.exists():
        return {"cases": []}
    figures = json.loads(options.json.read_text())
    return figures | {"cases": [record for record in figures["cases"] if record["case"] not in options.case]}


def main():
    """Measure the chosen cases; the JSON file is rewritten after each, so that an interrupted run keeps its figures."""
    if sys.argv[1:2] == ["--worker"]:
        return work(*sys.argv[2:])
    options = parse(sys.argv[1:])
    options.case = options.case or [*CASES, "scaling"]
    output: dict[str, Any] = earlier(options)
    where = {
        "quick": options.quick,
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": host_kind(),
    }
    for name in options.case:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name == "scaling":
            output["scaling"] = measure_scaling(min(3, options.rounds), options.quick, options.threads)
            output["scaling_where"] = where
            plot(output["scaling"], options.plot)
        else:
            record = measure(CASES[name], options.rounds, options.quick, options.threads)
            output["cases"].append({"case": name, **record, **where})
            output["cases"].sort(key=lambda record: list(CASES).index(record["case"]))
        if options.json:
            write_atomically(options.json, json.dumps(output, indent=1) + "\n")
    print(table(output["cases"]))
    if "scaling" in output:
        print(scaling_table(output["scaling"]))
    if any(record["reference_peak_extrapolated"] for record in output["cases"]):
        print("* measured for a part of the classes, because all do not fit into memory, times the number of parts")


if __name__ == "__main__":
    main()
