"""AutoAugment (Cubuk et al., CVPR 2019): torchvision's policies, drawn from Python's `random`."""

import random

from torchvision.transforms import AutoAugment, AutoAugmentPolicy

__all__ = ["CIFAR10Policy", "ImageNetPolicy", "SVHNPolicy"]


class _RandomPolicy(AutoAugment):
    def __init__(self, policy):
        super().__init__(policy, fill=[128, 128, 128])

    @staticmethod
    def get_params(transform_num):
        """Return (index of the sub-policy, two probabilities, two signs in {0, 1})."""
        index = random.randint(0, transform_num - 1)
        probabilities = [random.random() for _ in range(2)]
        return index, probabilities, [random.randint(0, 1) for _ in range(2)]


class ImageNetPolicy(_RandomPolicy):
    """One of the 25 sub-policies learned on ImageNet. Pillow to Pillow."""

    def __init__(self):
        super().__init__(AutoAugmentPolicy.IMAGENET)


class CIFAR10Policy(_RandomPolicy):
    """One of the 25 sub-policies learned on CIFAR-10. Pillow to Pillow."""

    def __init__(self):
        super().__init__(AutoAugmentPolicy.CIFAR10)


class SVHNPolicy(_RandomPolicy):
    """One of the 25 sub-policies learned on SVHN. Pillow to Pillow."""

    def __init__(self):
        super().__init__(AutoAugmentPolicy.SVHN)
