"""Losses against slow references: two explicit softmaxes in float64, powers, sums over classes, finite differences."""

import doctest
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt_atlas.trainers import losses
from dspt_atlas.trainers.losses import (
    cross_entropy_loss,
    double_softmax_loss,
    gce_loss,
    mae_loss,
    soft_cross_entropy_loss,
)
from support.refusals import refused
from support.tolerance import softmax

TARGET_LOSSES = [cross_entropy_loss, double_softmax_loss, gce_loss, mae_loss]


def _reference(name, row, label):
    """Return the loss of one sample from its definition, in Python floats."""
    probs = softmax(row)
    if name == "double_softmax_loss":
        return -math.log(softmax(probs)[label])
    if name == "gce_loss":
        return (1 - probs[label] ** 0.7) / 0.7
    if name == "mae_loss":
        return sum(abs(prob - (k == label)) for k, prob in enumerate(probs)) / 2
    return -math.log(probs[label])


def _batch(batch, classes, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (batch,), generator=generator)


def _per_sample_gradients(loss, logits, target):
    def one(row, label):
        return loss(row[None], label[None])

    return torch.func.vmap(torch.func.grad(one))(logits, target)


def test_docstring_examples_run():
    assert doctest.testmod(losses).failed == 0
    assert doctest.testmod(losses).attempted >= 5


@pytest.mark.parametrize("loss", TARGET_LOSSES)
@given(
    st.integers(1, 5).flatmap(
        lambda classes: st.lists(
            st.tuples(st.lists(st.floats(-30, 30), min_size=classes, max_size=classes), st.integers(0, classes - 1)),
            min_size=1,
            max_size=4,
        )
    )
)
@settings(deadline=None, max_examples=50)
def test_loss_equals_its_definition(loss, samples):
    logits = torch.tensor([row for row, _ in samples], dtype=torch.float64)
    target = torch.tensor([label for _, label in samples])
    expected = sum(_reference(loss.__name__, *sample) for sample in samples) / len(samples)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("loss", TARGET_LOSSES)
def test_gradients_agree_with_finite_differences(loss):
    logits, target = _batch(3, 5)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


def test_soft_cross_entropy_equals_its_definition_and_finite_differences():
    logits, _ = _batch(3, 5)
    soft = _batch(3, 5, seed=1)[0].softmax(dim=1)
    expected = sum(
        -weight * math.log(prob)
        for row, weights in zip(logits.tolist(), soft.tolist(), strict=True)
        for weight, prob in zip(weights, softmax(row), strict=True)
    )
    assert soft_cross_entropy_loss(logits, soft).item() == pytest.approx(expected / 3, rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy_loss(z, soft), logits.requires_grad_())


def test_soft_cross_entropy_against_one_hot_is_cross_entropy():
    logits, target = _batch(6, 4)
    torch.testing.assert_close(
        soft_cross_entropy_loss(logits, F.one_hot(target, 4).double()), cross_entropy_loss(logits, target)
    )


def test_double_softmax_gradient_is_the_formula_of_methods():
    logits, target = _batch(7, 6)
    p = logits.softmax(dim=1)
    q = p.softmax(dim=1)
    one_hot = F.one_hot(target, 6).double()
    p_y = (p * one_hot).sum(dim=1, keepdim=True)
    expected = p * (q - one_hot + p_y - (p * q).sum(dim=1, keepdim=True))
    torch.testing.assert_close(_per_sample_gradients(double_softmax_loss, logits, target), expected)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 4.0])
def test_double_softmax_at_another_temperature_equals_its_definition_and_finite_differences(temperature):
    logits, target = _batch(5, 6)
    expected = [
        -math.log(softmax([prob / temperature for prob in softmax(row)])[label])
        for row, label in zip(logits.tolist(), target.tolist(), strict=True)
    ]
    value = double_softmax_loss(logits, target, temperature)
    assert value.item() == pytest.approx(sum(expected) / 5, rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: double_softmax_loss(z, target, temperature), logits.requires_grad_())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_double_softmax_refuses_a_temperature_out_of_range(temperature):
    with pytest.raises(ValueError, match="temperature"):
        double_softmax_loss(*_batch(2, 3), temperature=temperature)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64, "float32"])
def test_a_second_softmax_in_anything_but_floating_point_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype"):
        double_softmax_loss(*_batch(2, 3), dtype=dtype)


