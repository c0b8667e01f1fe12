"""What the tests of trainers share."""

import pytest
import reference
import torch


@pytest.fixture(scope="module")
def model():
    """A random CLIP of the naive reference's making."""
    torch.manual_seed(0)
    return reference.random_clip()
