"""Check a machine with a GPU within minutes: `python benchmarks/device.py OUT [--budget SECONDS] [--cpu]`.

It uses random weights of ViT-B/16's size. Tables (tables.md) and figures (figures.json) are written to OUT after every
case; the most important cases come first. Cases that the budget does not reach are named as skipped; the same call with
the same OUT goes on with them. The status is 1 if a figure is beyond its tolerance or a case fails. --cpu: tiny weights
on the CPU, to see that everything runs.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

import device_cases
import torch
from tabulate import tabulate

from dspt_atlas.paths import write_atomically


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the tables")
    parser.add_argument("--budget", type=float, default=540, help="seconds in all, with the set-up (default 540)")
    parser.add_argument("--used", type=float, default=0, help="seconds of the budget that the set-up has taken")
    parser.add_argument("--cpu", action="store_true", help="tiny weights on the CPU")
    parser.add_argument("--stage", action="append", help="only this stage (may be repeated)")
    options = parser.parse_args(arguments)
    if not options.cpu and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --cpu runs tiny weights on the CPU")
    return options


def machine_facts(device):
    """The environment of the measurement."""
    facts = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {"card": properties.name, "card's MiB": properties.total_memory // 2**20, "cuda": torch.version.cuda}
    return {"device": device, **facts}


def run_case(case):
    """(rows, the error's last line or None); the rows before an error count."""
    rows = []
    try:
        rows.extend(case())
    except Exception as error:  # noqa: BLE001 - a broken case must not stop the others
        traceback.print_exc()
        return rows, f"{type(error).__name__}: {error}".split("\n")[0]
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return rows, None


def shown(value):
    """A cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else value


def tables(figures):
    """All figures as markdown."""
    parts = ["# A check of " + figures["machine"].get("card", "the CPU")]
    parts.append(tabulate(figures["machine"].items(), tablefmt="github", headers=["what", "value"]))
    rows = [{"precision": name, **limits} for name, limits in device_cases.TOLERANCES.items()]
    parts += ["## Tolerances", tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)]
    for stage, rows in figures["stages"].items():
        cells = [{key: shown(value) for key, value in row.items()} for row in rows]
        parts += [f"## {stage}", tabulate(cells, headers="keys", tablefmt="github", disable_numparse=True)]
    parts.append("## Not run")
    parts += [f"- failed: {name}: {error}" for name, error in figures["failed"].items()]
    parts += [f"- skipped, out of time: {name}" for name in figures["skipped"]]
    return "\n\n".join(parts) + "\n"


def earlier_figures(path, machine):
    """Figures of an earlier call in the same folder on the same kind of machine, whose cases are kept; or none."""
    earlier = json.loads(path.read_text()) if path.is_file() else {"machine": machine}
    if earlier["machine"] == machine:
        kept = {key: earlier.get(key, {}) for key in ("stages", "seconds", "failed")}
        return {"machine": machine, **kept, "skipped": []}
    print(f"{path} is of another machine ({earlier['machine']}). Give another folder.", file=sys.stderr)
    raise SystemExit(2)


def main(arguments=None):
    """Run the cases until the budget is spent; return the exit status."""
    start = time.monotonic()
    options = parse(arguments)
    start -= options.used
    device = "cpu" if options.cpu else "cuda"
    options.out.mkdir(parents=True, exist_ok=True)
    figures = earlier_figures(options.out / "figures.json", machine_facts(device))
    with tempfile.TemporaryDirectory() as folder, (options.out / "log.txt").open("a") as log:
        os.environ["DSPT_ATLAS_CACHE"] = f"{folder}/cache"
        for stage, name, case in device_cases.all_cases(device_cases.Machine(device, Path(folder), options.cpu)):
            if (options.stage and stage not in options.stage) or f"{stage} {name}" in figures["seconds"]:
                continue
            begin = time.monotonic()
            if begin - start > options.budget:
                figures["skipped"].append(f"{stage} {name}")
            else:
                with contextlib.redirect_stdout(log):
                    rows, error = run_case(case)
                figures["stages"].setdefault(stage, []).extend(rows)
                figures["failed"] |= {f"{stage} {name}": error} if error else {}
                figures["seconds"][f"{stage} {name}"] = time.monotonic() - begin
                print(f"{time.monotonic() - start:5.0f} s  {stage} {name}: {error or 'done'}", flush=True)
            write_atomically(options.out / "figures.json", json.dumps(figures, indent=1) + "\n")
            write_atomically(options.out / "tables.md", tables(figures))
    print(tables(figures))
    return int(bool(figures["failed"]) or not all(row["ok"] for rows in figures["stages"].values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
