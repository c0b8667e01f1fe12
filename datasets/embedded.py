"""The embedded benchmark: small emoji data sets and tiny CLIP backbones that come with the package."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

from ..errors import UserError
from ..paths import cache_dir
from .formats import read_split_json
from .reader import ImageDataset

DATA = Path(__file__).parent / "embedded_data"
BACKBONES = {"EmojiRN": "emoji_rn.pt", "EmojiViT": "emoji_vit.pt"}


def backbone_path(name):
    """Return the checkpoint of an embedded backbone, `EmojiRN` or `EmojiViT`; raises UserError for another name."""
    if name not in BACKBONES:
        raise UserError(f"Expected an embedded backbone, one of {', '.join(BACKBONES)}, got '{name}'")
    return str(DATA / BACKBONES[name])


class EmbeddedDataset(ImageDataset):
    """A data set inside the package, unpacked once under the cache folder; `DATASET.ROOT` is not used."""

    archive = ""
    templates = ("a photo of a {}.",)

    @classmethod
    def locate(cls, cfg):
        """Return the folder that holds the unpacked images and `split.json`."""
        return unpack(DATA / cls.archive)

    def read_splits(self, cfg):
        """Return the items of the unpacked `split.json`."""
        folder = self.locate(cfg)
        return read_split_json(folder / "split.json", folder / "images")


class Emoji(EmbeddedDataset):
    """60 animals, fruits and plants, drawings of two styles, 32 / 8 / 20 images a class."""

    archive = "emoji.zip"


class EmojiObjects(EmbeddedDataset):
    """44 vehicles, tools, instruments and other things in the same two styles, 16 / 4 / 16 images a class."""

    archive = "emoji_objects.zip"


class EmojiV2(EmbeddedDataset):
    """The classes and drawings of `Emoji`, distorted more, 10 test images a class."""

    archive = "emoji_v2.zip"
    test_only = True


class EmojiFlat(EmbeddedDataset):
    """The classes of `Emoji` in a third, flat style, 10 test images a class."""

    archive = "emoji_flat.zip"
    test_only = True


class EmojiInk(EmbeddedDataset):
    """The classes of `Emoji` as one-colour line drawings, 10 test images a class."""

    archive = "emoji_ink.zip"
    test_only = True


EMBEDDED = (Emoji, EmojiObjects, EmojiV2, EmojiFlat, EmojiInk)


def unpack(archive):
    """Unpack an archive of the package into the cache folder, once, and return the folder.

    Several processes may ask at once: each unpacks aside, the first to rename wins. Raises UserError where the cache folder
    cannot be written.
    """
    checksum = zlib.crc32(archive.read_bytes())
    folder = cache_dir() / "embedded" / f"{archive.stem}-{checksum:08x}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=folder.parent, prefix=f".{archive.stem}-")
        try:
            with zipfile.ZipFile(archive) as file:
                file.extractall(temporary)
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():
            raise UserError(f"Cannot unpack {archive.name} into {folder.parent} ({error.strerror or error}): free some space, or "
                            "set DSPT_ATLAS_CACHE to a folder that can be written") from error
    return folder
