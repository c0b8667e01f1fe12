"""What makes a run the run that it is: identity keys, data, backbone, noise, revisions; compared as data, told in words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

# What is noted, not what is learned.
OBSERVING_KEYS = {
    "TEST.NEW_CLASSES",
    "TEST.PERIOD",
    "TEST.COMPUTE_CMAT",
    "TEST.PER_CLASS_RESULT",
    "TRAIN.GRADIENT_PROFILE",
}
# Where and how fast it is computed, what is kept and printed on the way.
MACHINE_KEYS = {
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.TEST.BATCH_SIZE",
    "DATASET.CHECK_IMAGES",
    "DATASET.ROOT",
    "INPUT.CACHE_GB",
    "MODEL.CLASS_CHUNK",
    "MODEL.CLIP_DIR",
    "OUTPUT_DIR",
    "RESUME",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.PRINT_FREQ",
    "USE_CUDA",
    "VERBOSE",
}
# Where something lies whose content a digest of the identity tells: {key: the digest's name}.
LOCATION_KEYS = {
    "DATASET.OWN.PATH": "data",
    "DATASET.OWN.IMAGES": "data",
    "DATASET.CIFARN.FILE": "data",
    "DATASET.NOISE.FILE": "noise",
    "MODEL.BACKBONE.NAME": "backbone",
    "MODEL.INIT_WEIGHTS": "init_weights",
}
# What the lists of a data set depend on, as they are read.
DATA_KEYS = (
    "DATASET.NAME",
    "DATASET.ROOT",
    "DATASET.OWN.PATH",
    "DATASET.OWN.IMAGES",
    "DATASET.OWN.SPLIT_SEED",
    "DATASET.CIFARN.FILE",
    "DATASET.CIFARN.LABELS",
)
DIGESTS = ("data", "backbone", "noise", "init_weights")
FIRST_REVISIONS = {"learner": 1, "method": 1, "backbone": 1}
_SHOWN = 4  # differences of one kind


def role(key: str) -> str:
    """Return the role of a configuration key: identity, observing, machine, or location (a digest tells its content)."""
    if key in LOCATION_KEYS:
        return "location"
    return "observing" if key in OBSERVING_KEYS else "machine" if key in MACHINE_KEYS else "identity"


def identity_config(config: dict) -> dict:
    """Return the identity keys of a configuration, nested or flat, as a flat dict of dotted keys."""
    return {key: value for key, value in flatten(config) if role(key) == "identity"}


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Return the leaves of a nested dict as (dotted key, value)."""
    leaves = []  # a list, since generators within generators hand on each leaf level by level
    _collect(tree, prefix, leaves)
    return iter(leaves)


def _collect(tree, prefix, leaves):
    for key, value in tree.items():
        if isinstance(value, dict):
            _collect(value, f"{prefix}{key}.", leaves)
        else:
            leaves.append((f"{prefix}{key}", value))


def identity_of(result: dict) -> dict:
    """Return the identity in a result.json; of a result from before identities the digests are unknown (None)."""
    given = result.get("identity")
    given = given if isinstance(given, dict) else {}
    revisions = given.get("revisions")
    known = {name: given.get(name) for name in (*DIGESTS, "drawn_seed")}
    return {**known, "revisions": {**FIRST_REVISIONS, **(revisions if isinstance(revisions, dict) else {})}}


def differences(before: dict, now: dict) -> list[str]:
    """Return in words what differs between two runs; an empty list where they are the same run.

    Each is a dict with `config` (nested) and, where it is known, `identity` (as result.json or identity.json hold it).
    Keys that one of them lacks, that the trainer does not read, and those of the roles machine and location do not count;
    observing keys do, since another record was asked for. Where a digest is unknown, the location's text counts.
    Of a side of which nothing is known nothing differs.
    """
    if not (before.get("config") or before.get("identity")):
        return []
    configs = [dict(flatten(side.get("config") or {})) for side in (before, now)]
    identities = [identity_of(side) for side in (before, now)]
    found, trainer = [], configs[1].get("TRAINER.NAME")
    for key in configs[1]:
        if key in configs[0] and configs[0][key] != configs[1][key] and _counts(key, trainer, identities):
            found.append(f"{key} {configs[1][key]!r} instead of {configs[0][key]!r}")
    for name in DIGESTS:
        digests = [identity[name] for identity in identities]
        if None not in digests and digests[0] != digests[1]:
            found += _content_differences(name, before, now)
    for name, revision in identities[1]["revisions"].items():
        if (old := identities[0]["revisions"].get(name, 1)) != revision:
            found.append(f"revision {revision} of the {name} instead of {old}, whose numbers were others")
    return found


def _counts(key, trainer, identities):
    from dspt_atlas.config.effect import reads  # it imports the trainers and data sets, which import this module

    kind = role(key)
    if kind == "location":
        return any(identity[LOCATION_KEYS[key]] is None for identity in identities)
    return kind != "machine" and reads(trainer, key)


def _content_differences(name, before, now):
    """Return what differs in contents whose digests differ."""
    if name != "data":
        what = {"backbone": "the weights of the backbone", "noise": "the labels in DATASET.NOISE.FILE"}
        return [f"{what.get(name, 'the weights in MODEL.INIT_WEIGHTS')} are others"]
    classes = [(side.get("identity") or {}).get("classes") for side in (before, now)]
    if all(classes) and classes[0] == classes[1]:
        return ["the same images of the data in another order"]
    found = _class_differences(*classes) if all(classes) else []
    more = [f"{len(found) - _SHOWN} more differences of the data"] if len(found) > _SHOWN else []
    return [*found[:_SHOWN], *more] or ["the images, labels or class names of the data are others"]


def _class_differences(before, now):
    """Return how the classes differ, the plainest first: {split: {class name: [images, digest]}}."""
    old, new = _by_class(before), _by_class(now)
    gone = [f'no class "{name}" ({_images(old[name])})' for name in old if name not in new]
    come = [f'a new class "{name}" ({_images(new[name])})' for name in new if name not in old]
    counted, others = [], []
    for name in [name for name in new if name in old and new[name] != old[name]]:
        change = _count(new[name]) - _count(old[name])
        if change:
            images = f"{abs(change)} image{'s' if abs(change) > 1 else ''} {'more' if change > 0 else 'fewer'}"
            counted.append(f'{images} in class "{name}"')
        else:
            others.append(f'other images, labels or splits of class "{name}"')
    return [*gone, *come, *counted, *others]


def _by_class(splits):
    """Return {class name: {split: [images, digest]}}."""
    by_class: dict[str, dict] = {}
    for split, classes in splits.items():
        for name, value in classes.items():
            by_class.setdefault(name, {})[split] = value
    return by_class


def _count(splits):
    return sum(images for images, _ in splits.values())


def _images(splits):
    return f"{_count(splits)} images"


def file_digest(path: str | Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def text_digest(parts: Iterable) -> str:
    """Return the sha256 (hex) of a sequence of values, by their repr, one a line."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part!r}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
