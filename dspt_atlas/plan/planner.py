"""From a plan's yaml (configs/plans) to its runs: one planner for protocols, sweeps, tables, evidence and demo."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dspt_atlas import register_standard
from dspt_atlas.config.reading import check_choice, is_yaml, key_value_pairs, read_yaml
from dspt_atlas.datasets.noise import TYPES
from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.paths import CONFIGS, expand_home

if TYPE_CHECKING:
    from dspt_atlas.plan.step import Step

PLANS = CONFIGS / "plans"
NOISE_TYPES = ("none", *TYPES)
# Keys whose value is a file. As all files that a plan names, it is looked for next to the plan first.
FILE_KEYS = ("DATASET.NOISE.FILE", "DATASET.NOISE.MATRIX", "DATASET.NOISE.WRONG", "MODEL.INIT_WEIGHTS")
OWN = ("description", "example", "output", "tables", "picture")  # fields of a whole plan; the others are steps'


@dataclass(frozen=True)
class Shape:
    """The runs of one combination of the axes: a training and tests of its model, each a folder and KEY: value lines.

    `names`: of the plan and its protocols, for the learners' configurations. A test with {target} in its folder is done
    on each target; `targets` are a list, or lists by source. A run with {noise} in its folder has the noise's keys.
    """

    names: tuple[str, ...] = ()
    train: dict = field(default_factory=dict)
    tests: tuple[dict, ...] = ()
    targets: list | dict | str | None = None

    @property
    def has_noise(self) -> bool:
        """Return whether its folders have the noise in their names."""
        return "{noise}" in self.train.get("folder", "")

    @property
    def has_targets(self) -> bool:
        """Return whether a trained model is tested on other data sets."""
        return any("{target}" in test["folder"] for test in self.tests)


@dataclass(frozen=True)
class Plan:
    """A plan's file. `is_protocol`: it does not name a data set, so one has to be given."""

    path: Path
    content: dict
    shape: Shape = field(repr=False)

    @property
    def is_protocol(self) -> bool:
        """Return whether the user has to give the data sets."""
        return not {"datasets", "steps"} & self.content.keys()

    def why_skipped(self, root: str) -> str:
        """Return in a sentence that the file of data that this plan `needs` is not there, or ""."""
        needed = self.content.get("needs")
        path = expand_home(root or os.environ.get("DATA") or "data") / str(needed)
        if not needed or path.is_file():
            return ""
        return (
            f"{self.path.stem} is skipped, because its data are not there ({path}): get them by dspt-atlas download "
            f"{self.content['datasets']}, and give their folder by DATA."
        )

    def jobs(
        self,
        root: str,
        output: Path,
        pairs: tuple[str, ...] = (),
        given: dict | None = None,
        may_fall_back: bool = False,
    ) -> list[Job]:
        """Return the runs, each once, trainings before their tests; raises UserError.

        given: axes in place of the plan's, in every step. pairs: KEY, VALUE, ... of every run. may_fall_back: the
        embedded backbone may take the place of one that cannot be downloaded. Two runs may share a folder only if they
        are the same.
        """
        jobs: dict[Path, Job] = {}
        for step in self.steps(root, output, pairs, given or {}, may_fall_back):
            for job in step.jobs():
                if jobs.setdefault(job.folder, job) != job:
                    raise UserError(
                        f"{self.path}: two different runs would share the folder {job.folder}: give their differences "
                        "as a list, so that they go into the folder's name, or put the runs into two plans with other "
                        "--output."
                    )
        if not jobs:
            raise UserError(f"{self.path}: this plan has no run: exclude less.")
        from dspt_atlas.plan.places import check_places  # it loads torch

        check_places(jobs.values())
        return list(jobs.values())

    def steps(self, root: str, output: Path, pairs: tuple[str, ...], given: dict, may_fall_back: bool) -> list[Step]:
        """Return the steps, checked, each alone and together."""
        from dspt_atlas.plan.step import Step  # it loads torch, which --help needs not

        register_standard()
        key_value_pairs(list(pairs))
        common = {key: value for key, value in self.content.items() if key not in OWN}
        steps = [
            Step(self.path, content, shape_of(content, self.path), root, output, pairs, may_fall_back, given.keys())
            for content in _flat(self.path, common, given)
        ]
        _check_exclusions(self.path, steps, given.keys())
        _check_keys(steps)
        return steps

    def table_folders(self, jobs: list[Job], output: Path) -> list[Path]:
        """Return the folders whose runs belong to the tables of finished runs: all folders of each data set."""
        from dspt_atlas.plan.step import table_folders  # it loads torch

        contents = _flat(self.path, {key: value for key, value in self.content.items() if key not in OWN}, {})
        shapes = [shape_of(content, self.path) for content in contents]
        folders = {folder: None for shape in shapes for folder in table_folders(shape, jobs, output)}
        return [folder for folder in folders if folder.is_dir()]


def read_plan(name: str | Path) -> Plan:
    """Return the plan of a yaml file, or of a name in configs/plans; raises UserError."""
    path = plan_path(str(name))
    content = read_yaml(path)
    return Plan(path, content, shape_of(content, path))


