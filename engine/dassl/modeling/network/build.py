"""The network registry."""

from dassl.utils import Registry

__all__ = ["NETWORK_REGISTRY", "build_network"]

NETWORK_REGISTRY = Registry("NETWORK")


def build_network(name, verbose=True, **kwargs):
    """Return the network registered as `name`, constructed with the keyword arguments."""
    return NETWORK_REGISTRY.build(name, "Network" if verbose else None, **kwargs)
