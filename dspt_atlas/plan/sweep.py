"""From a sweep's yaml to its runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas import register_standard
from dspt_atlas.config.build import check_choice, key_value_pairs, merge, read_yaml
from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.config.effect import check_shared, used_pairs
from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.paths import CONFIGS, expand_home
from dspt_atlas.plan.jobs import Planner, Settings
from dspt_atlas.plan.protocols import (
    DESCRIPTIONS,
    check_datasets,
    noise_settings,
    planner_of,
    protocol_jobs,
    shared_keys,
)
from dspt_atlas.trainers.soft_labels import KINDS

SWEEPS = CONFIGS / "sweeps"
# Each is a value or a list of values; their product, less `exclude`, is a step's runs. Config keys are axes too.
AXES = ("datasets", "trainers", "configs", "shots", "noise", "soft_labels", "seeds")
FIELDS = ("protocol", *AXES, "targets", "exclude")
# Keys that a field or an option sets: given otherwise, a run would not be what its folder's name says.
SET_BY = {
    "SEED": "seeds",
    "OUTPUT_DIR": "--output",
    "TRAINER.NAME": "trainers",
    "DATASET.NAME": "datasets",
    "DATASET.NUM_SHOTS": "shots",
    "DATASET.NOISE.TYPE": "noise",
    "DATASET.NOISE.RATE": "noise",
}
SUBSAMPLED = ("DATASET.SUBSAMPLE_CLASSES", "base2new")
DEFAULTS = {"configs": [""], "shots": [16], "noise": ["none"], "soft_labels": [""], "seeds": [1, 2, 3]}


def sweep_path(name: str) -> Path:
    """Return the file of a sweep: a path as it is, a name from configs/sweeps; raises UserError."""
    path = expand_home(name) if name.endswith((".yaml", ".yml")) else SWEEPS / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in SWEEPS.glob("*.yaml")))
        raise UserError(f"There is no sweep {name}: name a yaml file, or one of {there}.")
    return path


def plan_sweep(path: Path, root: str, output: Path, pairs: tuple[str, ...] = ()) -> list[Job]:
    """Return the runs of a sweep's yaml, each once, trainings before their tests; raises UserError.

    A file is one step, or has `steps`, to which what stands beside them applies too. `pairs` (KEY, VALUE, ...) go to
    every run. Two runs may share a folder only if they are the same.
    """
    register_standard()
    if len(pairs) % 2:
        raise UserError(f"Expected KEY VALUE pairs after --, got an odd number: {' '.join(pairs)}.")
    content = read_yaml(path)
    contents = content.pop("steps", [{}])
    if not isinstance(contents, list) or not contents or not all(isinstance(step, dict) for step in contents):
        raise UserError(f"{path}: expected steps to be a list of steps, each with KEY: value lines.")
    steps = [_Step(path, {**content, **step}, root, output, pairs) for step in contents]
    _check_exclusions(path, steps)
    _check_keys(steps)
    jobs: dict[Path, Job] = {}
    for step in steps:
        for job in step.jobs():
            if jobs.setdefault(job.folder, job) != job:
                raise UserError(
                    f"{path}: two runs that differ would share the folder {job.folder}: give what they differ in as a "
                    "list, so that it goes into the folder's name, or put them into two sweeps with other --output."
                )
    if not jobs:
        raise UserError(f"{path}: there is no run in this sweep: exclude less.")
    return list(jobs.values())


def _check_exclusions(path, steps):
    """Raise UserError for a value of exclude that no step has: mistyped, it would leave nothing out."""
    there: dict[str, dict[str, None]] = {}
    for name, values in itertools.chain(*(step.lists.items() for step in steps)):
        there.setdefault(name, {}).update(dict.fromkeys(map(str, values)))
    for name, values in itertools.chain(*(entry.items() for step in steps for entry in step.exclude)):
        for value in sorted(values - there[name].keys()):
            raise UserError(f'{path}: exclude names {name} "{value}", but that list has {", ".join(there[name])}.')


def _check_keys(steps):
    """Raise UserError for a key that no trainer uses, of all steps for which it is given."""
    trainers: dict[str, dict[str, None]] = {}
    for step in steps:
        for key in step.given_keys():
            trainers.setdefault(key, {}).update(dict.fromkeys(step.axes["trainers"]))
    for key, names in trainers.items():
        check_shared([key], names)


class _Step:
    """One step of a sweep, checked."""

    def __init__(self, path, content, root, output, pairs):
        self.path, self.root, self.output, self.pairs = path, root, output, pairs
        keys = {key: value for key, value in content.items() if str(key).split(".")[0].isupper()}
        for key in content:
            if key not in keys:
                check_choice(f"field of a sweep in {path}", str(key), list(FIELDS), "lower case, config keys in upper")
        self.protocol = str(content.get("protocol") or "")
        check_choice("protocol", self.protocol, list(DESCRIPTIONS), "protocol: in the sweep's file")
        self.axes = {name: self._values(name, content.get(name, DEFAULTS.get(name))) for name in AXES}
        self.fixed = tuple(itertools.chain(*((key, _text(v)) for key, v in keys.items() if not isinstance(v, list))))
        self.key_axes = {
            key: [_text(value) for value in self._values(key, values)]
            for key, values in keys.items()
            if isinstance(values, list)
        }
        self.lists = {**self.axes, **self.key_axes}
        self.targets = ",".join(map(str, _list(content.get("targets") or [])))
        self.exclude = [self._excluded(entry) for entry in _list(content.get("exclude") or [])]
        self._check()

    def _values(self, name, value):
        if value is None or value == []:
            raise UserError(f"{self.path}: expected {name} in every step, a value or a list of values.")
        values = [one if name in ("shots", "seeds") or name not in AXES else str(one) for one in _list(value)]
        least = {"shots": 1, "seeds": 0}.get(name)
        if least is not None and not all(type(number) is int and number >= least for number in values):
            raise UserError(f"{self.path}: expected whole numbers from {least} on for {name}, got {value}.")
        return values

    def _excluded(self, entry):
        if not isinstance(entry, dict) or not entry:
            raise UserError(f"{self.path}: expected each entry of exclude to be like {{trainers: CoOp, shots: 1}}.")
        for name in entry:
            if name not in self.lists:
                known = ", ".join(self.lists)
                raise UserError(f"{self.path}: exclude names {name}, which is no list of this step: use {known}.")
        return {name: {_text(value) for value in _list(values)} for name, values in entry.items()}

    def _check(self):
        for trainer in self.axes["trainers"]:
            check_choice("trainer", trainer, TRAINER_REGISTRY.registered_names(), "trainers: in the sweep's file")
        for config in self.axes["configs"]:
            pairs = (*self.fixed, *self.pairs)
            check_datasets(self.axes["datasets"], Settings(self.root, self.output, (), config, pairs=pairs))
        for kind in self.axes["soft_labels"]:
            if kind not in ("", *KINDS):
                raise UserError(f'{self.path}: expected soft_labels out of {", ".join(KINDS)}, got "{kind}".')
        if self.protocol != "noisy" and self.axes["noise"] != ["none"]:
            raise UserError(f"{self.path}: noise belongs to protocol: noisy, not to {self.protocol}.")
        if self.targets and planner_of(self.protocol) != "transfer":
            raise UserError(
                f"{self.path}: targets belong to crossdataset and domain_generalisation, not to {self.protocol}."
            )
        for noise in self.axes["noise"]:
            if len(noise.replace(",", " ").split()) > 2:
                raise UserError(f'{self.path}: expected a type and a rate, such as sym 0.5, as noise, got "{noise}".')
            list(noise_settings(*_noise(noise)))
        cfg = default_cfg()
        given = itertools.chain(
            zip(self.fixed[::2], self.fixed[1::2], strict=True),
            zip(self.pairs[::2], self.pairs[1::2], strict=True),
            ((key, value) for key, values in self.key_axes.items() for value in values),
        )
        for key, value in given:
            field = "protocol" if (key, self.protocol) == SUBSAMPLED else SET_BY.get(key)
            if field:
                raise UserError(f"{self.path}: {key} is set by {field}: use that, and leave {key} out.")
            merge(cfg, [(key, value)], self.path)

    def given_keys(self) -> list[str]:
        """Return the configuration keys that this step sets."""
        soft_labels = "".join(self.axes["soft_labels"])
        return [*shared_keys((*self.fixed, *self.pairs), soft_labels), *self.key_axes]

    def jobs(self) -> Iterator[Job]:
        """Yield the runs of the product of all axes, less those that `exclude` names."""
        for values in itertools.product(*self.lists.values()):
            chosen = dict(zip(self.lists, values, strict=True))
            if any(all(str(chosen[name]) in out for name, out in entry.items()) for entry in self.exclude):
                continue
            trainer = chosen["trainers"]
            keys = dict(key_value_pairs(used_pairs(trainer, [p for key in self.key_axes for p in (key, chosen[key])])))
            settings = Settings(
                root=self.root,
                output=self.output,
                seeds=(chosen["seeds"],),
                config=chosen["configs"],
                soft_labels=chosen["soft_labels"],
                pairs=(*self.fixed, *itertools.chain(*keys.items()), *self.pairs),
                may_fall_back=False,  # a paper's table must not turn into another backbone's
                label="_".join(f"{key}={value}".replace("/", "-") for key, value in keys.items()),
            )
            kind, rate = _noise(chosen["noise"])
            options = SimpleNamespace(type=kind, rate=rate, targets=self.targets)
            planner = Planner(settings, planner_of(self.protocol), trainer)
            yield from protocol_jobs(planner, self.protocol, options, chosen["datasets"], chosen["shots"])


def _list(value):
    return value if isinstance(value, list) else [value]


def _text(value):
    return value if isinstance(value, str) else repr(value)


def _noise(text):
    """Return type and rate of "sym 0.5" or "none"."""
    kind, _, rate = text.partition(" ")
    return kind, rate or None
