"""One step of a plan: axes, whose product is run, and the runs of each combination."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas.config.benchmarks import EMBEDDED
from dspt_atlas.config.build import merge
from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.config.effect import say, used_pairs
from dspt_atlas.config.files import choose_config, config_path, dataset_path, named_root, root_argument
from dspt_atlas.config.reading import check_choice, dataset_name, is_yaml, key_value_pairs
from dspt_atlas.datasets.noise import FAMILIES, check_noise
from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.paths import expand_home
from dspt_atlas.plan.planner import NOISE_TYPES, Shape, named_file, placed
from dspt_atlas.trainers.declare import LEARNERS, METHODS
from dspt_atlas.trainers.registry import NO_METHOD, pair_of
from dspt_atlas.trainers.soft_labels import KINDS

# Each is a value or a list of values; their product without `exclude` is run. Configuration keys are axes too.
NOISE_FILES = {"own": "DATASET.NOISE.FILE", "matrix": "DATASET.NOISE.MATRIX"}
AXES = ("datasets", "trainers", "configs", "shots", "noise", "soft_labels", "seeds")
FIELDS = ("protocol", "train", "tests", *AXES, "learners", "methods", "targets", "exclude", "label", "part", "needs")
# A field or an option sets these keys; set in another way, they would not agree with the folder's name.
SET_BY = {
    "SEED": "seeds",
    "OUTPUT_DIR": "--output",
    "TRAINER.NAME": "trainers",
    "DATASET.NAME": "datasets",
    "DATASET.NUM_SHOTS": "shots",
    "DATASET.NOISE.TYPE": "noise",
    "DATASET.NOISE.RATE": "noise",
}
DEFAULTS = {"configs": [""], "shots": [16], "noise": ["none"], "soft_labels": [""], "seeds": [1, 2, 3]}
LEAST = {"shots": 1, "seeds": 0}
SOFT_LABELS = "TRAINER.ATLAS.SOFT_LABELS"
OPTIONS = {"datasets": "--dataset", "trainers": "--trainer", "configs": "--config", "soft_labels": "--soft-labels"}
_NOISE_FILE = re.compile(rf"({'|'.join(NOISE_FILES)})[\s,]+(\S.*)")
_FIELD = re.compile(r"\{([\w.]+)\}")


class Step:
    """A step, checked; raises UserError. given: the fields that the command line gives."""

    def __init__(self, path, content, shape, root, output, pairs, may_fall_back, given=()):
        self.path, self.shape, self.root, self.output, self.pairs = path, shape, root, output, pairs
        self.may_fall_back, self.part, self.given = may_fall_back, str(content.get("part") or ""), given
        keys = _keys(content)
        for key in content:
            if key not in keys:
                check_choice(f"field of a plan in {path}", str(key), list(FIELDS), "lower case, config keys in upper")
        if not shape.train.get("folder"):
            check_choice("protocol", "", ["noisy", "fewshot", "base2new", "transfer"], "protocol: in the plan's file")
        content = {**content, "trainers": _trainers(content)}
        self.axes = {name: self._values(name, content.get(name, DEFAULTS.get(name))) for name in AXES}
        alone = {key: placed(path, key, value) for key, value in keys.items() if not isinstance(value, list)}
        self.fixed = tuple(itertools.chain(*((key, _text(value)) for key, value in alone.items())))
        self.key_axes = {
            key: [_text(value) for value in self._values(key, values)]
            for key, values in keys.items()
            if isinstance(values, list)
        }
        self.label, self.needs = content.get("label"), content.get("needs")
        axes = dict(self.axes)
        seeds = axes.pop("seeds")
        self.lists = {**axes, **self.key_axes, "seeds": seeds}
        self.exclude = [self._excluded(entry) for entry in _list(content.get("exclude") or [])]
        self._check(content)
        self._noise_folders = noise_folders(self.axes["noise"])
        self._configs: dict[tuple, Path] = {}

    def _values(self, name, value):
        if value is None or value == []:
            raise UserError(f"{self.path}: expected {name} in every step, a value or a list of values.")
        values = [one if name in LEAST or name not in AXES else self._named(name, one) for one in _list(value)]
        least = LEAST.get(name)
        if least is not None and not all(type(number) is int and number >= least for number in values):
            raise UserError(f"{self._expected(name)} to be whole numbers from {least} on, got {value}.")
        return values

    def _expected(self, name):
        """Return the beginning of a refusal of a field: where somebody has given it."""
        return f"Expected {_option(name)}" if name in self.given else f"{self.path}: expected {name}"

    def _named(self, axis, value):
        """Return a value of an axis as text: a data set in one spelling, a file by its absolute path."""
        text, expected = _text(value), self._expected(axis)
        if axis == "noise" and (found := noise_file(text)):
            return f"{found[0]} {named_file(self.path, found[1], expected)}"
        if axis in ("datasets", "configs") and is_yaml(text):
            text = str(named_file(self.path, text, expected))
        return dataset_name(text) if axis == "datasets" else text

    def _excluded(self, entry):
        if not isinstance(entry, dict) or not entry:
            raise UserError(f"{self.path}: expected each entry of exclude to be like {{trainers: CoOp, shots: 1}}.")
        for name in entry:
            if name not in self.lists:
                known = ", ".join(self.lists)
                raise UserError(f"{self.path}: exclude names {name}, which is not a list of this step: use {known}.")
        return {name: {self._named(name, value) for value in _list(values)} for name, values in entry.items()}

    def _check(self, content):
        for trainer in self.axes["trainers"]:
            check_choice("trainer", trainer, TRAINER_REGISTRY.registered_names(), "trainers: or --trainer")
        for config in self.axes["configs"]:
            self._check_datasets(self.axes["datasets"], config)
        for kind in self.axes["soft_labels"]:
            if kind not in ("", *KINDS):
                raise UserError(f'{self._expected("soft_labels")} to be one of {", ".join(KINDS)}, got "{kind}".')
        if not self.shape.has_noise and self.axes["noise"] != ["none"]:
            raise UserError(
                f"{self._expected('noise')} with protocol: noisy alone, not with {self.path.stem}, whose folders do "
                "not name it: leave it out."
            )
        if content.get("targets") and not self.shape.has_targets:
            raise UserError(
                f"{self._expected('targets')} with transfer, crossdataset and domain_generalisation alone, not with "
                f"{self.path.stem}: leave it out."
            )
        for noise in self.axes["noise"]:
            noise_of(noise)
        self._check_given()

    def _check_datasets(self, names, config):
        """Raise UserError if a data set has no yaml, or if there is no folder for data sets that are not embedded."""
        pairs = (*self.fixed, *self.pairs)
        for name in names:
            dataset_path(name)
            if name not in EMBEDDED and not self.needs:  # Plan.why_skipped looks for what it needs
                root = self.root or named_root(name, config, pairs) or root_argument(name, config, "", pairs)
                if not expand_home(root).is_dir():
                    raise UserError(
                        f"Expected the folder of the data sets at {root}, which is not a folder: set --root or DATA."
                    )
        if self.root and {*names} <= {*EMBEDDED}:
            say(f"--root has no effect with {', '.join(names)}: the images come with the package.")

    def _check_given(self):
        """Raise UserError for an unknown configuration key, or for one that is set in another way."""
        cfg = default_cfg()
        own = {key: "protocol" for run in (self.shape.train, *self.shape.tests) for key in _keys(run)}
        in_plan = [*key_value_pairs(self.fixed), *((key, one) for key, axis in self.key_axes.items() for one in axis)]
        for source, pairs in ((self.path, in_plan), ("the command line", key_value_pairs(self.pairs))):
            for key, value in pairs:
                if set_by := {**SET_BY, **own}.get(key):
                    raise UserError(f"{source}: {key} is set by {set_by}: use that, and leave {key} out.")
                merge(cfg, [(key, value)], source)

    def given_keys(self) -> list[str]:
        """Return the configuration keys that this step sets in the runs of several trainers."""
        soft_labels = [SOFT_LABELS] if any(self.axes["soft_labels"]) else []
        return [*self.fixed[::2], *self.pairs[::2], *soft_labels, *self.key_axes]

    def jobs(self) -> Iterator[Job]:
        """Yield the runs of the product of all axes without those that `exclude` names."""
        for values in itertools.product(*self.lists.values()):
            chosen = dict(zip(self.lists, values, strict=True))
            if not any(all(str(chosen[name]) in out for name, out in entry.items()) for entry in self.exclude):
                yield from self._combination(chosen)

    def _combination(self, chosen):
        """Yield the training of one combination, and the tests of its model."""
        dataset, trainer = chosen["datasets"], chosen["trainers"]
        keys = key_value_pairs(used_pairs(trainer, [part for key in self.key_axes for part in (key, chosen[key])]))
        values = [(key, placed(self.path, key, value)) for key, value in keys]
        soft_labels = chosen["soft_labels"] if pair_of(trainer).method == "ATLaS" else ""
        config = self._config(chosen)
        label = "_".join(f"{key}={value}" for key, value in keys) if self.label is None else _fill(self.label, chosen)
        named = {
            "dataset": Path(dataset).stem,
            "trainer": trainer,
            "shots": chosen["shots"],
            "seed": chosen["seeds"],
            "config": "_".join(filter(None, (config.stem, soft_labels, label.replace("/", "-")))),
            "noise": self._noise_folders[chosen["noise"]],
        }
        pairs = [*self.fixed, *itertools.chain(*values), *self.pairs]
        end = (*((SOFT_LABELS, soft_labels) if soft_labels else ()), *used_pairs(trainer, pairs))
        train, *tests = self._runs(chosen, named)
        for (folder, target, own), model_dir in ((train, ""), *((test, train[0]) for test in tests)):
            options = self._options(target, config, trainer, chosen["seeds"], folder, model_dir)
            pairs = ("DATASET.NUM_SHOTS", str(chosen["shots"]), *used_pairs(trainer, own), *end)
            yield Job(folder, (*options, *pairs), self.part)

    def _runs(self, chosen, named):
        """Yield (folder, data set, KEY VALUE pairs) of the training and of each test."""
        for run in (self.shape.train, *self.shape.tests):
            template, dataset = run["folder"], chosen["datasets"]
            pairs = noise_pairs(chosen["noise"]) if "{noise}" in template else []
            pairs += itertools.chain(*((key, _text(value)) for key, value in _keys(run).items()))
            for target in self._targets(dataset) if "{target}" in template else (dataset,):
                yield self.output / _fill(template, {**named, "target": Path(target).stem}), target, pairs

    def _options(self, dataset, config, trainer, seed, folder, model_dir):
        """Return train.py's options of a run."""
        options = ["--dataset-config-file", str(dataset_path(dataset)), "--config-file", str(config)]
        options += ["--trainer", trainer, "--seed", str(seed), "--output-dir", str(folder)]
        if dataset not in EMBEDDED:
            root = root_argument(dataset, str(config), self.root, (*self.fixed, *self.pairs))
            options += ["--root", root] if root else []
        return [*options, "--eval-only", "--model-dir", str(model_dir)] if model_dir else options

    def _targets(self, source):
        targets = self.shape.targets
        if isinstance(targets, dict):
            targets = {dataset_name(str(name)): listed for name, listed in targets.items()}.get(source)
        if not targets:
            others = f", or use one of {', '.join(self.shape.targets)}" if self.shape.targets else ""
            raise UserError(f"There are no targets for the source {source}: give them by --targets{others}.")
        return [dataset_name(str(target)) for target in _list(targets)]

    def _config(self, chosen):
        """Return the yaml of a combination's configuration; equal combinations choose once."""
        trainer, dataset, shots = chosen["trainers"], chosen["datasets"], chosen["shots"]
        key = trainer, dataset, shots, chosen["configs"]
        if key not in self._configs:
            pairs = (*self.fixed, *self.pairs)
            named = chosen["configs"]
            self._configs[key] = (
                config_path(trainer, named)
                if named
                else choose_config(self.shape.names, trainer, dataset, shots, pairs, self.may_fall_back)
            )
        return self._configs[key]


