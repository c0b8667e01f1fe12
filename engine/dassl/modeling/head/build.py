"""The head registry."""

from dassl.utils import Registry

__all__ = ["HEAD_REGISTRY", "build_head"]

HEAD_REGISTRY = Registry("HEAD")


def build_head(name, verbose=True, **kwargs):
    """Return the head registered as `name`, constructed with the keyword arguments."""
    return HEAD_REGISTRY.build(name, "Head" if verbose else None, **kwargs)
