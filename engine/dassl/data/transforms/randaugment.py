"""RandAugment (Cubuk et al., 2020) and its variants in FixMatch code bases; Pillow images in, Pillow images out."""

import math
import random

from PIL import ImageChops, ImageDraw
from torchvision.transforms import functional as F

from dassl.utils import InvalidInputError

__all__ = ["RandAugment", "RandAugment2", "RandAugmentFixMatch"]

GREY = [125, 123, 114]


def _signed(value):
    return -value if random.random() > 0.5 else value


def _affine(img, translate=(0, 0), shear=(0.0, 0.0)):
    return F.affine(img, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear))


def _shear_angle(factor):
    return math.degrees(math.atan(factor))


def _solarize_add(img, value, threshold=128):
    """Add `value` to the pixels below the threshold."""
    return img.point(lambda pixel: min(255, pixel + int(value)) if pixel < threshold else pixel)


def _cutout_abs(img, value):
    """Paint a grey square of side `value` pixels around a random centre, clipped at the border."""
    width, height = img.size
    x, y = random.uniform(0, width), random.uniform(0, height)
    left, top = max(0, int(x - value / 2)), max(0, int(y - value / 2))
    right, bottom = min(width, int(left + value)), min(height, int(top + value))
    img = img.copy()
    if right > left and bottom > top:
        ImageDraw.Draw(img).rectangle([left, top, right - 1, bottom - 1], fill=tuple(GREY))
    return img


# Each takes (image, value).
OPERATIONS = {
    "AutoContrast": lambda img, value: F.autocontrast(img),
    "Equalize": lambda img, value: F.equalize(img),
    "Identity": lambda img, value: img,
    "Invert": lambda img, value: ImageChops.invert(img),
    "Rotate": lambda img, value: F.rotate(img, _signed(value)),
    "Posterize": lambda img, value: F.posterize(img, int(value)),
    "Solarize": lambda img, value: F.solarize(img, min(int(value), 255)),
    "SolarizeAdd": _solarize_add,
    "Color": lambda img, value: F.adjust_saturation(img, value),
    "Contrast": lambda img, value: F.adjust_contrast(img, value),
    "Brightness": lambda img, value: F.adjust_brightness(img, value),
    "Sharpness": lambda img, value: F.adjust_sharpness(img, value),
    "ShearX": lambda img, value: _affine(img, shear=(_shear_angle(_signed(value)), 0.0)),
    "ShearY": lambda img, value: _affine(img, shear=(0.0, _shear_angle(_signed(value)))),
    "CutoutAbs": _cutout_abs,
    "TranslateXabs": lambda img, value: _affine(img, translate=(round(_signed(value)), 0)),
    "TranslateYabs": lambda img, value: _affine(img, translate=(0, round(_signed(value)))),
    "TranslateX": lambda img, value: _affine(img, translate=(round(_signed(value) * img.size[0]), 0)),
    "TranslateY": lambda img, value: _affine(img, translate=(0, round(_signed(value) * img.size[1]))),
}

ENHANCEMENTS = ("Color", "Contrast", "Brightness", "Sharpness")

# (name, minimum, maximum)
RANDAUGMENT_SPACE = [
    ("AutoContrast", 0, 1),
    ("Equalize", 0, 1),
    ("Invert", 0, 1),
    ("Rotate", 0, 30),
    ("Posterize", 4, 8),
    ("Solarize", 0, 256),
    ("SolarizeAdd", 0, 110),
    *((name, 0.1, 1.9) for name in ENHANCEMENTS),
    ("ShearX", 0, 0.3),
    ("ShearY", 0, 0.3),
    ("CutoutAbs", 0, 40),
    ("TranslateXabs", 0, 100),
    ("TranslateYabs", 0, 100),
]


def _uniform_space(enhancement):
    return [
        ("AutoContrast", 0, 1),
        *((name, *enhancement) for name in ENHANCEMENTS),
        ("Equalize", 0, 1),
        ("Identity", 0, 1),
        ("Posterize", 4, 8),
        ("Rotate", -30, 30),
        ("ShearX", -0.3, 0.3),
        ("ShearY", -0.3, 0.3),
        ("Solarize", 0, 256),
        ("TranslateX", -0.3, 0.3),
        ("TranslateY", -0.3, 0.3),
    ]


RANDAUGMENT2_SPACE = [*_uniform_space((0.1, 1.9)), ("Invert", 0, 1)]
FIXMATCH_SPACE = _uniform_space((0.05, 0.95))


class RandAugment:
    """`n` random operations, each at magnitude `m` out of 30. Raises ValueError for m outside [0, 30]."""

    def __init__(self, n=2, m=10):
        if not 0 <= m <= 30:
            raise InvalidInputError(f"Expected magnitude m in [0, 30], got {m}.")
        self.n = n
        self.m = m

    def __call__(self, img):
        for name, low, high in random.choices(RANDAUGMENT_SPACE, k=self.n):
            img = OPERATIONS[name](img, self.m / 30 * (high - low) + low)
        return img


class RandAugment2:
    """`n` random operations, each applied with probability `p` at a uniformly drawn value."""

    space = RANDAUGMENT2_SPACE

    def __init__(self, n=2, p=0.6):
        self.n = n
        self.p = p

    def __call__(self, img):
        for name, low, high in random.choices(self.space, k=self.n):
            if self._is_applied():
                img = OPERATIONS[name](img, low + random.random() * (high - low))
        return img

    def _is_applied(self):
        return random.random() <= self.p


class RandAugmentFixMatch(RandAugment2):
    """`n` random operations at uniformly drawn values, none skipped."""

    space = FIXMATCH_SPACE

    def __init__(self, n=2):
        super().__init__(n)

    def _is_applied(self):
        return True
