"""Whether two runs are the same: identity keys, data, backbone, noise and revisions are compared as data."""

from __future__ import annotations

from dspt_atlas import register_standard
from dspt_atlas.config.effect import reads
from dspt_atlas.config.roles import role
from dspt_atlas.keys.declare import KEYS, as_read, flatten, with_defaults
from dspt_atlas.keys.identities import identity_differences, identity_of


def differences(before: dict, now: dict) -> list[str]:
    """Return in words what differs between two runs; an empty list if they are the same run.

    Each is a dict with `config` (nested) and, if it is known, `identity` (as in result.json or identity.json). An older
    run that lacks one of our keys had its default. Some keys do not count: others that one of them lacks, those that
    the trainer does not read, and those of the roles machine and location. Observing keys count, because another record
    was asked for. If a digest is unknown, the location's text counts. If nothing is known of one run, nothing differs.
    """
    if not (before.get("config") or before.get("identity")):
        return []
    older, config = (dict(flatten(side.get("config") or {})) for side in (before, now))
    register_standard()  # it declares the keys of all learners and methods
    older, config = as_read(with_defaults(older, of_trainers=True) if older else {}), as_read(config)
    identities = [identity_of(side) for side in (before, now)]
    trainer = config.get("TRAINER.NAME")
    found = [
        f"{key} {value!r} instead of {older[key]!r}"
        for key, value in config.items()
        if key in older and older[key] != value and _counts(key, trainer, identities)
    ]
    return found + identity_differences(before, now)


def _counts(key, trainer, identities):
    kind = role(key)
    if kind == "location":
        return any(identity[KEYS[key].digest] is None for identity in identities)
    return kind != "machine" and reads(trainer, key)
