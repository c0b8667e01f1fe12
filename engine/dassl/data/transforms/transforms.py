"""Training and test pipelines from names in the configuration."""

import random

import numpy as np
import torch
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from dassl.utils import InvalidInputError, check_availability

from .autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

__all__ = [
    "AVAI_CHOICES",
    "INTERPOLATION_MODES",
    "Cutout",
    "GaussianNoise",
    "InstanceNormalization",
    "Random2DTranslation",
    "build_transform",
]

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # accepted without effect, for old configuration files
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


class Random2DTranslation:
    """Resize to 1.125 x (height, width) and crop at random with probability `p`, or only resize. Pillow to Pillow."""

    def __init__(self, height, width, p=0.5, interpolation=InterpolationMode.BILINEAR):
        self.height = height
        self.width = width
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img):
        if random.uniform(0, 1) > self.p:
            return F.resize(img, [self.height, self.width], self.interpolation)
        height, width = round(self.height * 1.125), round(self.width * 1.125)
        img = F.resize(img, [height, width], self.interpolation)
        left = round(random.uniform(0, width - self.width))
        top = round(random.uniform(0, height - self.height))
        return F.crop(img, top, left, self.height, self.width)


class InstanceNormalization:
    """(x - mean) / (std + eps) per channel of a (C, H, W) tensor, with the unbiased standard deviation."""

    def __init__(self, eps=1e-8):
        self.eps = eps

    def __call__(self, img):
        std, mean = torch.std_mean(img, dim=(1, 2), keepdim=True)
        return (img - mean) / (std + self.eps)


class Cutout:
    """Set `n_holes` squares of side `length` (pixels, clipped at the border) of a (C, H, W) tensor to 0."""

    def __init__(self, n_holes=1, length=16):
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img):
        height, width = img.shape[1:]
        mask = torch.ones(height, width, dtype=img.dtype)
        half = self.length // 2
        for _ in range(self.n_holes):
            y, x = np.random.randint(height), np.random.randint(width)
            mask[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
        return img * mask


class GaussianNoise:
    """With probability `p`, add noise of the given mean and standard deviation to a tensor."""

    def __init__(self, mean=0, std=0.15, p=0.5):
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img):
        if random.uniform(0, 1) > self.p:
            return img
        return img + torch.randn(img.shape) * self.std + self.mean


def build_transform(cfg, is_train=True, choices=None):
    """Return the training or test pipeline (a torchvision Compose), or None with INPUT.NO_TRANSFORM.

    `choices` overrides INPUT.TRANSFORMS; the order of names does not matter. Raises ValueError for an unknown name.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    if choices is None:
        choices = cfg.INPUT.TRANSFORMS
    for choice in choices:
        check_availability(choice, AVAI_CHOICES)
    return (_build_transform_train if is_train else _build_transform_test)(cfg, choices)


def _compose(title, steps):
    """Print the title and the line of every step that is switched on; return their Compose."""
    print(title)
    chosen = []
    for is_on, line, build in steps:
        if is_on:
            print(f"+ {line}")
            try:
                chosen.append(build())
            except (ValueError, TypeError, IndexError) as error:
                raise InvalidInputError(f"INPUT does not describe a possible {line}: {error}") from error
    return T.Compose(chosen)


def _normalize_step(inp):
    return (
        "normalize",
        f"normalization (mean={inp.PIXEL_MEAN}, std={inp.PIXEL_STD})",
        lambda: T.Normalize(mean=inp.PIXEL_MEAN, std=inp.PIXEL_STD),
    )


def _build_transform_train(cfg, choices):
    inp = cfg.INPUT
    check_availability(inp.INTERPOLATION, list(INTERPOLATION_MODES))
    crops = {"random_crop", "random_resized_crop"} & set(choices)
    chosen = {*choices, "to_tensor"} if crops else {*choices, "to_tensor", "resize"}
    to_tensor = ("to_tensor", "to torch tensor of range [0, 1]", T.ToTensor)
    steps = [*_placing_steps(inp), *_augmenting_steps(inp), to_tensor, *_tensor_steps(inp)]
    return _compose("Building transform_train", [(name in chosen, line, build) for name, line, build in steps])


def _placing_steps(inp):
    size, scale, mode = tuple(inp.SIZE), tuple(inp.RRCROP_SCALE), INTERPOLATION_MODES[inp.INTERPOLATION]
    return [
        ("resize", f"resize to {size[0]}x{size[1]}", lambda: T.Resize(size, interpolation=mode)),
        ("random_translation", "random translation", lambda: Random2DTranslation(*size)),
        (
            "random_crop",
            f"random crop (padding = {inp.CROP_PADDING})",
            lambda: T.RandomCrop(size, padding=inp.CROP_PADDING),
        ),
        (
            "random_resized_crop",
            f"random resized crop (size={size}, scale={scale})",
            lambda: T.RandomResizedCrop(size, scale=scale, interpolation=mode),
        ),
        ("random_flip", "random flip", T.RandomHorizontalFlip),
    ]


def _augmenting_steps(inp):
    n, m = inp.RANDAUGMENT_N, inp.RANDAUGMENT_M
    jitter = (inp.COLORJITTER_B, inp.COLORJITTER_C, inp.COLORJITTER_S, inp.COLORJITTER_H)
    jitter_line = "color jitter (brightness={}, contrast={}, saturation={}, hue={})".format(*jitter)
    return [
        ("imagenet_policy", "imagenet policy", ImageNetPolicy),
        ("cifar10_policy", "cifar10 policy", CIFAR10Policy),
        ("svhn_policy", "svhn policy", SVHNPolicy),
        ("randaugment", f"randaugment (n={n}, m={m})", lambda: RandAugment(n, m)),
        ("randaugment_fixmatch", f"randaugment_fixmatch (n={n})", lambda: RandAugmentFixMatch(n)),
        ("randaugment2", f"randaugment2 (n={n})", lambda: RandAugment2(n)),
        ("colorjitter", jitter_line, lambda: T.ColorJitter(*jitter)),
        ("randomgrayscale", "random gray scale", lambda: T.RandomGrayscale(p=inp.RGS_P)),
        (
            "gaussian_blur",
            f"gaussian blur (kernel={inp.GB_K})",
            lambda: T.RandomApply([T.GaussianBlur(inp.GB_K)], p=inp.GB_P),
        ),
    ]


def _tensor_steps(inp):
    return [
        (
            "cutout",
            f"cutout (n_holes={inp.CUTOUT_N}, length={inp.CUTOUT_LEN})",
            lambda: Cutout(inp.CUTOUT_N, inp.CUTOUT_LEN),
        ),
        _normalize_step(inp),
        (
            "gaussian_noise",
            f"gaussian noise (mean={inp.GN_MEAN}, std={inp.GN_STD})",
            lambda: GaussianNoise(inp.GN_MEAN, inp.GN_STD),
        ),
        ("instance_norm", "instance normalization", InstanceNormalization),
    ]


def _build_transform_test(cfg, choices):
    inp = cfg.INPUT
    size, mode = tuple(inp.SIZE), INTERPOLATION_MODES[inp.INTERPOLATION]
    steps = [
        (True, f"resize the smaller edge to {max(size)}", lambda: T.Resize(max(size), interpolation=mode)),
        (True, f"{size[0]}x{size[1]} center crop", lambda: T.CenterCrop(size)),
        (True, "to torch tensor of range [0, 1]", T.ToTensor),
        ("normalize" in choices, *_normalize_step(inp)[1:]),
        ("instance_norm" in choices, "instance normalization", InstanceNormalization),
    ]
    return _compose("Building transform_test", steps)
