"""Downloading data sets in the layout of the CoOp family; for those that cannot be downloaded, where to get them."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from torchvision.datasets.utils import calculate_md5, download_url

from dspt_atlas.datasets.archives import extract
from dspt_atlas.datasets.formats import read_split_json
from dspt_atlas.digests import file_digest
from dspt_atlas.errors import UserError

FAMILY_GUIDE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True)
class Archive:
    """An archive, its checksum if torchvision has one, and where its parts go below the data root."""

    url: str
    md5: str | None
    moves: dict[str, str]
    inner: str = ""  # an archive inside the archive that holds the parts


ARCHIVES = {
    "Caltech101": [
        Archive(
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            "3138e1922a9193bfa496528edbbc45d0",
            {"101_ObjectCategories": "caltech-101/101_ObjectCategories"},
            "caltech-101/101_ObjectCategories.tar.gz",
        )
    ],
    "OxfordPets": [
        Archive(
            f"{OXFORD}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", {"images": "oxford_pets/images"}
        ),
        Archive(
            f"{OXFORD}/pets/data/annotations.tar.gz",
            "95a8c909bbe2e81eed6a22bccdf3f68f",
            {"annotations": "oxford_pets/annotations"},
        ),
    ],
    "OxfordFlowers": [
        Archive(
            f"{OXFORD}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", {"jpg": "oxford_flowers/jpg"}
        )
    ],
    "Food101": [
        Archive(
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "85eeb15f3717b99a5da872d97d918f87",
            {"food-101/images": "food-101/images", "food-101/meta": "food-101/meta"},
        )
    ],
    "FGVCAircraft": [
        Archive(
            f"{OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            None,
            {"fgvc-aircraft-2013b/data": "fgvc_aircraft"},
        )
    ],
    "SUN397": [
        Archive(
            "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            "8ca2778205c41d23104230ba66911c7a",
            {"SUN397": "sun397/SUN397"},
        )
    ],
    "DescribableTextures": [
        Archive(
            f"{OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",
            "fff73e5086ae6bdbea199a49dfb8a4c1",
            {"dtd/images": "dtd/images", "dtd/labels": "dtd/labels"},
        )
    ],
    "EuroSAT": [
        Archive(
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "c8fa014336c82ac7804f0398fcb19387",
            {"2750": "eurosat/2750"},
        )
    ],
    "CIFAR10N": [
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            {"cifar-10-batches-py": "cifar10/cifar-10-batches-py"},
        )
    ],
    "CIFAR100N": [
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            {"cifar-100-python": "cifar100/cifar-100-python"},
        )
    ],
}
SPLIT_FILES = {  # the address that FAMILY_GUIDE links to, and the MD5 checksum
    "Caltech101": (
        "https://drive.google.com/uc?export=download&id=1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
        "385cabeb25ebeebaa36167d7028ebc52",
    )
}
_CIFARN = "the label file {} comes from http://noisylabels.com (https://github.com/UCSC-REAL/cifar-10-100n), into {}"
_VARIANT = "classnames.txt may lie in imagenet/ of the same root. Layout: " + FAMILY_GUIDE
SOURCES = {
    "ImageNet": "ILSVRC2012 from https://image-net.org (an account is needed), as imagenet/images/{train,val}/<wnid>/; "
    f"classnames.txt: {FAMILY_GUIDE}",
    "ImageNetV2": "https://github.com/modestyachts/ImageNetV2, matched-frequency; " + _VARIANT,
    "ImageNetSketch": "https://github.com/HaohanWang/ImageNet-Sketch; " + _VARIANT,
    "ImageNetA": "https://github.com/hendrycks/natural-adv-examples; " + _VARIANT,
    "ImageNetR": "https://github.com/hendrycks/imagenet-r; " + _VARIANT,
    "StanfordCars": f"the original site is gone; {FAMILY_GUIDE} and "
    "https://github.com/pytorch/vision/issues/7545 name mirrors",
    "UCF101": f"the middle frames (UCF-101-midframes.zip): {FAMILY_GUIDE}",
    "Food101N": "https://kuanghuei.github.io/Food-101N/, as food-101n/{images,meta}; and Food101 for the test set",
    "CIFAR10N": _CIFARN.format("CIFAR-10_human.pt", "cifar10/"),
    "CIFAR100N": _CIFARN.format("CIFAR-100_human.pt", "cifar100/"),
}


def split_file_source(dataset):
    """Say where the split file of `dataset` comes from, or "" if it has none."""
    name = getattr(dataset, "split_file", "")
    return f"{dataset.dataset_dir}/{name}, the family's split file, is linked in {FAMILY_GUIDE}" if name else ""


def fetch(name, root, urls=()):
    """Download and unpack the archives of the data set `name` below `root`; existing files are not touched.

    `urls` replace the built-in ones, in order; their files are not compared with a checksum. Raises UserError.
    """
    archives = ARCHIVES[name]
    if urls and len(urls) != len(archives):
        raise UserError(f"{name} consists of {len(archives)} archives, but {len(urls)} URLs were given")
    for index, archive in enumerate(archives):
        if all((root / target).exists() for target in archive.moves.values()):
            print(f"{', '.join(archive.moves.values())}: already there")
            continue
        url, md5 = (urls[index], None) if urls else (archive.url, archive.md5)
        print(url)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as unpacked:
            path = download(url, root / ".downloads", md5)
            _place(archive, path, Path(unpacked), root)
        path.unlink()
    _remove_if_empty(root / ".downloads")


def fetch_split_file(dataset, root, url=""):
    """Download the split file of `dataset` from `url`, or from SPLIT_FILES, to its place; an existing one stays.

    Raises UserError, also if the download is not a split file.
    """
    target = root / dataset.dataset_dir / dataset.split_file
    if target.exists():
        print(f"{target}: already there")
        return
    url, md5 = (url, None) if url else SPLIT_FILES[dataset.__name__]
    try:
        path = download(url, root / ".downloads", md5, f"put it at {target}")
    finally:
        _remove_if_empty(root / ".downloads")
    read_split_json(path, target.parent / dataset.image_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)


def _remove_if_empty(folder):
    with contextlib.suppress(OSError):  # not there, or not empty
        folder.rmdir()


def download(url, folder, md5, otherwise=""):
    """Download `url` into `folder`, under a temporary name until it is complete and has the MD5 checksum `md5`.

    Returns the path. Shows a progress bar. Without `md5`, prints the file's SHA-256, to compare by eye. Raises
    UserError; without a network it says what to do `otherwise` with a file that was fetched elsewhere.
    """
    name = url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    path, partial = folder / name, folder / f"{name}.part"
    if path.exists() and md5 is not None and calculate_md5(path) == md5:
        return path
    if not otherwise:
        otherwise = f"put it into {folder}" if md5 else "give its address there by --url"
    for left in (path, partial):
        left.unlink(missing_ok=True)
    try:
        download_url(url, str(folder), partial.name, md5)
        partial.replace(path)
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise UserError(
            f"{url} cannot be downloaded ({error}): try again, or fetch it on a machine with network access and "
            f"{otherwise}."
        ) from None
    except RuntimeError:
        raise UserError(f"{url}: the file was removed, because its checksum is wrong: try again") from None
    finally:
        partial.unlink(missing_ok=True)
    if md5 is None:
        print(f"{name}: no checksum to compare with; its SHA-256 is {file_digest(path)}")
    return path


def _place(archive, path, unpacked, root):
    try:
        extract(path, unpacked)
        if archive.inner and (unpacked / archive.inner).is_file():
            extract(unpacked / archive.inner, unpacked)
        for part in archive.moves:
            if not (unpacked / part).exists():
                raise UserError(f"{path.name} does not hold {archive.inner and archive.inner + ': '}{part}")
    except UserError:
        path.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be unpacked ({error.strerror}): free some space, and start this again"
        ) from error
    for part, target in archive.moves.items():
        if not (root / target).exists():
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / part).rename(root / target)
