"""A result.json, or a log in its fields, is checked and becomes a row of facts."""

from __future__ import annotations

import functools
import json
import marshal
import math
import sys

from dspt_atlas.config.roles import LOCATION_KEYS, data_keys, role
from dspt_atlas.datasets.noise import LISTED, MATRIX, OWN
from dspt_atlas.keys.declare import as_read, flatten, needs_training, with_defaults
from dspt_atlas.keys.identities import DIGESTS, identity_of
from dspt_atlas.paths import is_utf8
from dspt_atlas.trainers.measures import ACCURACY, MEASURES

MOST_CLASSES = 10**6
SUBSAMPLES = ("all", "base", "new")
DIGITS = 6  # of a digest, in words
# A row always says these if they are not as usual (""), besides the differences between rows.
ALWAYS = ("split", "epoch", "origin", "trained_classes", "trained_data", "tested_with", "noise_state")
# A table's columns, titles and seeds stand for these, besides the noise and the data's own keys.
SETTING_KEYS = {"SEED", "DATASET.NAME", "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES", "TEST.SPLIT", "TRAINER.NAME"}
SOFT_LABELS, NOISE_SEED = "TRAINER.ATLAS.SOFT_LABELS", "DATASET.NOISE.SEED"
DATA_SETTINGS = tuple(key for key in data_keys() if role(key) == "identity" and key not in SETTING_KEYS)
# Only a training reads these; in a test, the values of its training count.
TRAINING_KEYS = (
    *("OPTIM.", "TRAIN.", "LOSS.", "DATALOADER.", "DATASET.NOISE."),
    *("TEST.FINAL_MODEL", "INPUT.VIEWS", "INPUT.CACHE"),
)
CONTENTS = ("data", "source", "backbone", "noise", "init_weights")  # these have a digest
PARTS = ("place", "digest")
COLUMNS = (
    "row", "stem", "trainer", "learner", "method", "nodes", "learns", "is_test", "config_name", "dataset",
    "dataset_name", "subsample", "shots", "noise", "noise_type", "noise_family", "noise_rate", "source", "seed",
    "is_drawn", *MEASURES, "functions", "num_classes", "has_soft_labels", "backbone", *ALWAYS, "facts",
    *(f"{what}_{part}" for what in CONTENTS for part in PARTS), "commit", "machine", "folder", "file", "double_of",
)  # fmt: skip
_HASHED = frozenset({str, int, bool, float})


def noise_label(noise: dict | None) -> str:
    """Return "clean", or a noise's type and rate as asked for, and what is unusual: family, per class, a file.

    What a table or a list makes wrong among a run's training images has another rate for each seed, so it is left out.
    """
    if not noise:
        return "clean"
    family = noise.get("family", "relabel")
    words = [family] if family not in ("relabel", noise["type"]) else []
    words += ["per class"] if noise.get("per_class") and family == "relabel" else []
    words += ["file"] if noise.get("file") or family in (OWN, MATRIX, LISTED) else []
    name = noise["type"] if family in (OWN, LISTED) else noise_kind(noise["type"], noise["rate"])
    return name + (f" ({', '.join(words)})" if words else "")


def noise_kind(kind: str, rate: float) -> str:
    """Return a noise's type and rate, such as "sym 0.5"."""
    short = f"{rate:g}"
    return f"{kind} {short if float(short) == rate else repr(rate)}"


