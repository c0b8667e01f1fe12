"""The embedded benchmark: small emoji data sets and tiny CLIP backbones that come with the package."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import torch

from dspt_atlas.datasets.formats import read_split_json
from dspt_atlas.datasets.reader import ImageDataset
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, remove_leftovers, temporary_name, write_atomically

DATA = Path(__file__).parent / "embedded_data"
_compared = set()  # what this process has compared and found unchanged
BACKBONES = {"EmojiRN": ("emoji_rn.pt",), "EmojiViT": ("emoji_rn.pt", "emoji_vit_visual.pt")}


def backbone_path(name):
    """Return the checkpoint of an embedded backbone, `EmojiRN` or `EmojiViT`.

    `EmojiViT` has the text tower of `EmojiRN`, which is stored once. So its checkpoint is put together in the cache
    folder at first use. Raises UserError for another name, and if the cache folder cannot be written.
    """
    if name not in BACKBONES:
        raise UserError(f"Expected an embedded backbone, one of {', '.join(BACKBONES)}, got '{name}'")
    files = [DATA / file for file in BACKBONES[name]]
    if len(files) == 1:
        return str(files[0])
    sources = zlib.crc32(b"".join(file.read_bytes() for file in files))
    return str(_assembled(name, files, cache_dir() / "embedded" / f"{name}-{sources:08x}"))


def backbone_checkpoint(name: str) -> str:
    """Return the path of an embedded backbone's checkpoint; other names and paths do not change."""
    return backbone_path(name) if name in BACKBONES else name


def _assembled(name, files, stem):
    """Return the checkpoint made of two, `stem-CHECKSUM.pt`; a file with another checksum is made again."""
    for path in sorted(stem.parent.glob(f"{stem.name}-????????.pt")):
        if path in _compared or f"{_crc32(path):08x}" == path.stem[-8:]:
            _compared.add(path)
            return path
        print(f"{path} is damaged: it is made again")
        path.unlink()
    text, visual = (torch.load(file, weights_only=True, map_location="cpu") for file in files)
    data = io.BytesIO()
    torch.save({**{key: value for key, value in text.items() if not key.startswith("visual.")}, **visual}, data)
    path = stem.with_name(f"{stem.name}-{zlib.crc32(data.getvalue()):08x}.pt")
    try:
        write_atomically(path, data.getvalue())
    except OSError as error:
        raise _not_writable(name, path.parent, error) from error
    return path


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
    """60 animals, fruits and plants, drawings of two styles, 32 / 8 / 20 images per class."""

    archive = "emoji.zip"


class EmojiObjects(EmbeddedDataset):
    """44 vehicles, tools, instruments and other things in the same two styles, 16 / 4 / 16 images per class."""

    archive = "emoji_objects.zip"


class EmojiV2(EmbeddedDataset):
    """The classes and drawings of `Emoji`, distorted more, 10 test images per class."""

    archive = "emoji_v2.zip"
    test_only = True


class EmojiFlat(EmbeddedDataset):
    """The classes of `Emoji` in a third, flat style, 10 test images per class."""

    archive = "emoji_flat.zip"
    test_only = True


class EmojiInk(EmbeddedDataset):
    """The classes of `Emoji` as one-colour line drawings, 10 test images per class."""

    archive = "emoji_ink.zip"
    test_only = True


EMBEDDED = (Emoji, EmojiObjects, EmojiV2, EmojiFlat, EmojiInk)


def unpack(archive):
    """Unpack an archive of the package into the cache folder and return the folder.

    Existing files are compared with the archive, once per process; damaged files are written again. Raises UserError if
    the cache folder cannot be written.
    """
    folder = cache_dir() / "embedded" / f"{archive.stem}-{zlib.crc32(archive.read_bytes()):08x}"
    if folder in _compared and folder.is_dir():
        return folder
    try:
        with zipfile.ZipFile(archive) as file:
            files = {folder / member.filename: member for member in file.infolist() if not member.is_dir()}
            wrong = [path for path, member in files.items() if _crc32(path) != member.CRC]
            if wrong and folder.is_dir():
                print(f"{len(wrong)} of {len(files)} files in {folder} are missing or damaged: they are unpacked again")
            for parent in {path.parent for path in wrong}:
                parent.mkdir(parents=True, exist_ok=True)
                remove_leftovers(parent)
            for path in wrong:  # several processes may write the same at once
                temporary = path.with_name(temporary_name(path.name))
                temporary.write_bytes(file.read(files[path]))
                temporary.replace(path)
    except OSError as error:
        raise _not_writable(archive.name, folder.parent, error) from error
    _compared.add(folder)
    return folder


def _crc32(path):
    """Return the checksum of a file, or -1 if it cannot be read."""
    try:
        return zlib.crc32(path.read_bytes())
    except OSError:
        return -1


def _not_writable(name, folder, error):
    return UserError(
        f"Cannot unpack {name} into {folder} ({error.strerror or error}): free some space, or set "
        "DSPT_ATLAS_CACHE to a folder that can be written"
    )
