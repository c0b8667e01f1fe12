"""Configuration keys, each declared once: default, comment, allowed values, role, and its needs to have an effect.

Keys of one learner or method are declared in its own file, Dassl's keys in keys/dassl_keys.py, and all others in the
`keys.py` of the room that they configure. Defaults, refusals, roles, `dspt-atlas keys` and docs/keys.md follow from
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dspt_atlas.errors import UserError
from dspt_atlas.keys.identities import DIGESTS
from dspt_atlas.keys.ranges import Allowed

ROLES = {
    "identity": "another value is another experiment",
    "observing": "another value changes what is recorded, not what is learned",
    "machine": "another value changes where and how fast a run computes, and what it keeps and prints",
    "location": "a place of files; their content counts, compared by a digest",
}
DASSLS = object()  # the default is Dassl's


@dataclass(frozen=True)
class Need:
    """A condition under which a key has an effect, of a `dspt_atlas.config.needs.Run`, and that condition in words.

    key, values: if the condition is that another key has one of these values, so that `as_read` knows it.
    """

    has_effect: Callable = field(compare=False)
    words: str
    key: str = ""
    values: tuple = ()

    @classmethod
    def of(cls, key: str, *values: str) -> Need:
        """Return the condition that another key has one of these values."""
        return cls(lambda run: run.value(key) in values, f"{key} {' or '.join(values)}", key, values)


TRAINING = Need(lambda run: True, "training")  # runs that only test, or learn nothing, have their own messages


@dataclass(frozen=True)
class Key:
    """A declared configuration key; `digest` names the part of a run's identity with the digest of its content."""

    name: str
    default: object
    comment: str
    allowed: Allowed | None
    role: str
    needs: tuple[Need, ...]
    digest: str

    @property
    def node(self) -> str:
        """Return the learner's or method's group below TRAINER, or "" for all other keys."""
        return node_of(self.name)

    def check(self, value) -> None:
        """Raise UserError unless the key may have this value."""
        if self.allowed is not None and not self.allowed.is_possible(value):
            raise UserError(f"Expected {self.name} {self.allowed.words}, got {value!r}.")


KEYS: dict[str, Key] = {}  # in the order of their declarations


def declare(name, default, comment, allowed=None, role="identity", needs=(), digest="") -> None:
    """Declare a configuration key, before `extend_cfg` adds it.

    allowed: from dspt_atlas.keys.ranges, or None for any value of the default's type. role: one of ROLES. needs: a
    `Need`, or several. A key TRAINER.<NODE>.<KEY> always needs the learner or method <NODE>, and its role is identity.
    Raises ValueError for a declaration that is wrong, or that differs from an earlier one.
    """
    needs = (needs,) if isinstance(needs, Need) else tuple(needs)
    key = Key(name, default, comment, allowed, role, needs, digest)
    if KEYS.get(name, key) != key:
        raise ValueError(f"{name} is already declared, but differently.")
    if role not in ROLES or (key.node and role != "identity"):
        raise ValueError(
            f"Expected the role of {name} to be {'identity' if key.node else ', '.join(ROLES)}, got {role}."
        )
    if digest not in ("", *DIGESTS) or (role == "location" and not digest):
        raise ValueError(
            f"Expected the digest of {name} to be one of a run's identity, {', '.join(DIGESTS)}, got {digest!r}."
        )
    if default is not DASSLS:
        key.check(default)
    KEYS[name] = key


def node_of(name: str) -> str:
    """Return the learner's or method's group of a key TRAINER.<NODE>.<KEY>, or "" for all other keys."""
    parts = name.split(".")
    return parts[1] if parts[0] == "TRAINER" and len(parts) > 2 else ""


def check_values(config: dict) -> None:
    """Raise UserError unless each key of a configuration may have its value."""
    for name, value in flatten(config):
        if name in KEYS:
            KEYS[name].check(value)


def check_own_values(config: dict, *nodes: str) -> None:
    """Do the same for our own keys only: those of TRAINER.<NODE> for these nodes; "" stands for keys without a node."""
    own = {name for name, key in KEYS.items() if key.node in nodes and key.default is not DASSLS}
    check_values({name: value for name, value in flatten(config) if name in own})


def with_defaults(config: dict, of_trainers: bool = False) -> dict:
    """Return a flat configuration with the defaults of our declared keys that it lacks: they are newer than its run.

    of_trainers: also keys of learners and methods. They are declared where torch is loaded, and only there.
    """
    ours = (key for key in KEYS.values() if key.default is not DASSLS and (of_trainers or not key.node))
    return {key.name: key.default for key in ours} | config


def as_read(config: dict) -> dict:
    """Return a flat configuration with the defaults of keys that have no effect, because of the values of others."""
    unread = {
        key.name: key.default
        for key in KEYS.values()
        for need in key.needs
        if need.key and config.get(need.key, need.values[0]) not in need.values
    }
    return {name: unread.get(name, value) for name, value in config.items()}


def needs_training(name: str) -> bool:
    """Return whether only training depends on a key."""
    return name in KEYS and TRAINING in KEYS[name].needs


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Return the leaves of a nested dict as (dotted key, value)."""
    leaves = []  # a list, because nested generators would pass on each leaf level by level
    _collect(tree, prefix, leaves)
    return iter(leaves)


def _collect(tree, prefix, leaves):
    for key, value in tree.items():
        if isinstance(value, dict):
            _collect(value, f"{prefix}{key}.", leaves)
        else:
            leaves.append((f"{prefix}{key}", value))
