"""A result.json, or what a log tells in its fields, checked and turned into a record of facts."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dspt_atlas.config.effect import reads
from dspt_atlas.config.identities import DIGESTS, identity_of
from dspt_atlas.config.keys import flatten
from dspt_atlas.config.roles import LOCATION_KEYS, role
from dspt_atlas.paths import is_utf8
from dspt_atlas.results.contents import DIGITS
from dspt_atlas.trainers.registry import Pair, pair_of

MEASURES = ("accuracy", "macro_f1")
MOST_CLASSES = 10**6
SUBSAMPLES = ("all", "base", "new")
# Facts that a row always tells where they are not the usual; the others only where rows differ by them.
SPLIT, EPOCH, ORIGIN, CLASSES, NOISE = "split", "epoch", "origin", "trained classes", "noise"
TRAINED_DATA, TESTED_WITH = "trained data", "tested with"
ALWAYS = (SPLIT, EPOCH, ORIGIN, CLASSES, TRAINED_DATA, TESTED_WITH, NOISE)
# What a table's columns, titles and seeds stand for, besides the noise and the data's own keys.
SETTING_KEYS = {"SEED", "DATASET.NAME", "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES", "TEST.SPLIT", "TRAINER.NAME"}
NOISE_SEED = "DATASET.NOISE.SEED"
DATA_SETTINGS = ("DATASET.OWN.SPLIT_SEED", "DATASET.CIFARN.LABELS")
_HASHED = frozenset({str, int, bool, float})
# What only a training reads: of a test its training's values count.
TRAINING_KEYS = ("OPTIM.", "TRAIN.", "DATALOADER.", "DATASET.NOISE.", "TEST.FINAL_MODEL", "INPUT.VIEWS", "INPUT.CACHE")


@dataclass(frozen=True)
class Record:
    """One finished run: `method` is its row's label, `pair` its prompt learner and its method, `dataset`, `noise` and
    `source` what columns and titles say.

    noise: "clean", or type and rate; source: the data set that a transferred model was trained on. `facts` tell rows
    apart, `contents` are (where it lies, digest or None) of data, training data, backbone, noise and initial weights.
    """

    method: str
    config_name: str
    dataset: str
    seed: int
    shots: int
    subsample: str
    noise: str
    source: str | None
    values: dict[str, float] = field(compare=False, hash=False)
    folder: Path = field(compare=False)
    noise_type: str = "none"
    noise_rate: float = 0.0
    is_drawn: bool = False  # the seed was not given: it was drawn, or is not known
    facts: Mapping = field(default_factory=dict, compare=False, repr=False)
    contents: Mapping = field(default_factory=dict, compare=False, repr=False)
    dataset_name: str = ""  # without what tells data sets of one name apart
    pair: Pair = field(default=Pair("", ""), compare=False)
    commit: str = field(default="unknown", compare=False)
    machine: str = field(default="", compare=False)
    archive: Path | None = field(default=None, compare=False, repr=False)  # the file that holds it among others

    @property
    def setting(self) -> tuple:
        """Return what a table's cell stands for."""
        return self.dataset, self.shots, self.subsample, self.noise, self.source


def noise_label(noise: dict | None) -> str:
    """Return "clean", or a noise's type and rate as asked for, and what is unusual: family, per class, a file."""
    if not noise:
        return "clean"
    family = noise.get("family", "relabel")
    words = [family] if family != "relabel" else []
    words += ["per class"] if noise.get("per_class") and family == "relabel" else []
    words += ["file"] if noise.get("file") else []
    return noise_kind(noise["type"], noise["rate"]) + (f" ({', '.join(words)})" if words else "")


def noise_kind(kind: str, rate: float) -> str:
    """Return a noise's type and rate, such as "sym 0.5"."""
    short = f"{rate:g}"
    return f"{kind} {short if float(short) == rate else repr(rate)}"


def to_record(result: dict, folder: Path) -> Record:
    """Return the record of a result; raises ValueError that says which field is not what a run writes."""
    evaluated = _taken(result, "evaluated", dict, None) or {}
    pair = _pair(result)
    learns = pair.learns
    trained = _trained(_taken(evaluated, "trained_on", dict, None)) if learns else None
    config = dict(flatten(_taken(result, "config", dict)))
    own = {name: _text(result, name) for name in ("dataset", "subsample")}
    own |= {name: _integer(result, name) for name in ("seed", "shots")}
    own |= {"noise": _noise(result.get("noise")), "config": config, "identity": _identity(result)}
    if own["subsample"] not in SUBSAMPLES:
        raise ValueError(f"subsample is {own['subsample']!r}, not one of {', '.join(SUBSAMPLES)}")
    training = own | (trained or {})
    training["config"] = {**config, **trained["config"]} if trained else config
    is_test = learns and bool(_text(evaluated, "model_dir", None))
    noise = training["noise"] or {}
    moved = trained and (trained["dataset"] != own["dataset"] or own["subsample"] == "new")
    seed, is_drawn = _seed(training)
    history_of(result)
    if not 0 < _integer(result, "num_classes", 1) < MOST_CLASSES:
        raise ValueError("num_classes is out of range")
    return Record(
        method=_method(result, config, pair),
        config_name=_text(result, "config_name", "") if result.get("config_name") is not None else "",
        dataset=own["dataset"],
        seed=seed,
        shots=max(training["shots"], 0) or -1,
        subsample=own["subsample"],
        noise=noise_label(noise),
        source=trained["dataset"] if moved else None,
        values={name: _percent(result, name) for name in MEASURES},
        folder=folder,
        noise_type=noise.get("type", "none"),
        noise_rate=noise.get("rate", 0.0),
        is_drawn=is_drawn,
        facts=_facts(result, own, training, learns) | (_tested(evaluated, own, training, trained) if is_test else {}),
        contents=_contents(own, training, trained),
        dataset_name=own["dataset"],
        pair=pair,
        commit=str(result.get("commit") or "unknown"),
        machine=_machine(result),
    )


