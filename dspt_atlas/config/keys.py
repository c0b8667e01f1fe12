"""Configuration keys, each declared once: default, comment, allowed values, role, what it needs to have an effect.

Keys of one learner or method are declared in its own file, those of Dassl's own in config/dassl_keys.py, all others in
the `keys.py` of the room that they configure. Defaults, refusals, roles, `dspt-atlas keys` and docs/keys.md follow from
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dspt_atlas.config.identities import DIGESTS
from dspt_atlas.config.ranges import Allowed
from dspt_atlas.errors import UserError

ROLES = {
    "identity": "another value is another experiment",
    "observing": "what is recorded, not what is learned",
    "machine": "where and how fast it is computed, what is kept and printed on the way",
    "location": "where something lies; what counts is its content, which a digest tells",
}
DASSLS = object()  # the default of a key that Dassl has itself


@dataclass(frozen=True)
class Need:
    """A condition under which a key has an effect, of a `dspt_atlas.config.needs.Run`, and that condition in words."""

    has_effect: Callable = field(compare=False)
    words: str


TRAINING = Need(lambda run: True, "training")  # what is tested only, or learns nothing, is refused in words of its own


@dataclass(frozen=True)
class Key:
    """What is known of a configuration key; `digest` names the part of a run's identity that tells what it leads to."""

    name: str
    default: object
    comment: str
    allowed: Allowed | None
    role: str
    needs: tuple[Need, ...]
    digest: str

    @property
    def node(self) -> str:
        """Return the learner's or method's group below TRAINER, "" of all other keys."""
        return node_of(self.name)

    def check(self, value) -> None:
        """Raise UserError unless the key may have this value."""
        if self.allowed is not None and not self.allowed.is_possible(value):
            raise UserError(f"Expected {self.name} {self.allowed.words}, got {value!r}.")


KEYS: dict[str, Key] = {}  # in the order of their declarations


def declare(name, default, comment, allowed=None, role="identity", needs=(), digest="") -> None:
    """Declare a configuration key, before `extend_cfg` adds it.

    allowed: of dspt_atlas.config.ranges, None for any value of the default's type. role: of ROLES. needs: a `Need`, or
    several. A key TRAINER.<NODE>.<KEY> needs the learner or method <NODE> by itself, and is of the role identity.
    Raises ValueError for what means nothing, and for a key that is something else already.
    """
    needs = (needs,) if isinstance(needs, Need) else tuple(needs)
    key = Key(name, default, comment, allowed, role, needs, digest)
    if KEYS.get(name, key) != key:
        raise ValueError(f"{name} is declared already, and as something else.")
    if role not in ROLES or (key.node and role != "identity"):
        raise ValueError(f"{name} is of no role that it can have, {'identity' if key.node else ', '.join(ROLES)}.")
    if digest not in ("", *DIGESTS) or (role == "location" and not digest):
        raise ValueError(f"{name} names no digest of a run's identity, {', '.join(DIGESTS)}.")
    if default is not DASSLS:
        key.check(default)
    KEYS[name] = key


def node_of(name: str) -> str:
    """Return the learner's or method's group of a key TRAINER.<NODE>.<KEY>, "" of all other keys."""
    parts = name.split(".")
    return parts[1] if parts[0] == "TRAINER" and len(parts) > 2 else ""


def check_values(config: dict) -> None:
    """Raise UserError unless each key of a configuration may have its value."""
    for name, value in flatten(config):
        if name in KEYS:
            KEYS[name].check(value)


def check_own_values(config: dict, *nodes: str) -> None:
    """The same of keys of ours alone, those of TRAINER.<NODE> for these nodes; "": those of no node."""
    own = {name for name, key in KEYS.items() if key.node in nodes and key.default is not DASSLS}
    check_values({name: value for name, value in flatten(config) if name in own})


def needs_training(name: str) -> bool:
    """Return whether only training depends on a key."""
    return name in KEYS and TRAINING in KEYS[name].needs


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
