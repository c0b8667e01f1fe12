"""The evidence's plans (configs/plans) by their parts, and words in its folders' names."""

from __future__ import annotations

import functools
from pathlib import Path

from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.plan.planner import read_plan

ABLATION = "ablation"  # in the folder of a run whose settings differ from the method's
PLANS = ("evidence", "learners", "paper/photos")
PROFILE = "profile"  # in the folder of a run that records more, for the figures


@functools.cache
def plan(output: Path, seeds: tuple[int, ...] = (), pairs: tuple[str, ...] = ()) -> tuple[tuple[str, Job], ...]:
    """Return (part, run) in the order of doing them; seeds: in place of each part's own."""
    given = {"seeds": list(seeds)} if seeds else {}
    jobs: dict[Path, Job] = {}  # a run of two plans belongs to the first
    for name in PLANS:
        for job in read_plan(name).jobs("", Path(output), tuple(pairs), given):
            jobs.setdefault(job.folder, job)
    return tuple((job.part, job) for job in jobs.values())


@functools.cache
def folders_of(name: str) -> frozenset[str]:
    """Return the folders, below the output, of the runs of one of PLANS."""
    return frozenset(job.folder.as_posix() for job in read_plan(name).jobs("", Path()))


@functools.cache
def part_names() -> tuple[str, ...]:
    """Return the parts, in the order of their first runs."""
    return tuple(dict.fromkeys(part for part, _ in plan(Path("output"))))


@functools.cache
def configurations() -> dict[str, str]:
    """Return the configuration's name of each prompt learner that is compared with others."""
    from dspt_atlas.trainers.registry import pair_of  # it loads torch

    trainings = [job for part, job in plan(Path("output")) if part == "generalisation"]
    names = {pair_of(job.option("--trainer")): Path(job.option("--config-file")).stem for job in trainings}
    return {pair.learner: name for pair, name in names.items() if pair.learns}


def skipped_parts() -> dict[str, str]:
    """Return in a sentence why, by part, for the parts whose data or backbone is not there."""
    reasons = {}
    for found in map(read_plan, PLANS):
        if (reason := found.why_skipped("")) or (reason := _missing_backbone(found)):
            reasons[found.content["part"]] = reason
    return reasons


def _missing_backbone(plan):
    """Return why PhotoEN cannot be had for a plan of photographs, or ""."""
    from dspt_atlas.trainers.clip.photos import text_file  # it loads torch

    if not plan.content.get("needs"):
        return ""
    try:
        text_file()
    except UserError as error:
        return str(error)
    return ""


@functools.cache
def seeds_of(part: str) -> tuple[int, ...]:
    """Return the seeds of a part, ascending."""
    return tuple(sorted({int(job.option("--seed")) for name, job in plan(Path("output")) if name == part}))
