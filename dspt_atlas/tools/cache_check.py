"""Whether an entry of the feature cache holds the features that its images and its backbone give today."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.model import fingerprint, load_clip
from dspt_atlas.trainers.features.cached import encode_views, identify_images, images_digest
from dspt_atlas.trainers.features.views import ViewDataset, rebuild_transform

# Rounding can explain this relative distance of two features; float16 and a GPU's TF32 round coarsely.
LIMIT_EXACT, LIMIT_COARSE = 1e-3, 0.05


class NotRecomputed(Exception):
    """Why an entry's samples could not be encoded again."""


def recompute(entry, samples, backbone):
    """Encode a few images again; return (problem or None, state). Raises NotRecomputed with the reason."""
    meta, images = entry.meta, entry.images
    inputs = meta["inputs"]
    array = np.load(entry.array_path, mmap_mode="r").reshape(-1, *meta["shape"][-2:])  # (V, N, d)
    try:
        is_whole = inputs["images"] in (images_digest(images), images_digest(images, content_hash=True))
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        return "images.json has changed since it was written", None
    keys = sorted(
        {(index % len(array), index) for index in np.linspace(0, len(images) - 1, samples).astype(int).tolist()}
    )
    if not keys:
        raise NotRecomputed("no samples asked for")
    require_same_images([images[index] for _, index in keys])
    items = [SimpleNamespace(impath=path, label=0, domain=0) for path, _ in images]
    try:
        transform = rebuild_transform(inputs["transform"])
        dataset = ViewDataset(items, transform, inputs["seed"], inputs["views"])
        tower = tower_of(backbone or meta.get("backbone"), inputs["backbone"])
        anew = next(encode_views(tower, dataset, [keys], raw=inputs.get("raw", False)))
    except UserError as error:
        raise NotRecomputed(error) from error
    differences = np.linalg.norm(anew - np.stack([array[key] for key in keys]), axis=1)
    distance = float((differences / np.linalg.norm(anew, axis=1)).max())
    exact = (inputs["precision"], inputs["device"]) == ("torch.float32", "cpu")
    if not distance <= (LIMIT_EXACT if exact else LIMIT_COARSE):
        return f"{len(keys)} recomputed features differ by up to {distance:.2g}", None
    return None, f"complete; {len(keys)} recomputed features differ by at most {distance:.1g}"


def require_same_images(images):
    """Raise NotRecomputed if one of these [path, identity] has changed."""
    by_content = len(images[0][1]) == 64
    try:
        now = identify_images([path for path, _ in images], by_content)
    except UserError as error:
        raise NotRecomputed(error) from error
    for (path, before), (_, after) in zip(images, now, strict=True):
        if before != after:
            raise NotRecomputed(f"{path} has changed, so this entry will not be used again")


@functools.lru_cache(maxsize=1)
def tower_of(backbone, expected):
    """Return the image tower of a backbone; raises NotRecomputed if it has other weights than the entry's."""
    if not backbone:
        raise NotRecomputed("the entry does not have the name of its backbone: give it by --backbone")
    model = load_clip(backbone)
    if fingerprint(model) != expected:
        raise NotRecomputed(f"{backbone} has other weights than the entry's backbone")
    return model.visual
