"""The evidence's plan (configs/plans/evidence.yaml) by its parts, and words in its folders' names."""

from __future__ import annotations

import functools
from pathlib import Path

from dspt_atlas.launch.job import Job
from dspt_atlas.plan.planner import read_plan

PARTS = ("noise", "generalisation", "ablations", "figures")
SHORT = {"CoOp": "emoji_rn_ep20", "CoCoOp": "emoji_rn_ep4", "MaPLe": "emoji_vit_ep4"}  # its configurations, by learner
ABLATION = "ablation"  # in the folder of a run whose settings differ from the method's
PROFILE = "profile"  # in the folder of a run that records more, for the figures


def plan(output: Path, seeds: tuple[int, ...] = (), pairs: tuple[str, ...] = ()) -> list[tuple[str, Job]]:
    """Return (part, run) in the order of doing them; seeds: in place of each part's own."""
    given = {"seeds": list(seeds)} if seeds else {}
    return [(job.part, job) for job in read_plan("evidence").jobs("", Path(output), tuple(pairs), given)]


@functools.cache
def seeds_of(part: str) -> tuple[int, ...]:
    """Return the seeds of a part, ascending."""
    return tuple(sorted({int(job.option("--seed")) for name, job in plan(Path("output")) if name == part}))
