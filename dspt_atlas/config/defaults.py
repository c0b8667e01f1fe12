"""The configuration keys of this project, added to a Dassl configuration."""

from __future__ import annotations

from yacs.config import CfgNode

from dspt_atlas.config import roles  # noqa: F401 - all keys except those of learners and methods
from dspt_atlas.datasets.noisy import register_noisy
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import DASSLS, KEYS
from dspt_atlas.trainers.recorded_noise import record_noise_of_every_trainer
from dspt_atlas.trainers.registry import register_methods


def add_keys(cfg: CfgNode) -> None:
    """Add the declared keys that `cfg` lacks, in place; existing keys keep their values.

    Raises UserError if `cfg` has a value in place of a group of keys, or a group in place of a value.
    """
    for key in KEYS.values():
        if key.default is not DASSLS:
            *groups, name = key.name.split(".")
            node = cfg
            for depth, group in enumerate(groups, start=1):
                node = node.setdefault(group, CfgNode())
                _check_kind(node, True, ".".join(groups[:depth]))
            _check_kind(node.setdefault(name, key.default), False, key.name)


def _check_kind(value, is_group, name):
    if isinstance(value, CfgNode) != is_group:
        raise UserError(
            f"The configuration key {name} is {value!r} here, but dspt_atlas has "
            f"{'a group of keys' if is_group else 'one value'} with that name: rename yours."
        )


def default_cfg() -> CfgNode:
    """Return Dassl's default configuration with our keys, as `extend_cfg` adds them."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg


def extend_cfg(cfg: CfgNode) -> None:
    """Add our keys to a Dassl configuration; register our trainers and `Noisy<Name>` of every registered data set.

    Every trainer that trains with such noise saves noise.json from now on. Existing keys are not overwritten. May be
    called repeatedly.
    """
    add_keys(cfg)
    register_methods()
    register_noisy()
    record_noise_of_every_trainer()