def to_row(result: dict) -> dict:
    """Return the facts of a result by column; raises ValueError that names a field that a run cannot have written.

    Its row's label begins with `stem`. `dataset`, `noise` and `source` (the data set that a transferred model was
    trained on) are for columns and titles. Rows may differ by `facts`. `<what>_place` and `<what>_digest` are place and
    content of data, the training's data, backbone, noise and initial weights.
    """
    own, pair = _own(result), _pair(result)
    learns = pair["learner"] != "ZeroshotCLIP"
    evaluated = _taken(result, "evaluated", dict, None) or {}
    trained = _trained(_taken(evaluated, "trained_on", dict, None)) if learns else None
    training = own | (trained or {})
    own["config"], training["config"], settings = _configs(_taken(result, "config", dict), trained)
    is_test = bool(_taken(evaluated, "model_dir", str, None))
    noise = training["noise"] or {}
    moved = trained and (trained["dataset"] != own["dataset"] or own["subsample"] == "new")
    is_unverified = result.get("noise_verified") is False and noise
    return {
        "stem": _stem(result, own["config"], pair),
        "trainer": result["trainer"],
        **pair,
        "learns": learns,
        "is_test": is_test,
        "config_name": _taken(result, "config_name", str, ""),
        "dataset": own["dataset"],
        "dataset_name": own["dataset"],  # without the words that distinguish data sets of one name
        "subsample": own["subsample"],
        "shots": max(training["shots"], 0) or -1,
        "noise": noise_label(noise),
        "noise_type": noise.get("type", "none"),
        "noise_family": noise.get("family", "none"),
        "noise_rate": noise.get("rate", 0.0),
        "source": trained["dataset"] if moved else None,
        **_seed(training),
        **{name: _percent(result, name) for name in MEASURES},
        "functions": _texts(result, "measures"),
        "num_classes": result.get("num_classes"),
        "has_soft_labels": "atlas" in result,
        **dict.fromkeys(ALWAYS, ""),
        "split": _taken(result, "split", str, None) or str(own["config"].get("TEST.SPLIT", "test")),
        "noise_state": "not verified" if is_unverified else "",
        **(_tested(result, evaluated, own, training, trained, pair) if is_test and learns else {}),
        "facts": _facts(result, training["identity"], settings),
        **_contents(own, training, trained),
        "commit": str(result.get("commit") or "unknown"),
        "machine": _machine(result),
    }


def _own(result) -> dict:
    """Return the checked fields that a training has too."""
    own = {name: _taken(result, name, str) for name in ("dataset", "subsample")}
    own |= {name: _taken(result, name, int) for name in ("seed", "shots")}
    if own["subsample"] not in SUBSAMPLES:
        raise ValueError(f"subsample is {own['subsample']!r}, not one of {', '.join(SUBSAMPLES)}")
    if not 0 < _taken(result, "num_classes", int, 1) < MOST_CLASSES:
        raise ValueError("num_classes is out of range")
    history_of(result)
    return own | {"noise": _noise(result.get("noise")), "identity": _identity(result)}


def history_of(result: dict) -> list[dict]:
    """Return the epochs of a result, each a dict of numbers with its `epoch`; raises ValueError for anything else."""
    history = _taken(result, "history", list, [])
    for entry in history:
        if not (isinstance(entry, dict) and type(entry.get("epoch")) is int and _holds_numbers(entry)):
            raise ValueError("history is not a list of epochs with numbers")
    return history


def _holds_numbers(entry, depth=3) -> bool:
    for value in entry.values():
        if type(value) is float or value is None or type(value) is str:
            continue
        if isinstance(value, dict):
            if depth == 0 or not _holds_numbers(value, depth - 1):
                return False
        elif not isinstance(value, int) or abs(value) >= 2**63:
            return False
    return True


def _taken(content: dict, name: str, kind: type, *default):
    """Return a field of a kind, or the default if it is absent or null; raises ValueError."""
    value = content.get(name)
    if value is None and default:
        return default[0]
    if type(value) is not kind:
        raise ValueError(f"{name} is {'missing' if name not in content else type(value).__name__}, not {kind.__name__}")
    if kind is str and not is_utf8(value):
        raise ValueError(f"{name} is not text")
    if kind is int and abs(value) >= 2**63:
        raise ValueError(f"{name} is out of range")
    return value


def _texts(content, name):
    """Return {name: text} of a field, {} without it."""
    found = _taken(content, name, dict, {})
    return {key: _taken(found, key, str) for key in found}


def _number(content, name):
    value = content.get(name)
    if type(value) not in (int, float) or abs(value) > sys.float_info.max:
        raise ValueError(f"{name} is not a number")
    return float(value)


def _percent(content, name):
    if name not in content and name != ACCURACY.name:
        return math.nan
    value = _number(content, name)
    if not (0 <= value <= 100 or (name != ACCURACY.name and math.isnan(value))):
        raise ValueError(f"{name} is {value}, not a percentage")
    return value