def table_folders(shape: Shape, jobs: list[Job], output: Path) -> Iterator[Path]:
    """Yield the topmost folders of a shape's runs with only one data set or protocol."""
    datasets = {Path(job.option("--dataset-config-file")).stem: None for job in jobs if job.trained_in == job.folder}
    for run in filter(None, (shape.train, *shape.tests)):
        is_shared = itertools.takewhile(lambda part: "{" not in part or part == "{dataset}", run["folder"].split("/"))
        template = "/".join(is_shared)
        for dataset in datasets:
            yield output / _fill(template, {"dataset": dataset})


def noise_of(text: str) -> tuple[str, float]:
    """Return type and rate of "sym 0.5", "none", "own FILE" or "matrix FILE"; raises UserError."""
    if found := noise_file(text):
        return found[0], 0.0
    kind, *rest = _words(text) or [""]
    if kind not in NOISE_TYPES:
        raise UserError(
            f'Expected a noise type out of {", ".join(NOISE_TYPES)}, or own FILE or matrix FILE, got "{kind}".'
        )
    if len(rest) > 1:
        raise UserError(f'Expected a type and a rate, such as sym 0.5, as noise, got "{text}".')
    if kind == "none" and not rest:
        return kind, 0.0
    if not rest:
        raise UserError(f"The noise type {kind} needs a rate from 0 to below 1, such as 0.5.")
    try:
        rate = float(rest[0])
    except ValueError:
        raise UserError(f'Expected a noise rate from 0 to below 1, such as 0.5, got "{rest[0]}".') from None
    check_noise("swap" if kind in FAMILIES["swap"] else "relabel", kind, rate)
    if kind == "none" and rate:
        raise UserError(
            f"The noise rate is {rest[0]}, but with the type none all labels stay right: give another type, or leave "
            "out the rate."
        )
    return kind, rate


