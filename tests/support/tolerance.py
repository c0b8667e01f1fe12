"""Slow definitions that several tests compare with."""

import math


def softmax(values):
    """Return the softmax of a list of Python floats."""
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def distance(result, expected):
    """Return the largest difference of two tensors, relative to the largest expected value."""
    return ((result - expected).abs().max() / expected.abs().max()).item()
