"""Frozen image features, encoded once and kept on disk, and the loader that trains on them."""

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset

from dspt_atlas.datasets.images import READING
from dspt_atlas.digests import file_digest
from dspt_atlas.errors import UserError
from dspt_atlas.paths import file_state
from dspt_atlas.trainers.clip.model import fingerprint
from dspt_atlas.trainers.clip.towers import ImageTower, image_dtype
from dspt_atlas.trainers.features.entry import FORMAT
from dspt_atlas.trainers.features.store import FeatureStore, InputsChanged
from dspt_atlas.trainers.features.views import ViewDataset, describe_transform


def frozen_features(
    clip_model,
    items,
    transform,
    *,
    cache_dir,
    max_bytes,
    views=0,
    seed=0,
    batch_size=256,
    num_workers=0,
    device: str | torch.device = "cpu",
    backbone="",
    content_hash=False,
    raw=False,
):
    """Return features of images by CLIP's frozen image tower, a memory-mapped float32 array.

    L2-normalised unless `raw`. The shape is (N, d) for `views` 0 (a test transform) and (V, N, d) otherwise: view v is
    the one that `ViewDataset` shows in epoch v with `seed`. Images are encoded once. Then the features are found in
    `cache_dir`/features by a hash of the tower's weights, the image list, transform, views, seed, precision and kind of
    device. The image list has path, size and times of change of each file, or the files' contents with `content_hash`.
    The global random generators do not change. `backbone` is only stored, for `dspt-atlas cache`. Raises UserError,
    also if an image changes while it is encoded.
    """
    if not len(items):
        raise UserError("Expected at least one image to encode, got an empty list.")
    device = torch.device(device)
    paths = [item.impath for item in items]
    images = identify_images(paths, content_hash)
    seed = seed if views else 0  # without augmentation every seed shares the features
    inputs = _inputs(clip_model, images_digest(images, content_hash), transform, views, seed, device, raw)
    notes = {
        "backbone": str(backbone),
        "folder": os.path.commonpath([Path(path).parent for path, _ in images]),
        "transform": repr(transform),
        "versions": {library.__name__: library.__version__ for library in (torch, torchvision, PIL)},
    }
    dataset = ViewDataset(items, transform, seed, views)

    def encode(first_view):
        batches = _batches(range(first_view, max(views, 1)), len(items), batch_size)
        yield from encode_views(clip_model.visual, dataset, batches, num_workers, device, raw)
        if identify_images(paths, content_hash) != images:
            raise InputsChanged("Images were changed while they were encoded: start this again to encode them again.")

    shape = (*([views] if views else []), len(items), clip_model.visual.output_dim)
    return FeatureStore(cache_dir).get(inputs, shape, encode, max_bytes=max_bytes, images=images, notes=notes)


def _inputs(clip_model, images, transform, views, seed, device, raw):
    return {
        "format": FORMAT,
        "reading": READING,
        "backbone": fingerprint(clip_model),
        "images": images,
        "transform": describe_transform(transform),
        "views": views,
        "seed": seed,
        "precision": str(image_dtype(clip_model.visual)),
        "device": device.type,
        **({"raw": True} if raw else {}),  # entries of normalised features keep the key that they had before
    }


def _batches(views, count, size):
    """Yield lists of (view, index), of one view each: where encoding started does not change the features."""
    for view in views:
        for start in range(0, count, size):
            yield [(view, index) for index in range(start, min(start + size, count))]


def identify_images(paths, content_hash=False):
    """Return [absolute path, identity] of each image; the identity changes when the file does. Raises UserError."""
    images = []
    for path in map(os.path.abspath, paths):
        try:
            if content_hash:
                identity = file_digest(path)
            else:
                identity = ":".join(map(str, file_state(path)))
        except OSError as error:
            raise UserError(f"Expected an image at {path}, but it cannot be read ({error.strerror}).") from error
        images.append([path, identity])
    return images


def images_digest(images, content_hash=False):
    """Return the sha256 (hex) of [path, identity] pairs, or of the identities alone if these are hashes of contents."""
    known_by = [identity for _, identity in images] if content_hash else images
    return hashlib.sha256(json.dumps(known_by).encode()).hexdigest()