def noise_file(text: str) -> tuple[str, str] | None:
    """Return the kind and the path of "own FILE" or "matrix FILE", None for another noise."""
    match = _NOISE_FILE.fullmatch(str(text).strip())
    return (match[1], match[2]) if match else None


def noise_folder(text: str, parents: int = 0, is_whole: bool = False) -> str:
    """Return the words for a noise in a folder's name: clean, sym_0.5, or own_ and the file's name.

    parents: so many names of the folders above stand before the file's; is_whole: its extension stands there, too.
    """
    if found := noise_file(text):
        path = Path(found[1])
        above = path.parts[max(len(path.parts) - 1 - parents, 1) : -1]
        return "_".join([found[0], *above, path.name.replace(".", "_") if is_whole else path.stem])
    kind, rate = noise_of(text)
    return "clean" if kind == "none" else f"{kind}_{rate:g}"


def noise_folders(texts: Collection[str]) -> dict[str, str]:
    """Return {noise: its words in a folder's name}: of files with one name with as much of the path as they need."""
    folders = {text: noise_folder(text) for text in texts}
    files = [text for text in folders if noise_file(text)]
    for text in files:
        alike = [other for other in files if other != text and noise_folder(other) == noise_folder(text)]
        for is_whole, parents in itertools.product((False, True), range(len(Path(text).parts))):
            folders[text] = noise_folder(text, parents, is_whole)
            if folders[text] not in {noise_folder(other, parents, is_whole) for other in alike}:
                break
    return folders


