"""The backbone registry."""

from dassl.utils import Registry

__all__ = ["BACKBONE_REGISTRY", "build_backbone"]

BACKBONE_REGISTRY = Registry("BACKBONE")


def build_backbone(name, verbose=True, **kwargs):
    """Return the backbone registered as `name`, constructed with the keyword arguments."""
    return BACKBONE_REGISTRY.build(name, "Backbone" if verbose else None, **kwargs)
