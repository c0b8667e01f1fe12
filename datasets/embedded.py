"""The embedded benchmark: small emoji data sets and tiny CLIP backbones that come with the package."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import torch

from ..errors import UserError
from ..paths import cache_dir, write_atomically
from .formats import read_split_json
from .reader import ImageDataset

DATA = Path(__file__).parent / "embedded_data"
BACKBONES = {"EmojiRN": ("emoji_rn.pt",), "EmojiViT": ("emoji_rn.pt", "emoji_vit_visual.pt")}


def backbone_path(name):
    """Return the checkpoint of an embedded backbone, `EmojiRN` or `EmojiViT`.

    `EmojiViT` has the text tower of `EmojiRN`, which is stored once: its checkpoint is put together in the cache folder at
    first use. Raises UserError for another name, and where the cache folder cannot be written.
    """
    if name not in BACKBONES:
        raise UserError(f"Expected an embedded backbone, one of {', '.join(BACKBONES)}, got '{name}'")
    files = [DATA / file for file in BACKBONES[name]]
    if len(files) == 1:
        return str(files[0])
    checksum = zlib.crc32(b"".join(file.read_bytes() for file in files))
    path = cache_dir() / "embedded" / f"{name}-{checksum:08x}.pt"
    if not path.is_file():
        text, visual = (torch.load(file, weights_only=True, map_location="cpu") for file in files)
        data = io.BytesIO()
        torch.save({**{key: value for key, value in text.items() if not key.startswith("visual.")}, **visual}, data)
        try:
            write_atomically(path, data.getvalue())
        except OSError as error:
            raise _not_writable(name, path.parent, error) from error
    return str(path)


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
            raise _not_writable(archive.name, folder.parent, error) from error
    return folder


def _not_writable(name, folder, error):
    return UserError(f"Cannot unpack {name} into {folder} ({error.strerror or error}): free some space, or set "
                     "DSPT_ATLAS_CACHE to a folder that can be written")