def test_a_second_softmax_in_bf16_rounds_and_keeps_the_first_in_float32():
    logits, target = _batch(64, 10, scale=1.0, dtype=torch.float32)
    logits.requires_grad_()
    exact, rounded = (double_softmax_loss(logits, target, dtype=dtype) for dtype in (None, torch.bfloat16))
    (gradient,), (coarse,) = (torch.autograd.grad(loss, logits) for loss in (exact, rounded))
    assert rounded.dtype == coarse.dtype == torch.float32
    # a loss of about 2.3 with 8 significant bits, averaged; gradients of probabilities below 1/2 likewise
    assert 0 < (rounded - exact).abs() < 2**-7
    assert 0 < (coarse - gradient).abs().max() < 2**-7 * gradient.abs().max() + 2**-9 / 64


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=40), st.integers(0, 1000))
@settings(deadline=None)
def test_double_softmax_stays_within_its_bounds(row, label):
    classes = len(row)
    value = double_softmax_loss(torch.tensor([row], dtype=torch.float64), torch.tensor([label % classes])).item()
    upper = math.log(classes - 1 + math.e)
    assert upper - 1 - 1e-12 <= value <= upper + 1e-12


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_double_softmax_reaches_its_bounds_and_is_ln_c_on_uniform_predictions(classes):
    target = torch.tensor([0])
    right = torch.full((1, classes), -100.0, dtype=torch.float64).index_fill(1, target, 100.0)
    wrong = torch.full((1, classes), -100.0, dtype=torch.float64).index_fill(1, target + 1, 100.0)
    upper = math.log(classes - 1 + math.e)
    assert double_softmax_loss(right, target).item() == pytest.approx(upper - 1, abs=1e-12)
    assert double_softmax_loss(wrong, target).item() == pytest.approx(upper, abs=1e-12)
    assert double_softmax_loss(torch.zeros(1, classes), target).item() == pytest.approx(math.log(classes), rel=1e-6)


def test_double_softmax_saturates_at_both_ends_and_informs_in_between():
    """Confident in another class or in the label: no gradient; cross-entropy keeps sqrt(2) in the first case."""
    target = torch.tensor([0, 0, 0])
    logits = torch.tensor([[0.0, 40.0, 0.0, 0.0], [40.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]], dtype=torch.float64)
    norms = _per_sample_gradients(double_softmax_loss, logits, target).norm(dim=1)
    assert norms[0] < 1e-12
    assert norms[1] < 1e-12
    assert norms[2] > 0.05
    assert _per_sample_gradients(cross_entropy_loss, logits, target).norm(dim=1)[0] == pytest.approx(math.sqrt(2))


def _cosines_to_mae(logits, target):
    double_softmax = _per_sample_gradients(double_softmax_loss, logits, target)
    return F.cosine_similarity(double_softmax, _per_sample_gradients(mae_loss, logits, target), dim=1)


def test_double_softmax_gradients_point_along_mae_for_many_classes_and_not_for_few():
    """For labels of at least average probability; far below it both losses have next to no gradient."""
    for classes, is_close in ((1000, True), (4, False)):
        logits, target = _batch(256, classes, scale=1.0)
        likely = logits.softmax(dim=1).gather(1, target[:, None])[:, 0] >= 1 / classes
        assert likely.sum() > 50
        assert (_cosines_to_mae(logits[likely], target[likely]).min().item() > 0.99999) == is_close
    assert _cosines_to_mae(logits, target).min() < 0.99


def test_double_softmax_gradients_point_along_mae_under_confident_predictions_of_another_class():
    logits, target = _batch(64, 1000, scale=1.0)
    logits[torch.arange(64), target] = 8.0
    logits[torch.arange(64), (target + 1) % 1000] = 10.0
    assert logits.softmax(dim=1).max() > 0.8
    assert _cosines_to_mae(logits, target).min() > 0.99999


def _spread_of_difference_to_mae(classes):
    logits, target = _batch(64, classes, scale=4.0)
    samples = zip(logits.split(1), target.split(1), strict=True)
    differences = torch.stack([double_softmax_loss(z, y) - mae_loss(z, y) for z, y in samples])
    return (differences.max() - differences.min()).item()


def test_double_softmax_is_a_shifted_mae_for_many_classes_and_not_for_few():
    """Half of the mean absolute error |p - e_y| is 1 - p_y; for large C the log-sum-exp is almost constant."""
    assert _spread_of_difference_to_mae(1000) < 1e-3
    assert _spread_of_difference_to_mae(4) > 0.05