@torch.no_grad()
def encode_views(tower, dataset, batches, num_workers=0, device: str | torch.device = "cpu", raw=False):
    """Yield float32 features (b, d) of a ViewDataset's images, per list of (view, index) in `batches`.

    They are L2-normalised unless `raw`.
    """
    device = torch.device(device)
    loader = DataLoader(
        _Images(dataset),
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # a loader draws a seed for its workers, but not from the run's generator
    )
    layout = torch.contiguous_format if hasattr(tower, "transformer") else torch.channels_last
    tower = copy.deepcopy(tower).eval()
    if not isinstance(tower, ImageTower):  # in others' towers equal names may mean something else
        fold_batch_norms(tower)
    tower = tower.to(memory_format=layout)
    for images in _with_plain_errors(loader):
        images = images.to(device, image_dtype(tower), non_blocking=True, memory_format=layout)
        with torch.autocast(device.type, enabled=False):
            features = tower(images).float()
            features = features if raw else F.normalize(features, dim=-1)
        if not features.isfinite().all():
            raise UserError(
                "Expected finite image features, got NaN or infinity: the backbone's weights are damaged, or fp16 "
                "overflows (set the trainer's PREC to fp32)."
            )
        yield features.cpu().numpy()


def fold_batch_norms(tower):
    """Fold the batch norms of a float32 ResNet into the convolutions before them, in place; return the tower.

    w' = w g / sqrt(v + e), b' = (b - m) g / sqrt(v + e) + beta, for gain g, shift beta, running mean m and variance v.
    """
    for module in list(tower.modules()):
        pairs = [(name, name.replace("conv", "bn")) for name, _ in module.named_children() if name.startswith("conv")]
        if isinstance(module, nn.Sequential):
            pairs = [("0", "1")]  # CLIP's downsampling branch
        for conv_name, norm_name in pairs:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.weight.dtype == torch.float32:
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return tower


def _with_plain_errors(loader):
    try:
        yield from loader
    except UserError as error:  # a worker's error has the whole traceback in its message
        raise UserError(str(error).strip().splitlines()[-1].removeprefix("dspt_atlas.errors.UserError: ")) from None


class _Images(Dataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, key):
        view, index = key
        return self.dataset.image(index, view)


class FeatureLoader(DataLoader):
    """Batches of features in place of images: dassl's dict of label, domain, impath, index, and img (B, d) float32.

    `features` are (N, d), or (V, N, d); then epoch `e` sees view `e % V`. Row i belongs to item i. `sampler` orders the
    items, as in the loader of images. Like dassl's loader, it drops an incomplete last batch only if there is a
    complete one. Copies share the features. Raises UserError if the counts differ.
    """

    dataset: Any

    def __init__(self, features, items, batch_size, sampler, drop_last):
        super().__init__(
            _FeatureDataset(features, items),
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last and len(items) >= batch_size,
            collate_fn=_as_it_is,
        )

    def __iter__(self):
        self.dataset.check_counts()
        return super().__iter__()

    def set_epoch(self, epoch):
        """Show the view of this epoch from now on."""
        self.dataset.set_epoch(epoch)


def _as_it_is(batch):
    return batch


class _FeatureDataset(Dataset):
    def __init__(self, features, items):
        self.features = features if features.ndim == 3 else features[None]  # (V, N, d)
        self.data_source = items
        self.views = len(self.features)
        self.set_epoch(0)
        self.check_counts()

    def check_counts(self):
        if len(self.data_source) != self.features.shape[1]:
            raise UserError(
                f"Expected one feature per item, got {self.features.shape[1]} features and "
                f"{len(self.data_source)} items: set INPUT.CACHE none if items are removed while training."
            )

    def set_epoch(self, epoch):
        self.view = epoch % self.views

    def __len__(self):
        return len(self.data_source)

    def __getitems__(self, indices):
        items = [self.data_source[index] for index in indices]
        return {
            "label": torch.tensor([item.label for item in items]),
            "domain": torch.tensor([item.domain for item in items]),
            "impath": [item.impath for item in items],
            "index": torch.tensor(indices),
            "img": torch.from_numpy(np.asarray(self.features[self.view, indices])),
        }

    def __deepcopy__(self, memo):
        memo[id(self.features)] = self.features
        copied = object.__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied
