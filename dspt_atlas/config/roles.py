"""The roles of configuration keys; keys of a learner or method are always identity."""

from __future__ import annotations

from dspt_atlas.datasets import keys as dataset_keys  # noqa: F401
from dspt_atlas.keys import dassl_keys  # noqa: F401 - declares, as the next two
from dspt_atlas.keys.declare import KEYS
from dspt_atlas.trainers import keys as trainer_keys  # noqa: F401

# Keys of places whose content has a digest in the identity: {key: the digest's name}.
LOCATION_KEYS = {key.name: key.digest for key in KEYS.values() if key.role == "location"}
MACHINE_KEYS = tuple(key.name for key in KEYS.values() if key.role == "machine")


def role(name: str) -> str:
    """Return the role of a configuration key, one of `dspt_atlas.keys.declare.ROLES`."""
    return KEYS[name].role if name in KEYS else "identity"


def data_keys() -> list[str]:
    """Return the keys that the lists of a data set depend on, as they are read."""
    return [key.name for key in KEYS.values() if key.digest == "data"]