@pytest.mark.parametrize("loss", TARGET_LOSSES)
@given(shift=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=30)
def test_a_shift_of_the_logits_changes_nothing(loss, shift):
    logits, target = _batch(3, 5)
    torch.testing.assert_close(loss(logits + shift, target), loss(logits, target), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", TARGET_LOSSES)
def test_extreme_logits_give_finite_losses_and_gradients(loss, dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]]).to(dtype).requires_grad_()
    value = loss(logits, torch.tensor([1, 0, 2]))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("loss", TARGET_LOSSES)
def test_half_precision_is_computed_in_float32_and_float64_is_kept(loss, given_dtype, returned):
    logits, target = _batch(4, 5, dtype=given_dtype)
    value = loss(logits, target)
    assert value.dtype == returned
    torch.testing.assert_close(value.double(), loss(logits.double(), target), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", TARGET_LOSSES)
def test_the_batch_loss_is_the_mean_of_per_sample_losses_and_vmap_gives_their_gradients(loss):
    logits, target = _batch(5, 4)
    singles = torch.stack([loss(z[None], y[None]) for z, y in zip(logits, target, strict=True)])
    torch.testing.assert_close(loss(logits, target), singles.mean())
    whole = torch.func.grad(lambda z: loss(z, target))(logits)
    torch.testing.assert_close(_per_sample_gradients(loss, logits, target) / 5, whole)


def test_gce_interpolates_between_cross_entropy_and_mae():
    logits, target = _batch(8, 5)
    torch.testing.assert_close(gce_loss(logits, target, q=1.0), mae_loss(logits, target))
    torch.testing.assert_close(
        gce_loss(logits, target, q=1e-6), cross_entropy_loss(logits, target), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("q", [0.0, -0.5, 1.5, float("nan")])
def test_gce_refuses_q_outside_its_range(q):
    with refused("`q`", "(0, 1]", q, error=ValueError):
        gce_loss(*_batch(2, 3), q=q)


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", -0.1), ("alpha", 1.1), ("alpha", math.nan), ("temperature", 0.0), ("temperature", math.nan)]
    + [("multiplier", -1.0), ("multiplier", math.inf), ("multiplier", math.nan)],
)
def test_tf_kd_refuses_arguments_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        losses.teacher_free_loss(*_batch(2, 3), **{name: value})


@pytest.mark.parametrize("loss", [*TARGET_LOSSES, losses.teacher_free_loss])
@pytest.mark.parametrize("label", [-100, -1, 3])
def test_a_label_that_is_not_a_class_is_an_error_on_a_cpu(loss, label):
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        loss(torch.zeros(2, 3), torch.tensor([0, label]))


@pytest.mark.parametrize("loss", [losses.prediction_entropy, losses.uniform_divergence])
@pytest.mark.parametrize("logits", [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3), torch.zeros(0, 3)])
def test_logits_without_labels_are_checked_too(loss, logits):
    with pytest.raises(ValueError, match="logits"):
        loss(logits)


@pytest.mark.parametrize("is_clean", [torch.ones(2), torch.ones(2, dtype=torch.int64), torch.ones(3, dtype=torch.bool)])
def test_what_is_held_for_clean_must_be_bool_and_fit(is_clean):
    with pytest.raises(ValueError, match="is_clean"):
        losses.partitioned_loss(*_batch(2, 3), is_clean)


@pytest.mark.parametrize("loss", [*TARGET_LOSSES, losses.teacher_free_loss])
@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2, 3)),
        (torch.zeros(2, 3), torch.zeros(2)),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3, dtype=torch.complex64), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.bool)),
    ],
)
def test_wrong_shapes_and_types_are_refused_with_what_came(loss, logits, target):
    with pytest.raises(ValueError, match="`(logits|target)`"):
        loss(logits, target)


@pytest.mark.parametrize("soft", [torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, 3, dtype=torch.int64)])
def test_soft_labels_of_another_shape_or_type_are_refused(soft):
    with pytest.raises(ValueError, match="`soft`"):
        soft_cross_entropy_loss(torch.zeros(2, 3), soft)


def test_a_target_that_does_not_fit_is_told_the_shape_it_needs():
    with refused("`target`", "(3,), int64", "(3, 5)", "(2,)", error=ValueError):
        losses.cross_entropy_loss(torch.zeros(3, 5), torch.tensor([0, 1]))
