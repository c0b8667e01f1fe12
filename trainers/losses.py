"""Losses on logits (B, C) as pure functions: mean over the batch, in float32 (float64 stays float64).

Shapes are checked. Label values are not, because a GPU would have to wait for the host.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, mean of -log p_y with p = softmax(logits).

    Args: logits (B, C) floating point; target (B,) int64 in [0, C). Returns a scalar. Raises ValueError: shapes.

    >>> round(cross_entropy_loss(torch.zeros(2, 4), torch.tensor([0, 3])).item(), 4)  # ln 4
    1.3863
    """
    return -_target_log_probs(logits, target).mean()


def double_softmax_loss(
    logits: Tensor, target: Tensor, temperature: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """Double-softmax loss of DSPT, mean of -log q_y with q = softmax(p / temperature) and p = softmax(logits).

    Closed form at temperature 1: L = -p_y + log sum_k exp(p_k). It cannot overflow, because 0 <= p <= 1.
    Gradient: dL/dz_j = p_j (q_j - 1{j=y} + p_y - sum_k p_k q_k). Bounds: ln(C-1+e) - 1 <= L <= ln(C-1+e).
    Source: arXiv 2605.00591. CLIP's scale enters the first softmax only: this is our reading of "hyperparameter-free".
    A temperature besides 1, and a `dtype` for p and the second softmax, are our ablations.

    Args: logits (B, C) floating point; target (B,) int64 in [0, C); temperature above 0; dtype floating point, or None
    for the dtype of the first softmax. Returns a scalar. Raises ValueError: shapes, temperature out of range, another
    dtype.

    >>> round(double_softmax_loss(torch.zeros(2, 4), torch.tensor([0, 3])).item(), 4)  # ln 4
    1.3863
    """
    _check_target(logits, target)
    check_temperature(temperature)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"Expected argument `dtype` to be None or a floating point type of torch, got {dtype}.")
    probs = _at_least_float32(logits).softmax(dim=1)  # (B, C)
    scaled = (probs / temperature).to(dtype or probs.dtype)
    return (scaled.logsumexp(dim=1) - _pick(scaled, target)).to(probs.dtype).mean()


def gce_loss(logits: Tensor, target: Tensor, q: float = 0.7) -> Tensor:
    """Generalised cross-entropy, mean of (1 - p_y^q) / q: cross-entropy for q -> 0, MAE for q = 1.

    Source: Zhang & Sabuncu 2018.

    Args: logits (B, C) floating point; target (B,) int64 in [0, C); q in (0, 1]. Returns a scalar. Raises ValueError:
    shapes, and q out of range.

    >>> round(gce_loss(torch.zeros(2, 4), torch.tensor([0, 3]), q=0.5).item(), 4)  # (1 - 0.25 ** 0.5) / 0.5
    1.0
    """
    if not 0 < q <= 1:
        raise ValueError(f"Expected argument `q` in (0, 1], got {q}.")
    # p^q as exp(q log p): the power itself has an infinite slope at p = 0.
    return -torch.expm1(q * _target_log_probs(logits, target)).mean() / q


