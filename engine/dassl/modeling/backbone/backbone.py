"""The base class of backbones."""

from torch import nn

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """A feature extractor; subclasses set `_out_features`, the width of its output."""

    _out_features = None

    @property
    def out_features(self):
        return self._out_features