def _machine(result):
    """Return in words on what a run was done, as far as it says so."""
    host, versions = (value if isinstance(value := result.get(name), dict) else {} for name in ("host", "versions"))
    cores, cpu, gpu = (host.get(name) for name in ("cores", "cpu", "gpu"))
    return f"{cores} core{'s' if cores != 1 else ''} of {cpu}, {gpu or 'no GPU'}, torch {versions.get('torch')}"


def history_of(result: dict) -> list[dict]:
    """Return the epochs of a result, each a dict of numbers with its `epoch`; raises ValueError for anything else."""
    history = _taken(result, "history", list, [])
    for entry in history:
        if not (isinstance(entry, dict) and type(entry.get("epoch")) is int and _holds_numbers(entry)):
            raise ValueError("history is not a list of epochs with numbers")
    return history


def _holds_numbers(value, depth=3) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_holds_numbers(entry, depth - 1) for entry in value.values())
    return value is None or isinstance(value, (str, float)) or (isinstance(value, int) and abs(value) < 2**63)


def _taken(content: dict, name: str, kind: type, *default):
    """Return a field of a kind, or the default where it is absent or null; raises ValueError."""
    value = content.get(name)
    if value is None and default:
        return default[0]
    if type(value) is not kind:
        raise ValueError(f"{name} is {'missing' if name not in content else type(value).__name__}, not {kind.__name__}")
    return value


def _text(content, name, *default):
    value = _taken(content, name, str, *default)
    if value is not None and not is_utf8(value):
        raise ValueError(f"{name} is not text")
    return value


def _integer(content, name, *default):
    value = _taken(content, name, int, *default)
    if value is not None and abs(value) >= 2**63:
        raise ValueError(f"{name} is out of range")
    return value


def _number(content, name):
    value = content.get(name)
    if type(value) not in (int, float) or abs(value) > sys.float_info.max:
        raise ValueError(f"{name} is not a number")
    return float(value)


def _percent(content, name):
    value = _number(content, name)
    if not (0 <= value <= 100 or (name != "accuracy" and math.isnan(value))):
        raise ValueError(f"{name} is {value}, not a percentage")
    return value


def _noise(noise):
    if not noise and not isinstance(noise, (list, str)):
        return None
    _taken({"noise": noise}, "noise", dict)
    rate = _number(noise, "rate")
    if not 0 <= rate <= 1:
        raise ValueError(f"the noise's rate is {rate}, not between 0 and 1")
    fields = {"type": _text(noise, "type"), "family": _text(noise, "family", "relabel"), "rate": rate}
    return {**fields, "per_class": _taken(noise, "per_class", bool, False), "file": _text(noise, "file", "")}


def _trained(trained):
    """Return what a tested model was trained on, checked; fields that are not there are the test's own."""
    if trained is None:
        return None
    found = {"dataset": _text(trained, "dataset"), "subsample": _text(trained, "subsample", "")}
    found |= {"shots": _integer(trained, "shots"), "noise": _noise(trained.get("noise"))}
    found["config"] = dict(flatten(_taken(trained, "config", dict, {})))
    if trained.get("seed") is not None:
        found["seed"] = _integer(trained, "seed")
    if trained.get("identity") is not None:
        found["identity"] = _identity(trained)
    return found


def _identity(content):
    _taken(content, "identity", dict, {})
    identity = identity_of(content)
    for name in DIGESTS:
        _text(identity, name, None)
    _integer(identity, "drawn_seed", None)
    revisions = identity["revisions"]
    for name in revisions:
        _integer(revisions, name)
    return identity


def _pair(result):
    """Return prompt learner and method; the trainer's name tells them of a result from before these fields."""
    trainer = _text(result, "trainer")
    named = {name: _text(result, name) for name in Pair._fields if name in result}
    return Pair(**named) if len(named) == len(Pair._fields) else pair_of(trainer)


def _method(result, config, pair):
    trainer = result["trainer"]
    if "atlas" in result or pair.method == "ATLaS":
        return f"{trainer} ({_text(config, 'TRAINER.ATLAS.SOFT_LABELS')})"
    return trainer


