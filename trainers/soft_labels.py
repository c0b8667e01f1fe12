"""Soft labels of ATLaS (arXiv 2508.17846): y_soft = (1 - alpha) e_y + alpha u, in float32.

`u` is uniform (LS), a row of a class similarity (CSL) or an image's similarity to the classes (ISL).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.losses import check_share, check_temperature

KINDS = ("ls", "csl", "isl")


def is_soft_epoch(epoch: int, period: int) -> bool:
    """Return whether `epoch`, counted from 1, is the last one of a block of `period` and so uses soft labels."""
    return epoch % period == 0


def uniform_distribution(num_classes: int) -> Tensor:
    """Return u = 1/C of vanilla label smoothing, (1, C)."""
    return torch.full((1, num_classes), 1.0 / num_classes)


def class_similarity(text_features: Tensor, temperature: float = 0.1, keep_diagonal: bool = True) -> Tensor:
    """Return softmax(T T^T / temperature) over the rows, (C, C): row y is the `u` of class y (CSL).

    text_features: (C, d), L2-normalised. Without the diagonal a class gives nothing to itself. Similarities of text
    features are the paper's; softmax, temperature and diagonal are our choice. Raises ValueError for a temperature that
    is not above 0, and UserError for one class without a diagonal.

    >>> class_similarity(torch.eye(2), temperature=1.0, keep_diagonal=False)
    tensor([[0., 1.],
            [1., 0.]])
    """
    check_temperature(temperature)
    similarity = text_features.float() @ text_features.float().T / temperature
    if not keep_diagonal:
        if len(similarity) < 2:
            raise UserError("Class-wise soft labels without the diagonal need at least two classes, got one.")
        similarity.fill_diagonal_(-torch.inf)
    return similarity.softmax(dim=1)


def instance_similarity(images: Tensor, text_features: Tensor, scale: float, temperature: float = 1.0) -> Tensor:
    """Return softmax(scale i T^T / temperature), (N, C): row n is the `u` of image n (ISL).

    images: features (N, d); text_features: (C, d); both L2-normalised; scale: CLIP's exp(logit_scale). The paper
    computes relations of instances to classes offline; this formula is our choice. Raises ValueError for a temperature
    that is not above 0.
    """
    check_temperature(temperature)
    return (scale / temperature * images.float() @ text_features.float().T).softmax(dim=1)


def smooth_labels(target: Tensor, similarity: Tensor, alpha: float | Tensor) -> Tensor:
    """Return (1 - alpha) e_y + alpha u, (B, C), for target (B,) int64 and u = similarity, (B, C) or (1, C).

    Raises ValueError for alpha outside [0, 1].

    >>> smooth_labels(torch.tensor([1]), uniform_distribution(4), alpha=0.4)
    tensor([[0.1000, 0.7000, 0.1000, 0.1000]])
    """
    check_share("alpha", alpha)
    one_hot = F.one_hot(target, similarity.shape[1]).to(similarity.dtype)
    return torch.lerp(one_hot, similarity.expand_as(one_hot), alpha)


def mean_entropy(labels: Tensor) -> float:
    """Return the mean entropy of the rows of `labels` (N, C), in nats."""
    return torch.special.entr(labels).sum(dim=1).mean().item()
