"""Running averages for progress lines."""

from collections import defaultdict

import torch

__all__ = ["AverageMeter", "MetricMeter"]


def _unwrap(value):
    return value.item() if isinstance(value, torch.Tensor) else value


class AverageMeter:
    """Last value and running average; with `ema`, avg = 0.9 avg + 0.1 val from 0."""

    def __init__(self, ema=False):
        self.ema = ema
        self.reset()

    def reset(self):
        """Set val, avg, sum and count to 0."""
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        """Add `val` (a number or a one-element tensor) with weight `n`."""
        self.val = _unwrap(val)
        self.sum += self.val * n
        self.count += n
        self.avg = 0.9 * self.avg + 0.1 * self.val if self.ema else self.sum / self.count


class MetricMeter:
    """Named `AverageMeter`s, created on demand; `str()` shows `<name> <val> (<avg>)` for each."""

    def __init__(self, delimiter=" "):
        self.meters = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict):
        """Add a dict of numbers or one-element tensors by name; None is ignored; raises TypeError."""
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError("Input to MetricMeter.update() must be a dictionary")
        for name, value in input_dict.items():
            self.meters[name].update(_unwrap(value))

    def __str__(self):
        return self.delimiter.join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())