def _noise(noise):
    if not noise and not isinstance(noise, (list, str)):
        return None
    _taken({"noise": noise}, "noise", dict)
    rate = _number(noise, "rate")
    if not 0 <= rate <= 1:
        raise ValueError(f"the noise's rate is {rate}, not between 0 and 1")
    fields = {"type": _taken(noise, "type", str), "family": _taken(noise, "family", str, "relabel"), "rate": rate}
    return {**fields, "per_class": _taken(noise, "per_class", bool, False), "file": _taken(noise, "file", str, "")}


def _trained(trained):
    """Return the checked training data of a tested model; missing fields are the test's own."""
    if trained is None:
        return None
    found = {"dataset": _taken(trained, "dataset", str), "subsample": _taken(trained, "subsample", str, "")}
    found |= {"shots": _taken(trained, "shots", int), "noise": _noise(trained.get("noise"))}
    found["config"] = dict(flatten(_taken(trained, "config", dict, {})))
    if trained.get("seed") is not None:
        found["seed"] = _taken(trained, "seed", int)
    if trained.get("identity") is not None:
        found["identity"] = _identity(trained)
    return found


def _identity(content):
    _taken(content, "identity", dict, {})
    identity = identity_of(content)
    for name in DIGESTS:
        _taken(identity, name, str, None)
    _taken(identity, "templates", str, None)
    _taken(identity, "drawn_seed", int, None)
    for name in identity["revisions"]:
        _taken(identity["revisions"], name, int)
    return identity


def _pair(result):
    """Return prompt learner, method, and the groups of keys that they read (None if that is not known).

    In an older result without these fields, the trainer's name gives them.
    """
    trainer = _taken(result, "trainer", str)
    nodes = {"nodes": None if _taken(result, "nodes", list, None) is None else tuple(map(str, result["nodes"]))}
    if "learner" in result and "method" in result:
        return {name: _taken(result, name, str) for name in ("learner", "method")} | nodes
    from dspt_atlas.trainers.registry import pair_of  # it imports torch, which takes longer than reading 1,000 results

    return pair_of(trainer)._asdict() | nodes


def _stem(result, config, pair):
    if "atlas" in result or pair["method"] == "ATLaS":
        return f"{result['trainer']} ({_taken(config, SOFT_LABELS, str)})"
    return result["trainer"]


def _seed(training):
    """Return the seed, and whether nobody gave it: it was drawn, or is not known."""
    seed, drawn = training["seed"], training["identity"]["drawn_seed"]
    return {"seed": seed if seed >= 0 or drawn is None else drawn, "is_drawn": seed < 0}


def _machine(result):
    """Return the environment of a run in words, as far as it is known."""
    host, versions = (value if isinstance(value := result.get(name), dict) else {} for name in ("host", "versions"))
    cores, cpu, gpu = (host.get(name) for name in ("cores", "cpu", "gpu"))
    return f"{cores} core{'s' if cores != 1 else ''} of {cpu}, {gpu or 'no GPU'}, torch {versions.get('torch')}"


_CONFIGS: dict[bytes, tuple] = {}  # most runs share few configurations
_FACTS: dict[tuple, dict] = {}  # and share facts, which are then compared once


def _configs(config, trained):
    """Return the flat configurations of a run and its training, without keys that differ in each run, and settings."""
    own = {name: value for name, value in config.items() if name not in ("SEED", "OUTPUT_DIR")}
    others = trained["config"] if trained else None
    key = marshal.dumps((own, others), 2)
    if key not in _CONFIGS:
        flat = dict(flatten(own))
        training = flat if others is None else {**flat, **others}
        _CONFIGS[key] = flat, training, _settings(as_read(with_defaults(training)) if training else {})
    return _CONFIGS[key]


def _facts(result, identity, settings):
    """Return {fact: value} that rows may differ by: settings, revisions, precision; equal facts are one object."""
    revisions = tuple((f"{name} revision", revision) for name, revision in identity["revisions"].items())
    precision, read_from = _taken(result, "precision", str, None), _taken(result, "read_from", str, "result.json")
    templates = identity["templates"] or "as declared"  # as in older results
    key = (id(settings), revisions, precision, read_from, templates)
    if key not in _FACTS:
        facts = {**dict(settings), **dict(revisions), "precision": precision, "read from": read_from}
        facts["templates"] = templates
        _FACTS[key] = {name: value for name, value in facts.items() if value is not None}
    return _FACTS[key]