def noise_pairs(text: str) -> list[str]:
    """Return the KEY VALUE pairs of a noise such as "sym 0.5" or "none"."""
    if found := noise_file(text):
        return [NOISE_FILES[found[0]], found[1]]
    kind, rate = noise_of(text)
    pairs = ["DATASET.NOISE.TYPE", kind]
    pairs += [] if kind == "none" else ["DATASET.NOISE.RATE", f"{rate:g}"]
    return pairs + (["DATASET.NOISE.FAMILY", "swap"] if kind in FAMILIES["swap"] else [])


def _trainers(content):
    """Return the trainers of a step: the given ones, or each of its learners with each of its methods.

    learners or methods may be "all", which are all that are declared, in the pairs that go together.
    """
    if "trainers" in content or "learners" not in content:
        return content.get("trainers")
    chosen = {"learners": content["learners"], "methods": content.get("methods", NO_METHOD)}
    declared = {"learners": LEARNERS, "methods": {NO_METHOD: None, **METHODS}}
    learners, methods = (list(declared[name]) if value == "all" else _list(value) for name, value in chosen.items())
    pairs = [f"{learner}{'' if method == NO_METHOD else method}" for learner in learners for method in methods]
    if "all" in chosen.values():
        return [trainer for trainer in pairs if trainer in TRAINER_REGISTRY.registered_names()]
    return pairs


def _keys(content: dict) -> dict:
    """Return the lines of a yaml that are configuration keys."""
    return {key: value for key, value in content.items() if str(key).split(".")[0].isupper()}


def _words(text: str) -> list[str]:
    return str(text).replace(",", " ").split()


def _fill(template: str, values: dict) -> str:
    """Put values, by their names, into {braces}; raises UserError for another name."""
    if unknown := set(_FIELD.findall(template)) - values.keys():
        raise UserError(f"Expected {template} to name some of {', '.join(values)} in braces, got {', '.join(unknown)}.")
    return _FIELD.sub(lambda match: str(values[match[1]]), template)


def _list(value):
    return value if isinstance(value, list) else [value]


def _option(name):
    return OPTIONS.get(name, f"--{name}")


def _text(value):
    return value if isinstance(value, str) else repr(value)