def plan_path(name: str) -> Path:
    """Return the file of a plan: the path itself, or a name from configs/plans; raises UserError."""
    path = expand_home(name) if is_yaml(name) else PLANS / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"There is no plan {name}: give a yaml file, or one of {', '.join(plan_names())}.")
    return path


def plan_names() -> list[str]:
    """Return the plans of configs/plans."""
    return sorted(file.relative_to(PLANS).with_suffix("").as_posix() for file in PLANS.rglob("*.yaml"))


def shape_of(content: dict, path: Path, children: tuple[Path, ...] = ()) -> Shape:
    """Return the runs of one combination of a plan's axes: the plan's own and those of its `protocol`."""
    protocol = str(content.get("protocol") or "")
    base = _protocol(protocol, path, (*children, path)) if protocol else Shape()
    names = (path.stem, *base.names) if path.parent == PLANS else base.names
    train, tests = content.get("train") or {}, content.get("tests", base.tests)
    if not isinstance(train, dict) or not isinstance(tests, (list, tuple)) or not all(map(_has_folder, tests)):
        raise UserError(
            f"{path}: expected train, and each entry of the list tests, to have a folder and KEY: value lines."
        )
    train, *tests = [{key: placed(path, key, value) for key, value in run.items()} for run in (train, *tests)]
    targets = _placed_targets(path, content["targets"]) if "targets" in content else base.targets
    return Shape(names, {**base.train, **train}, tuple(tests), targets)


def named_file(path: Path, name: str, expected: str) -> Path:
    """Return the absolute path of a file that a plan names: relative to the plan, otherwise to the working folder.

    Raises UserError without a file there; `expected` is the beginning of its sentence.
    """
    places = dict.fromkeys(map(os.path.abspath, (path.parent / expand_home(name), expand_home(name))))
    for place in places:
        if os.path.isfile(place):
            return Path(place)
    raise UserError(f"{expected} to name a file, but there is none at {' or '.join(places)}: name one that is there.")


def placed(path: Path, key: str, value):
    """Return the value of a plan's configuration key; a file's as an absolute path."""
    return str(named_file(path, str(value), f"{path}: expected {key}")) if key in FILE_KEYS and value else value


def _placed_targets(path, targets):
    if isinstance(targets, dict):
        return {_placed_targets(path, source): _placed_targets(path, listed) for source, listed in targets.items()}
    if isinstance(targets, list):
        return [_placed_targets(path, target) for target in targets]
    is_file = isinstance(targets, str) and is_yaml(targets)
    return str(named_file(path, targets, f"{path}: expected targets")) if is_file else targets


def _has_folder(run):
    return isinstance(run, dict) and isinstance(run.get("folder"), str)


def _protocol(name: str, path: Path, children: tuple[Path, ...]) -> Shape:
    """Return the shape of the protocol that a plan names: one of configs/plans, or a yaml relative to the file."""
    if is_yaml(name):
        protocol = named_file(path, name, f"{path}: expected protocol")
    else:
        check_choice("protocol", name, plan_names(), "protocol: in the plan's file")
        protocol = PLANS / f"{name}.yaml"
    if protocol.resolve() in [child.resolve() for child in children]:
        raise UserError(f"{children[0]}: protocol leads back to {protocol}; take it out of one of the files.")
    shape = shape_of(_read(protocol), protocol, children)
    if not shape.train.get("folder"):
        raise UserError(f"{path}: {name} is not a protocol, because it has no folder of a training: name another one.")
    return shape


_read = functools.lru_cache(read_yaml)


def _flat(path: Path, content: dict, given: dict) -> Iterator[dict]:
    """Yield the steps of a plan, and their steps, each with the fields next to it and above it."""
    steps = content.get("steps", [{}])
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise UserError(f"{path}: expected steps to be a list of steps, each with KEY: value lines.")
    beside = {key: value for key, value in content.items() if key != "steps"}
    for step in steps:
        merged = {**beside, **step}
        if "steps" in step:
            yield from _flat(path, merged, given)
        else:
            others = {"learners", "methods"} if "trainers" in given or "trainers" in step else set()
            others |= {"trainers"} if "learners" in step and "trainers" not in given else set()
            yield {**{key: value for key, value in merged.items() if key not in others}, **given}


def _check_exclusions(path, steps, given):
    """Raise UserError for a value of exclude that no step has: a mistyped value would exclude nothing.

    given: the lists that the command line replaces; in them a value of the plan may be missing.
    """
    there: dict[str, dict[str, None]] = {}
    for name, values in itertools.chain(*(step.lists.items() for step in steps)):
        there.setdefault(name, {}).update(dict.fromkeys(map(str, values)))
    for name, values in itertools.chain(*(entry.items() for step in steps for entry in step.exclude)):
        for value in sorted(values - there[name].keys() if name not in given else ()):
            raise UserError(f'{path}: exclude names {name} "{value}", but that list has {", ".join(there[name])}.')


def _check_keys(steps):
    """Raise UserError for a key that no trainer uses in the steps for which it is given."""
    from dspt_atlas.config.effect import check_shared  # it loads torch

    trainers: dict[str, dict[str, None]] = {}
    for step in steps:
        for key in step.given_keys():
            trainers.setdefault(key, {}).update(dict.fromkeys(step.axes["trainers"]))
    for key, names in trainers.items():
        check_shared([key], names)
