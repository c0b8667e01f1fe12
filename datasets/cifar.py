"""CIFAR-10N and CIFAR-100N: CIFAR with labels that people gave (Wei et al., ICLR 2022)."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torchvision import datasets as torchvision_datasets
from tqdm import tqdm

from dspt_atlas.commands import command_line
from dspt_atlas.datasets.formats import Item, Splits, read_lines, read_text
from dspt_atlas.datasets.noise import REAL, NoiseRecord
from dspt_atlas.datasets.reader import ImageDataset, data_root
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, expand_home, file_state

PIXELS = 3 * 32 * 32
READS_ARRAYS = "2.6"  # from this torch version on, files of NumPy arrays can be read without running their code


class CIFARN(ImageDataset):
    """CIFAR with one of its human label sets (`DATASET.CIFARN.LABELS`), tested on CIFAR's own test labels.

    The folder `dataset_dir` below the data root, or the root itself, holds CIFAR's binary or Python version and the
    label file. The images are exported once, as PNG files below the cache folder.
    """

    label_file = ""
    default_labels = ""
    names_file = ""
    binary_dir = ""
    binary_files = ((), ())  # of the training and the test images
    label_bytes = 1  # before each binary image; the last of them is the class
    python_version = torchvision_datasets.CIFAR10

    def __init__(self, cfg):
        if cfg.DATASET.SUBSAMPLE_CLASSES != "all":
            raise UserError(f"{type(self).__name__}: wrong labels cross the classes; use DATASET.SUBSAMPLE_CLASSES all")
        super().__init__(cfg)
        clean = [self._clean[item.impath] for item in self.train_x]
        settings = {"family": REAL, "type": self._label_set(cfg), "rate": self._rate, "seed": -1, "per_class": False}
        self.noise = NoiseRecord.of(self, cfg, clean, **settings)

    @classmethod
    def locate(cls, cfg):
        """Return the cache folder of this copy of CIFAR's images."""
        files = [path for path in sorted(cls._raw_folder(cfg).glob("*")) if path.is_file()]
        identity = [(str(path), *file_state(path)) for path in files]
        return cache_dir() / cls.dataset_dir / hashlib.sha256(repr(identity).encode()).hexdigest()[:16]

    @classmethod
    def expected_paths(cls, cfg):
        """Return CIFAR's own folder and the label file."""
        folder = cls._raw_folder(cfg)
        given = cfg.DATASET.CIFARN.FILE
        return [folder, data_root(cfg) / expand_home(given) if given else folder.parent / cls.label_file]

    @classmethod
    def _raw_folder(cls, cfg):
        root = data_root(cfg)
        parents = (root / cls.dataset_dir, root)
        choices = [parent / name for parent in parents for name in (cls.binary_dir, cls.python_version.base_folder)]
        return next((choice for choice in choices if choice.is_dir()), choices[0])

    @classmethod
    def _label_set(cls, cfg):
        return cfg.DATASET.CIFARN.LABELS or cls.default_labels

    def read_splits(self, cfg):
        """Return CIFAR's exported images; training images have the human labels."""
        raw, label_path = self.expected_paths(cfg)
        names, *arrays = self._read_arrays(raw)
        labels, clean = read_label_file(label_path, self._label_set(cfg))
        true = arrays[0][1].tolist()
        if len(labels) != len(true) or clean not in (None, true):
            raise UserError(f"{label_path}: its {len(labels)} labels do not belong to the {len(true)} images of {raw}")
        if not all(0 <= label < len(names) for label in labels):
            raise UserError(f"{label_path}: labels must be 0 to {len(names) - 1}")
        folder = export_images(self.locate(cfg), {"train": arrays[0][0], "test": arrays[1][0]})
        train = [str(folder / "train" / f"{index:05}.png") for index in range(len(true))]
        self._clean = dict(zip(train, true, strict=True))
        self._rate = float(np.mean(np.not_equal(labels, true)))
        return Splits(
            [Item(impath, label, names[label]) for impath, label in zip(train, labels, strict=True)],
            [],
            [Item(str(folder / "test" / f"{i:05}.png"), int(y), names[y]) for i, y in enumerate(arrays[1][1])],
        )

    def _read_arrays(self, folder):
        """Return the class names and, for training and test, images (N, 32, 32, 3) uint8 and labels (N,)."""
        if not folder.is_dir():
            raise UserError(
                f"{folder} is missing: `{command_line('download', type(self).__name__)}` says where CIFAR comes from"
            )
        if folder.name == self.binary_dir:
            splits = [self._read_binary([folder / name for name in names]) for names in self.binary_files]
            return read_lines(folder / self.names_file), *splits
        try:  # torchvision reads only files with the official checksums
            parts = [self.python_version(str(folder.parent), train=train) for train in (True, False)]
        except (RuntimeError, OSError) as error:
            raise UserError(f"{folder} cannot be read ({error})") from None
        return parts[0].classes, *((part.data, np.asarray(part.targets)) for part in parts)

    def _read_binary(self, paths):
        row = self.label_bytes + PIXELS
        for path in paths:
            if not path.is_file() or path.stat().st_size == 0 or path.stat().st_size % row:
                raise UserError(f"{path} is missing or truncated: expected a multiple of {row} bytes; fetch it again")
        rows = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, row) for path in paths])
        images = rows[:, self.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, rows[:, self.label_bytes - 1]


class CIFAR10N(CIFARN):
    """CIFAR-10N; label sets aggre_label, random_label1, 2, 3 and worse_label (about 40 % wrong)."""

    dataset_dir = "cifar10"
    label_file = "CIFAR-10_human.pt"
    default_labels = "worse_label"
    names_file = "batches.meta.txt"
    binary_dir = "cifar-10-batches-bin"
    binary_files = (tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",))


class CIFAR100N(CIFARN):
    """CIFAR-100N; label set noisy_label (about 40 % wrong)."""

    dataset_dir = "cifar100"
    label_file = "CIFAR-100_human.pt"
    default_labels = "noisy_label"
    names_file = "fine_label_names.txt"
    binary_dir = "cifar-100-binary"
    binary_files = (("train.bin",), ("test.bin",))
    label_bytes = 2
    python_version = torchvision_datasets.CIFAR100


def export_images(folder, splits):
    """Write {split: images (N, 32, 32, 3) uint8} as `folder/<split>/<index>.png`, once, and return `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            for split, images in splits.items():
                (unfinished / split).mkdir(parents=True)
                for index, image in enumerate(tqdm(images, desc=f"Exporting {split} images to {folder}")):
                    Image.fromarray(image).save(unfinished / split / f"{index:05}.png")
            unfinished.rename(folder)
    return folder


def read_label_file(path, label_set):
    """Return (labels, clean labels or None) from a `.pt`, `.npy`, `.txt` (one label per line) or `.csv` file, as lists.

    `.pt` files and `.csv` headers name their label sets. Raises UserError for another label set, and if the labels are
    not integers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"The label file {path} is missing: CIFAR-N offers it at http://noisylabels.com")
    try:
        if path.suffix == ".pt":
            columns = _load_arrays(path)
        elif path.suffix == ".npy":
            columns = {label_set: np.load(path, allow_pickle=False)}
        elif path.suffix == ".csv":
            rows = list(csv.DictReader(io.StringIO(read_text(path))))
            columns = {name: np.array([int(row[name]) for row in rows]) for name in rows[0]}
        else:
            columns = {label_set: np.array([int(line) for line in read_lines(path)])}
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 torch and NumPy raise a dozen kinds for a broken file
        hint = ""
        if path.suffix == ".pt" and torch.__version__ < READS_ARRAYS:
            hint = (
                f": torch {torch.__version__} cannot read arrays; use {READS_ARRAYS} or newer, or set "
                "DATASET.CIFARN.FILE to a .csv or .npy file"
            )
        said = "" if "\n" in str(error) else f": {error}"  # torch's advice is many lines, and dangerous to follow
        raise UserError(f"{path} cannot be read as labels ({type(error).__name__}{said}){hint}") from None
    if label_set not in columns:
        raise UserError(
            f'{path} has the label sets {", ".join(columns)}, but not "{label_set}": set DATASET.CIFARN.LABELS'
        )
    return _label_list(columns[label_set], path), (
        _label_list(columns["clean_label"], path) if "clean_label" in columns else None
    )


def _label_list(array, path):
    array = np.asarray(array)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{path}: expected one row of integers, but got {array.dtype} of shape {array.shape}")
    return array.tolist()


def _load_arrays(path):
    """Load a torch file of NumPy arrays; only plain integer arrays are admitted."""
    types = [np.ndarray, np.dtype, *(type(np.dtype(name)) for name in ("int64", "int32", "uint8"))]
    reconstruct = np.zeros(0).__reduce__()[0]
    names = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    is_able = torch.__version__ >= READS_ARRAYS
    allowed: list = [*types, *((reconstruct, name) for name in names)]
    with torch.serialization.safe_globals(allowed) if is_able else nullcontext():
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dictionary of label sets, but got {type(content).__name__}")
    return content
