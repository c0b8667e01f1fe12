"""The evidence run: both papers' claims on the embedded benchmark; the repository keeps its results."""

from __future__ import annotations

import copy
import math
import os
import sys
import time
from pathlib import Path

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.config.reading import check_choice
from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job, Run
from dspt_atlas.paths import CONFIGS, expand_home, write_atomically
from dspt_atlas.plan.evidence import PROFILE, part_names, plan, skipped_parts
from dspt_atlas.results.archive import ARCHIVE, archiving, read_archives
from dspt_atlas.run.records import RESULT_FILE, read_json


def unfinished(jobs: list[Job], output: Path, kept: dict[str, dict]) -> list[Job]:
    """Return the runs that are not kept, each test with its training; kept: {folder below `output`: result}."""
    missing = {job.folder for job in jobs if not _is_kept(job, kept.get(_below(job.folder, output)))}
    missing |= {job.trained_in for job in jobs if job.folder in missing}
    return [job for job in jobs if job.folder in missing]


def _is_kept(job, result):
    """Return whether there is a result and it belongs to this run."""
    from dspt_atlas.config.differences import differences  # these load torch, as those below
    from dspt_atlas.launch.state import described

    return result is not None and not differences(result, described(job))


def kept(folder: Path, output: Path, runs: Path) -> dict:
    """Return what is kept of a finished run's result, without paths of this machine; its profiles go below `runs`."""
    if PROFILE in folder.parts[-2]:
        from dspt_atlas.tools.gradient_profile import PROFILE_FILE, SUMMARY_FILE, profile_run

        own = runs / _below(folder, output)
        profile_run(folder, samples=128)
        write_atomically(own / PROFILE_FILE, _last_epoch(folder / PROFILE_FILE))
        write_atomically(own / SUMMARY_FILE, (folder / SUMMARY_FILE).read_bytes())
    return trimmed(read_json(folder / RESULT_FILE), output)


def _below(folder, output):
    return folder.relative_to(output).as_posix()


def _last_epoch(path):
    """Return the header and the last epoch's lines of a CSV file that begins with the epoch, in ascending order."""
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return header + "".join(line for line in lines if line.split(",")[0] == lines[-1].split(",")[0])


def trimmed(result: dict, output: Path) -> dict:
    """Return a result without accuracies per class and settings without influence.

    Of more than 25 epochs, every n-th and the last stay. Numbers of an epoch have four significant digits.
    """
    from dspt_atlas.config.roles import MACHINE_KEYS

    result = {key: copy.deepcopy(value) for key, value in result.items() if key != "per_class_accuracy"}
    for key in MACHINE_KEYS:
        *groups, name = key.split(".")
        node = result["config"]
        for group in groups:
            node = node.get(group, {})
        node.pop(name, None)
    history = result.get("history", [])
    step = max(1, math.ceil(len(history) / 25))
    result["history"] = [_rounded(entry) for entry in history[::-step][::-1]]
    evaluated = result.get("evaluated")
    if evaluated and evaluated["model_dir"]:
        evaluated["model_dir"] = Path(evaluated["model_dir"]).resolve().relative_to(output.resolve()).as_posix()
    return result


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items() if key != "seconds"}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas evidence`."""
    parser = Parser(
        "evidence",
        example="--part noise --minutes 60 --dry-run",
        more="It writes tables and figures. Runs that are finished, here or in the kept results, are not done again.",
        advice="the same command continues where it stopped.",
        pairs=True,
    )
    parser.add_argument("--part", nargs="+", default=["all"], help="parts of the plan evidence (default: all)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="runs with one of the texts in their folder"
    )
    parser.add_seeds((), "default: 5 for noise, 1 for figures, otherwise 3")
    parser.add_argument(
        "--minutes", type=float, default=115, help="start no more runs after so many minutes (default: 115)"
    )
    parser.add_argument("--workers", type=int, default=0, help="runs at once (default: one per core)")
    parser.add_output("default: $OUTPUT, or output", default=os.environ.get("OUTPUT", "output"))
    parser.add_argument("--docs", default=CONFIGS.parent / "docs" / "evidence", help="for results, tables and figures")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and the estimate, and stop")
    parser.add_argument("--tables-only", action="store_true", help="do no run: write the tables of the kept results")
    return parser


def run_evidence(options) -> int:
    """Do the evidence run and write its tables and figures; return the exit status."""
    from dspt_atlas.launch.listing import time_left
    from dspt_atlas.launch.pool import default_workers, execute
    from dspt_atlas.report.evidence import write_evidence

    start = time.time()
    output, docs = options.output, expand_home(options.docs)
    if options.tables_only:
        print(*write_evidence(docs), sep="\n")
        return 0
    if not options.minutes >= 0 or options.workers < 0:
        raise UserError("Expected --minutes and --workers from 0 on.")
    planned = plan(output, options.seeds, options.pairs)
    jobs = _chosen(planned, options.part, options.only or [""])
    skipped = skipped_parts()
    part_of = {job.folder: part for part, job in planned}
    for part, reason in skipped.items():
        if any(part_of[job.folder] == part for job in jobs):
            print(f"NOTE: {reason}", file=sys.stderr)
    if not (jobs := [job for job in jobs if part_of[job.folder] not in skipped]):
        return 0
    todo = unfinished(jobs, output, results := read_archives(docs / "runs"))
    everything = plan(output, pairs=options.pairs) if options.seeds else planned
    estimated = _estimated([job for _, job in everything], todo, output, results)
    total = f"{len(jobs)} runs, {len(todo)} to do; {time_left(estimated)}"
    print(total, file=sys.stderr if options.dry_run else sys.stdout, flush=True)
    if options.dry_run:
        print(*(job.command() for job in todo), sep="\n")
        return 0
    done = []
    with archiving(docs / "runs") as archive:

        def on_done(folder):
            done.append(folder)
            archive(part_of[folder], _below(folder, output), kept(folder, output, docs / "runs"))

        workers = options.workers or default_workers()
        status = execute(todo, workers=workers, stop_at=start + 60 * options.minutes, on_done=on_done)
    if len(done) < len(todo):
        print(f"{len(todo) - len(done)} runs are left or failed; the same command does them.")
    if not any((docs / "runs").glob(f"*{ARCHIVE}")):
        return status
    for path in write_evidence(docs):
        print(path)
    print(f"{(time.time() - start) / 60:.1f} minutes")
    return status


def _estimated(jobs, todo, output, results) -> list[Run]:
    """Return the kept runs with their seconds, and those to do with what the kept ones let expect."""
    from dspt_atlas.launch.estimate import estimate

    seconds = {job: results.get(_below(job.folder, output), {}).get("seconds") for job in set(jobs) - set(todo)}
    runs = [Run(job, "done", seconds=known) for job, known in seconds.items() if known] + [Run(job) for job in todo]
    estimate(runs)
    return runs


def _chosen(planned, parts, only) -> list[Job]:
    """Return the runs of --part and --only; raises UserError if there is none."""
    for part in parts:
        check_choice("part", part, [*part_names(), "all"], "--part")
    wanted = part_names() if "all" in parts else parts
    jobs = [job for part, job in planned if part in wanted and any(text in str(job.folder) for text in only)]
    if not jobs:
        raise UserError(f"No run's folder contains {' or '.join(only)}: dspt-atlas evidence --dry-run lists them.")
    return jobs


main = main_of(build_parser, run_evidence)
