"""Multi-layer perceptron."""

from torch import nn

from dassl.utils import InvalidInputError

from .build import HEAD_REGISTRY

__all__ = ["MLP", "mlp"]

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class MLP(nn.Sequential):
    """Linear, [BatchNorm1d], activation, [Dropout] per hidden layer; `out_features` is the last width."""

    def __init__(self, in_features=2048, hidden_layers=(), activation="relu", bn=True, dropout=0.0):
        widths = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        if not widths:
            raise InvalidInputError("hidden_layers must have at least one layer width")
        if activation not in ACTIVATIONS:
            raise NotImplementedError(f"activation must be one of {[*ACTIVATIONS]}, but got {activation}")
        layers = []
        for width in widths:
            layers.append(nn.Linear(in_features, width))
            if bn:
                layers.append(nn.BatchNorm1d(width))
            layers.append(ACTIVATIONS[activation]())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        super().__init__(*layers)
        self.out_features = in_features


@HEAD_REGISTRY.register()
def mlp(**kwargs):
    """Return an `MLP`."""
    return MLP(**kwargs)
