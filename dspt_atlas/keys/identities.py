"""The identity in a result, a checkpoint or identity.json: digests of a run's inputs, and revisions of its code."""

from __future__ import annotations

DIGESTS = ("data", "backbone", "noise", "init_weights")
FIRST_REVISIONS = {"learner": 1, "method": 1, "backbone": 1}
_SHOWN = 4  # differences of one kind that are listed


def identity_of(result: dict) -> dict:
    """Return the identity in a result.json; in a result from before identities, the digests are unknown (None)."""
    given = result.get("identity")
    given = given if isinstance(given, dict) else {}
    revisions = given.get("revisions")
    known = {name: given.get(name) for name in (*DIGESTS, "templates", "drawn_seed")}
    return {**known, "revisions": {**FIRST_REVISIONS, **(revisions if isinstance(revisions, dict) else {})}}


def identity_differences(before: dict, now: dict) -> list[str]:
    """Return in words how the identities of two runs (dicts with `identity`) differ; unknown values do not differ."""
    identities = [identity_of(side) for side in (before, now)]
    found = []
    for name in DIGESTS:
        digests = [identity[name] for identity in identities]
        if None not in digests and digests[0] != digests[1]:
            found += _content_differences(name, before, now)
    templates = [side["identity"]["templates"] for side in (before, now) if "templates" in (side.get("identity") or {})]
    if len(set(templates)) > 1:
        found.append("other templates of the data set")
    for name, revision in identities[1]["revisions"].items():
        if (old := identities[0]["revisions"].get(name, 1)) != revision:
            found.append(f"revision {revision} of the {name} instead of {old}, which gave other numbers")
    return found


def _content_differences(name, before, now):
    """Return what differs in contents with different digests."""
    if name != "data":
        what = {"backbone": "weights of the backbone", "noise": "labels in DATASET.NOISE.FILE"}
        return [f"other {what.get(name, 'weights in MODEL.INIT_WEIGHTS')}"]
    classes = [(side.get("identity") or {}).get("classes") for side in (before, now)]
    if all(classes) and classes[0] == classes[1]:
        return ["the same images of the data in another order"]
    found = _class_differences(*classes) if all(classes) else []
    more = [f"{len(found) - _SHOWN} more differences of the data"] if len(found) > _SHOWN else []
    return [*found[:_SHOWN], *more] or ["other images, labels or class names in the data"]


def _class_differences(before, now):
    """Return how the classes differ, the simplest differences first: {split: {class name: [images, digest]}}."""
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
