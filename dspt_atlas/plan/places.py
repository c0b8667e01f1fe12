"""Whether the runs of a plan would lie among the images that they read."""

from __future__ import annotations

from collections.abc import Collection

from dassl.data.datasets import DATASET_REGISTRY

from dspt_atlas.config.build import merge
from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.config.reading import read_yaml
from dspt_atlas.datasets.own import OwnDataset
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten
from dspt_atlas.launch.job import Job

# Keys that say where your own images are.
PLACES = ("DATASET.NAME", "DATASET.ROOT", "DATASET.OWN.", "DATASET.SOURCE_DOMAINS", "DATASET.TARGET_DOMAINS")


def check_places(jobs: Collection[Job]) -> None:
    """Raise UserError if runs would lie among your own images; the first run of the same data counts."""
    first: dict[tuple, Job] = {}
    for job in jobs:
        own = tuple(pair for pair in job.pairs.items() if pair[0].startswith(PLACES))
        files = job.option("--dataset-config-file"), job.option("--config-file")
        first.setdefault((files, job.option("--root"), own), job)
    for described, job in first.items():
        if found := _own_data(*described):
            data, cfg = found
            data.check_output(cfg, job.folder)


def _own_data(files, root, own):
    """Return the class and configuration of your own data; None for other data, and for what each run will refuse."""
    cfg, known = default_cfg(), DATASET_REGISTRY.registered_names()
    try:
        given = [item for path in files for item in flatten(read_yaml(path)) if item[0].startswith(PLACES)]
        merge(cfg, [*given, *([("DATASET.ROOT", root)] if root else []), *own], files[0])
        data = DATASET_REGISTRY.get(cfg.DATASET.NAME) if cfg.DATASET.NAME in known else None
        if isinstance(data, type) and issubclass(data, OwnDataset) and data.locate(cfg):
            data.class_roots(cfg)
            return data, cfg
    except UserError:
        pass
    return None