def mae_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, mean of 1 - p_y (half of the sum over classes of |p - e_y|).

    Args: logits (B, C) floating point; target (B,) int64 in [0, C). Returns a scalar. Raises ValueError: shapes.

    >>> mae_loss(torch.zeros(2, 4), torch.tensor([0, 3])).item()
    0.75
    """
    return gce_loss(logits, target, q=1.0)


def soft_cross_entropy_loss(logits: Tensor, soft: Tensor) -> Tensor:
    """Cross-entropy against soft labels, mean of -sum_c soft_c log p_c.

    Args: logits (B, C) floating point; soft (B, C) floating point, each row with sum 1. Returns a scalar. Raises
    ValueError: shapes.

    >>> round(soft_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([[0.7, 0.1, 0.1, 0.1]])).item(), 4)  # ln 4
    1.3863
    """
    _check_logits(logits)
    if soft.shape != logits.shape or not soft.is_floating_point():
        raise ValueError(
            f"Expected argument `soft` of shape {tuple(logits.shape)}, floating point, like `logits`, "
            f"got shape {tuple(soft.shape)}, {soft.dtype}."
        )
    log_probs = _log_probs(logits)
    return -(soft.to(log_probs.dtype) * log_probs).sum(dim=1).mean()


def teacher_free_loss(
    logits: Tensor, target: Tensor, alpha: float = 0.1, temperature: float = 20.0, multiplier: float = 100.0
) -> Tensor:
    """Tf-KD in its regularisation form, mean of -(1 - alpha) log p_y + alpha multiplier KL(t || p).

    t = softmax(d / temperature), where the virtual teacher d is 0.99 on y and 0.01 / (C - 1) elsewhere; p =
    softmax(logits); KL is summed over the classes. Source: Yuan et al. 2020.

    Args: logits (B, C) floating point; target (B,) int64 in [0, C); alpha in [0, 1]; temperature above 0; multiplier at
    least 0. Returns a scalar. Raises ValueError: shapes, and values out of range.

    >>> round(teacher_free_loss(torch.zeros(2, 4), torch.tensor([0, 3]), multiplier=0.0).item(), 4)  # 0.9 ln 4
    1.2477
    """
    check_share("alpha", alpha)
    check_temperature(temperature)
    if not 0 <= multiplier < math.inf:
        raise ValueError(f"Expected argument `multiplier` of at least 0, got {multiplier}.")
    hard = cross_entropy_loss(logits, target)
    log_probs = _log_probs(logits)
    teacher = torch.full_like(log_probs, 0.01 / max(logits.shape[1] - 1, 1)).scatter_(1, target[:, None], 0.99)
    soft = (teacher / temperature).softmax(dim=1)
    return (1 - alpha) * hard + alpha * multiplier * F.kl_div(log_probs, soft, reduction="batchmean")


def partitioned_loss(logits: Tensor, target: Tensor, is_clean: Tensor) -> Tensor:
    """Cross-entropy of samples taken for clean and MAE of the others, mean over the batch of -log p_y or 1 - p_y.

    Source: NLPrompt (CVPR 2025). One mean over both parts is our choice.

    Args: logits (B, C) floating point; target (B,) int64 in [0, C); is_clean (B,) bool. Returns a scalar. Raises
    ValueError: shapes.

    >>> round(partitioned_loss(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([True, False])).item(), 4)
    1.0681
    """
    log_prob = _target_log_probs(logits, target)
    if is_clean.shape != target.shape or is_clean.dtype != torch.bool:
        raise ValueError(
            f"Expected argument `is_clean` of shape {tuple(target.shape)}, bool, like `target`, "
            f"got shape {tuple(is_clean.shape)}, {is_clean.dtype}."
        )
    return torch.where(is_clean, -log_prob, -torch.expm1(log_prob)).mean()


def prediction_entropy(logits: Tensor) -> Tensor:
    """Entropy of each prediction, -sum_c p_c log p_c in nats with p = softmax(logits), (B,) for logits (B, C).

    >>> round(prediction_entropy(torch.zeros(1, 4)).item(), 4)  # ln 4
    1.3863
    """
    log_probs = _log_probs(logits)
    return -(log_probs.exp() * log_probs).sum(dim=1)


def uniform_divergence(logits: Tensor) -> Tensor:
    """KL(uniform || mean prediction), sum_c 1/C log((1/C) / m_c) with m = mean over the batch of softmax(logits).

    Source: JoAPR (CVPR 2024). Args: logits (B, C) floating point. Returns a scalar. Raises ValueError: shapes.

    >>> uniform_divergence(torch.eye(3)).abs().item() < 1e-6  # every class is predicted equally often
    True
    """
    log_mean = _log_probs(logits).logsumexp(dim=0) - math.log(len(logits))  # (C,)
    return -math.log(logits.shape[1]) - log_mean.mean()


def cosine_distance(features: Tensor, others: Tensor) -> Tensor:
    """Mean over the rows of 1 - cos(features, others): half the mean squared distance of the normalised rows.

    Args: features, others (C, d) floating point. Returns a scalar. Source: KgCoOp (CVPR 2023), with its eps of 1e-7.

    >>> round(cosine_distance(torch.tensor([[1.0, 2, 2], [3, 0, 4]]), torch.tensor([[2.0, 2, 1], [4, 0, 3]])).item(), 4)
    0.0756
    """
    return 1 - F.cosine_similarity(features, others, dim=1, eps=1e-7).mean()


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless an argument `temperature` is above 0 and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"Expected argument `temperature` above 0, got {temperature}.")


def check_share(name: str, value: float | Tensor) -> None:
    """Raise ValueError unless an argument, a number or a tensor of them, lies in [0, 1]."""
    values = torch.as_tensor(value)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"Expected argument `{name}` in [0, 1], got {value}.")


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _pick(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(1, target[:, None])[:, 0]  # (B,)


def _log_probs(logits: Tensor) -> Tensor:
    _check_logits(logits)
    return F.log_softmax(_at_least_float32(logits), dim=1)


def _target_log_probs(logits: Tensor, target: Tensor) -> Tensor:
    _check_target(logits, target)
    return _pick(_log_probs(logits), target)


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.numel() == 0 or not logits.is_floating_point():
        raise ValueError(
            "Expected argument `logits` of shape (B, C) with B and C of at least 1, floating point, "
            f"got shape {tuple(logits.shape)}, {logits.dtype}."
        )


def _check_target(logits: Tensor, target: Tensor) -> None:
    _check_logits(logits)
    if target.shape != logits.shape[:1] or target.dtype != torch.int64:
        raise ValueError(
            f"Expected argument `target` of shape ({logits.shape[0]},), int64, to match `logits` of shape "
            f"{tuple(logits.shape)}, got shape {tuple(target.shape)}, {target.dtype}."
        )
