"""What the tests of trainers share."""

import pytest
import reference
import torch


@pytest.fixture(scope="module")
def model():
    """A random CLIP of the naive reference's making."""
    torch.manual_seed(0)
    return reference.random_clip()


@pytest.fixture(scope="module")
def exact_model(exact_layer_norm):
    """The same in float64."""
    torch.manual_seed(0)
    return reference.random_clip().double()


@pytest.fixture(scope="module")
def images():
    """Random images of its size (3, 3, 32, 32), float64."""
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
