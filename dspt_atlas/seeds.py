"""Seeds of generators; each generator has one use."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2**63) that depends only on `seed` and the names of the use; the same on every machine."""
    identity = repr((int(seed), *names)).encode("utf-8")
    return int.from_bytes(hashlib.sha256(identity).digest()[:8], "big") >> 1