def _seed(training):
    """Return the seed, and whether nobody gave it."""
    seed, drawn = training["seed"], training["identity"]["drawn_seed"]
    return (seed, False) if seed >= 0 else (seed if drawn is None else drawn, True)


def _facts(result, own, training, learns):
    """Return {fact: value} of what makes a row: settings, revisions, precision, the split."""
    settings = [item for item in _settings(training["config"]) if reads(result["trainer"], item[0])]
    facts = {key: value for key, value in settings if learns or not key.startswith(TRAINING_KEYS)}
    if not training["noise"]:
        facts.pop(NOISE_SEED, None)
    facts |= {f"{name} revision": revision for name, revision in training["identity"]["revisions"].items()}
    facts["precision"] = _text(result, "precision", None)
    facts["read from"] = _text(result, "read_from", "result.json")
    facts[SPLIT] = _text(result, "split", None) or str(own["config"].get("TEST.SPLIT", "test"))
    facts[NOISE] = "not verified" if result.get("noise_verified") is False and training["noise"] else None
    return {name: value for name, value in facts.items() if value is not None}


def _settings(config):
    """Return (key, hashable value) of the identity keys that rows may differ by."""
    return [
        (key, value if type(value) in _HASHED else str(value)) for key, value in config.items() if _may_tell_apart(key)
    ]


@functools.cache
def _may_tell_apart(key):
    is_noise = key.startswith("DATASET.NOISE.") and key != NOISE_SEED
    is_setting = key in SETTING_KEYS or key in DATA_SETTINGS or key == "TRAINER.ATLAS.SOFT_LABELS"
    return role(key) == "identity" and not is_noise and not is_setting


def _tested(evaluated, own, training, trained):
    """Return the facts of a test: which epoch of which training, and what the test itself had otherwise."""
    epoch = _epoch(evaluated, training["config"])
    facts = {} if epoch is None else {EPOCH: epoch}
    if trained is None:
        return {**facts, ORIGIN: "unknown"}
    expected = "base" if own["subsample"] == "new" else own["subsample"]
    if trained["dataset"] != own["dataset"]:
        expected = "all"
    if trained["subsample"] not in ("", expected):
        facts[CLASSES] = trained["subsample"]
    if others := _tested_otherwise(own, training, trained):
        facts[TESTED_WITH] = others
    identities = own["identity"], training["identity"]
    if trained["dataset"] == own["dataset"] and _differ(*(identity["data"] for identity in identities)):
        facts[TRAINED_DATA] = identities[1]["data"]
    return facts


def _tested_otherwise(own, training, trained):
    """Return in words what a test had otherwise than its training, where tests read it."""
    config = own["config"]
    others = {key: config[key] for key, value in trained["config"].items() if config.get(key, value) != value}
    trainer = config.get("TRAINER.NAME")
    words = [
        f"{key}={value}"
        for key, value in _settings(others)
        if reads(trainer, key) and not key.startswith(TRAINING_KEYS)
    ]
    identities = own["identity"], training["identity"]
    for name, revision in identities[0]["revisions"].items():
        if revision != identities[1]["revisions"].get(name):
            words.append(f"{name} revision {revision}")
    if _differ(*(identity["backbone"] for identity in identities)):
        words.append(f"weights {identities[0]['backbone'][:DIGITS]}")
    return ", ".join(sorted(words))


def _differ(*digests):
    return None not in digests and digests[0] != digests[1]


def _epoch(evaluated, config):
    """Return the epoch that was tested, None where it is the one that the training chose."""
    asked, tested = _integer(evaluated, "epoch", None), _integer(evaluated, "tested_epoch", None)
    is_final = _taken(evaluated, "is_final", bool, None)
    if is_final is None:
        is_final = asked is None or asked == config.get("OPTIM.MAX_EPOCH")
    return None if is_final else tested if tested is not None else asked if asked is not None else "unknown"


def _contents(own, training, trained):
    """Return {kind: (where it lies, digest or None)} of what a digest tells."""
    test, train = own["identity"], training["identity"]
    found = {"data": (_place(own["config"]), test["data"])}
    if trained is not None:
        digest = train["data"] if "identity" in trained else None
        found["source"] = (_place(training["config"]), digest)
    for key, kind in LOCATION_KEYS.items():
        if kind != "data":
            place = str(training["config"].get(key) or "")
            digest = train[kind]
            if kind == "backbone" and digest is None and place == own["config"].get(key):
                digest = test[kind]
            found[kind] = (place, digest)
    return found


def _place(config):
    """Return where one's own data lie, "" for a data set that a name tells, with what chooses among their labels."""
    own = [str(config.get(key) or "") for key, kind in LOCATION_KEYS.items() if kind == "data"]
    if own[0] and not own[0].startswith(("/", "~")) and isinstance(config.get("DATASET.ROOT"), str):
        own[0] = f"{config['DATASET.ROOT']}/{own[0]}"
    choices = [str(config[key]) for key in DATA_SETTINGS if key in config] if any(own) else []
    return json.dumps([*own, *choices]) if any(own) else ""
