"""The one function that opens images: every Pillow mode, upright, never silently clipped."""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

from dspt_atlas.errors import UserError

READING = 2  # goes up when the pixels of some file change; 1: 16 bits were clipped and EXIF orientations ignored

_ORIENTATION = 0x0112  # the EXIF tag; TIFF has the same
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags


class Opened(NamedTuple):
    """An image in RGB and upright, the mode of its file, and whether the file's EXIF orientation turned it."""

    image: Image.Image
    mode: str
    is_turned: bool


@functools.cache
def register_heif() -> None:
    """Let Pillow read HEIC and HEIF if the package pillow-heif is installed (extra `heic`)."""
    with contextlib.suppress(ImportError):
        import pillow_heif  # optional

        pillow_heif.register_heif_opener()


def read_image(path):
    """Return an image file, or a Pillow image, as an upright Pillow RGB image; raises UserError naming it."""
    try:
        return open_image(path).image
    except Exception as error:  # Pillow raises a dozen kinds for a broken file
        raise UserError(
            f"Expected a readable image, but {path} is not ({error}): repair, replace or remove it."
        ) from error


def open_image(path):
    """Return an image file, or a Pillow image, as `Opened`.

    Raises Pillow's errors, and ValueError for values of an unknown range.
    """
    if isinstance(path, Image.Image):
        return _opened(path)
    register_heif()
    with Image.open(path) as image:
        return _opened(image)


def _opened(image):
    turned = _orientation(image) in _UPRIGHT
    image.load()
    if image.mode not in MODES:
        raise ValueError(f"mode {image.mode} is not known: convert it to 8-bit RGB")
    rgb = MODES[image.mode](image)
    transpose = _UPRIGHT.get(_orientation(image))  # read again: some versions of Pillow turn TIFFs as they load them
    return Opened(rgb if transpose is None else rgb.transpose(transpose), image.mode, turned)


def _orientation(image):
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 malformed metadata have no orientation, and the pixels are good
        return 1


def _convert(image):
    return image.convert("RGB")


def _unmultiply(image):
    return image.convert(image.mode.upper()).convert("RGB")


def _scale_integers(image):
    """Return 8 bits of v in [0, m] as round(255 v / m), for the maximum m of the file's format."""
    values, maximum = np.asarray(image), 2**16 - 1
    if image.format == "TIFF":
        maximum = 2 ** image.tag_v2[_BITS_PER_SAMPLE][0] - 1
    is_known = image.format in ("PNG", "PPM", "JPEG2000") or image.format == "TIFF" and image.mode != "I"
    if not is_known:
        raise ValueError(
            f"{image.format}, mode {image.mode}: its whole numbers go from {values.min()} to {values.max()}, but it is "
            "not known which is black and which is white; convert it to 8 or 16 unsigned bits"
        )
    return _grey((values.astype(np.uint32) * 255 + maximum // 2) // maximum, image)


def _scale_floats(image):
    """Return 8 bits of v in [0, 1] as round(255 v)."""
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"{image.format}, mode {image.mode}: expected numbers from 0 to 1, but they go from "
            f"{values.min():g} to {values.max():g}; scale them, or convert it to 8 or 16 bits"
        )
    return _grey((values * 255).round(), image)


def _grey(values, image):
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 255 - values
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


MODES = {  # every mode of Pillow's
    **dict.fromkeys(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"), _convert),
    **dict.fromkeys(("La", "RGBa"), _unmultiply),
    **dict.fromkeys(("I", "I;16", "I;16L", "I;16B", "I;16N"), _scale_integers),
    "F": _scale_floats,
}
