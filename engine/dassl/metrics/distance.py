"""Pairwise distances between rows."""

import torch
from torch.nn import functional as F

from dassl.utils import InvalidInputError

__all__ = ["compute_distance_matrix", "cosine_distance", "euclidean_squared_distance"]


def compute_distance_matrix(input1, input2, metric="euclidean"):
    """Return the (M, N) distances of the rows of (M, D) and (N, D): squared euclidean, or cosine.

    Raises ValueError for other shapes and other metrics, TypeError for non-tensors.
    """
    for matrix in (input1, input2):
        if not isinstance(matrix, torch.Tensor):
            raise TypeError(f"Expected a 2-D tensor, but got {type(matrix).__name__}")
        if matrix.dim() != 2:
            raise InvalidInputError(f"Expected a 2-D tensor, but got {matrix.dim()}-D")
    if input1.shape[1] != input2.shape[1]:
        raise InvalidInputError(f"Expected inputs of equal width, but got {input1.shape[1]} and {input2.shape[1]}")
    if metric == "euclidean":
        return euclidean_squared_distance(input1, input2)
    if metric == "cosine":
        return cosine_distance(input1, input2)
    raise ValueError(f'Unknown distance metric: {metric}. Please choose either "euclidean" or "cosine"')


def euclidean_squared_distance(input1, input2):
    """||a - b||^2 for the rows a, b: (M, D), (N, D) -> (M, N)."""
    squares = input1.pow(2).sum(dim=1, keepdim=True) + input2.pow(2).sum(dim=1)
    return torch.addmm(squares, input1, input2.t(), beta=1, alpha=-2)


def cosine_distance(input1, input2):
    """1 - cos(a, b) for the rows a, b: (M, D), (N, D) -> (M, N)."""
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()
