"""Our models against full-length models with the file layout of the family's code."""

import torch

from support.tolerance import distance

NAMES = ["great_yellow_duck", "Boeing 737-800", "black-and-white film camera", "St. John's wort"]


def assert_same_logits_and_gradients(ours, theirs, images, tolerance, keys=None):
    """Both models on the same images; `keys`: the family's names of learned parameters, where they are others."""
    logits, expected = ours(images).logits, theirs(images)
    assert distance(logits, expected) < tolerance
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).to(expected)
    own, family = dict(ours.prompt_learner.named_parameters()), dict(theirs.named_parameters())
    right_one = [family[(keys or {}).get(name, f"prompt_learner.{name}")] for name in own]
    gradients = torch.autograd.grad((logits * weights).sum(), list(own.values()))
    right = torch.autograd.grad((expected * weights).sum(), right_one)
    for name, gradient, wanted in zip(own, gradients, right, strict=True):
        assert wanted.abs().max() > 0 and distance(gradient, wanted) < tolerance, name
