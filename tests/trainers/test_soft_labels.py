"""Soft labels: distributions, their definitions in plain loops, and what each setting changes."""

import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt_atlas.errors import UserError
from dspt_atlas.trainers import soft_labels
from dspt_atlas.trainers.soft_labels import (
    class_similarity,
    instance_similarity,
    is_soft_epoch,
    mean_entropy,
    smooth_labels,
    uniform_distribution,
)


def _features(count, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, width, generator=generator)
    return features / features.norm(dim=1, keepdim=True)


def test_docstring_examples_run():
    result = doctest.testmod(soft_labels)
    assert result.failed == 0
    assert result.attempted >= 2


@given(st.integers(1, 60), st.integers(1, 12))
@settings(deadline=None)
def test_every_block_of_k_epochs_ends_with_its_only_soft_one(epochs, period):
    soft = [epoch for epoch in range(1, epochs + 1) if is_soft_epoch(epoch, period)]
    assert soft == list(range(period, epochs + 1, period))


def test_class_similarity_equals_its_definition():
    text = _features(5)
    for keep_diagonal in (True, False):
        similarity = class_similarity(text, temperature=0.3, keep_diagonal=keep_diagonal)
        for y in range(5):
            weights = [
                math.exp(float(text[y].double() @ text[k].double()) / 0.3) if keep_diagonal or k != y else 0.0
                for k in range(5)
            ]
            expected = [weight / sum(weights) for weight in weights]
            assert similarity[y].tolist() == pytest.approx(expected, rel=1e-5)


def test_without_the_diagonal_one_class_is_refused():
    with pytest.raises(UserError, match="at least two classes"):
        class_similarity(_features(1), keep_diagonal=False)


def test_instance_similarity_is_clips_own_prediction_at_temperature_one():
    images, text, scale = _features(7), _features(4, seed=1), 20.0
    torch.testing.assert_close(instance_similarity(images, text, scale), (scale * images @ text.T).softmax(dim=1))
    flat = instance_similarity(images, text, scale, temperature=1e6)
    torch.testing.assert_close(flat, torch.full((7, 4), 0.25), rtol=1e-4, atol=1e-4)


@given(st.integers(2, 9), st.floats(0, 1), st.floats(0.05, 5), st.integers(0, 100))
@settings(deadline=None)
def test_smoothed_labels_are_distributions_that_mix_linearly(classes, alpha, temperature, seed):
    target = torch.arange(classes)
    similarity = class_similarity(_features(classes, seed=seed), temperature)
    labels = smooth_labels(target, similarity, alpha)
    assert (labels >= 0).all()
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(classes))
    torch.testing.assert_close(labels, (1 - alpha) * torch.eye(classes) + alpha * similarity)


def test_alpha_one_is_the_pure_soft_label_and_alpha_zero_the_given_one():
    similarity = class_similarity(_features(3))
    target = torch.tensor([2, 0])
    assert torch.equal(smooth_labels(target, similarity[target], 1.0), similarity[target])
    assert torch.equal(smooth_labels(target, similarity[target], 0.0), torch.eye(3)[target])


def test_label_smoothing_gives_the_label_what_is_left():
    labels = smooth_labels(torch.tensor([0, 3]), uniform_distribution(5), 0.1)
    assert labels[0].tolist() == pytest.approx([0.92, 0.02, 0.02, 0.02, 0.02])
    assert labels[1].tolist() == pytest.approx([0.02, 0.02, 0.02, 0.92, 0.02])


def test_mean_entropy_in_nats():
    assert mean_entropy(uniform_distribution(8)) == pytest.approx(math.log(8))
    assert mean_entropy(torch.eye(4)) == 0.0
    assert mean_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])) == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="temperature"):
        class_similarity(_features(3), temperature=value)
    with pytest.raises(ValueError, match="temperature"):
        instance_similarity(_features(2), _features(3), 10.0, temperature=value)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_an_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        smooth_labels(torch.tensor([0, 1]), uniform_distribution(2), alpha)
