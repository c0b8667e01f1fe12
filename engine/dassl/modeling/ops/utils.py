"""Operations on labels, schedules and weights."""

import math

import torch
from torch.nn import functional as F

__all__ = [
    "create_onehot",
    "ema_model_update",
    "linear_rampup",
    "reverse_index",
    "sharpen_prob",
    "shuffle_index",
    "sigmoid_rampup",
]


def sharpen_prob(p, temperature=2):
    """p^temperature, renormalised over axis 1: (B, C) -> (B, C)."""
    powered = p.pow(temperature)
    return powered / powered.sum(dim=1, keepdim=True)


def reverse_index(data, label):
    """Return both, reversed along axis 0."""
    return data.flip(0), label.flip(0)


def shuffle_index(data, label):
    """Return both in one random order along axis 0."""
    order = torch.randperm(data.shape[0])
    return data[order], label[order]


def create_onehot(label, num_classes):
    """Labels (B,) -> float32 one-hot rows (B, num_classes) on the same device."""
    return F.one_hot(label.long(), num_classes).float()


def sigmoid_rampup(current, rampup_length):
    """exp(-5 (1 - c / L)^2), with c clipped to [0, L]."""
    current = min(max(current, 0.0), rampup_length)
    return math.exp(-5.0 * (1.0 - current / rampup_length) ** 2)


def linear_rampup(current, rampup_length):
    """c / L clipped to [0, 1]."""
    return min(max(current / rampup_length, 0.0), 1.0)


@torch.no_grad()
def ema_model_update(model, ema_model, alpha):
    """ema = alpha ema + (1 - alpha) parameter, in place, for parameters (not buffers)."""
    for ema, parameter in zip(ema_model.parameters(), model.parameters()):
        ema.mul_(alpha).add_(parameter, alpha=1 - alpha)