def _settings(config):
    """Return (key, hashable value) of the identity keys that rows may differ by."""
    return [(key, comparable(value)) for key, value in config.items() if _may_tell_apart(key)]


def comparable(value):
    """Return a key's value as facts have it: hashable."""
    return value if type(value) in _HASHED else str(value)


@functools.cache
def _may_tell_apart(key):
    is_noise = key.startswith("DATASET.NOISE.") and key != NOISE_SEED
    is_setting = key in SETTING_KEYS or key in DATA_SETTINGS or key == SOFT_LABELS
    return role(key) == "identity" and not is_noise and not is_setting


@functools.cache
def depends_on(trainer: str, learner: str, method: str, nodes: tuple[str, ...] | None, key: str) -> bool:
    """Return whether a run of a trainer can depend on a configuration key; True for anything that is not a key.

    nodes: the groups TRAINER.<NODE> that it reads, None for an older result.
    """
    learns = learner != "ZeroshotCLIP"
    if not learns and key.startswith(TRAINING_KEYS):
        return False
    node = key.split(".")[1] if key.startswith("TRAINER.") else ""
    if not node:
        return learns or not needs_training(key)
    if node in (nodes or (learner.upper(), method.upper())):
        return True
    if nodes is not None:
        return False
    from dspt_atlas.config.effect import reads  # it imports torch and is rarely needed

    return reads(trainer, key)


def _tested(result, evaluated, own, training, trained, pair):
    """Return the facts of a test: its training, the epoch, and other settings of the test itself."""
    facts = {"epoch": _epoch(evaluated, training["config"])}
    if trained is None:
        return {**facts, "origin": "unknown"}
    expected = "base" if own["subsample"] == "new" else own["subsample"]
    if trained["dataset"] != own["dataset"]:
        expected = "all"
    if trained["subsample"] not in ("", expected):
        facts["trained_classes"] = trained["subsample"]
    facts["tested_with"] = _tested_otherwise(result, own, training, trained, pair)
    identities = own["identity"], training["identity"]
    if trained["dataset"] == own["dataset"] and _differ(*(identity["data"] for identity in identities)):
        facts["trained_data"] = identities[1]["data"]
    return facts


def _tested_otherwise(result, own, training, trained, pair):
    """Return in words the settings of a test that differ from its training and that tests read."""
    config = own["config"]
    others = {key: config[key] for key, value in trained["config"].items() if config.get(key, value) != value}
    words = [
        f"{key}={value}"
        for key, value in _settings(others)
        if not key.startswith(TRAINING_KEYS) and depends_on(result["trainer"], **pair, key=key)
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
    """Return the tested epoch as text, or "" if it is the one that the training chose."""
    asked, tested = _taken(evaluated, "epoch", int, None), _taken(evaluated, "tested_epoch", int, None)
    is_final = _taken(evaluated, "is_final", bool, None)
    if is_final is None:
        is_final = asked is None or asked == config.get("OPTIM.MAX_EPOCH")
    return "" if is_final else str(next((epoch for epoch in (tested, asked) if epoch is not None), "unknown"))


def _contents(own, training, trained):
    """Return the place of a content, and its digest or None."""
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
            if place or kind not in found:  # several keys may name the noise's file
                found[kind] = (place, digest)
    return {f"{kind}_{part}": value for kind, pair in found.items() for part, value in zip(PARTS, pair, strict=True)}


def _place(config):
    """Return the place of your own data and the choice of its labels, or "" for a data set known by its name."""
    own = [str(config.get(key) or "") for key, kind in LOCATION_KEYS.items() if kind == "data"]
    if own[0] and not own[0].startswith(("/", "~")) and isinstance(config.get("DATASET.ROOT"), str):
        own[0] = f"{config['DATASET.ROOT']}/{own[0]}"
    choices = [str(config[key]) for key in DATA_SETTINGS if key in config] if any(own) else []
    return json.dumps([*own, *choices]) if any(own) else ""
