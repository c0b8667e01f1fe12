"""`Noisy<Name>`: any registered data set with wrong training labels, by `DATASET.NOISE` (methods.md, section 4)."""

from __future__ import annotations

import os
import secrets
from pathlib import PurePath

from dassl.data.datasets import DATASET_REGISTRY, Datum

from ..errors import UserError
from .noise import NoiseRecord, check_noise, check_num_classes, corrupt_labels, draw_swaps

PREFIX = "Noisy"


def make_noisy(base):
    """Return the class `Noisy<base>`: constructs `base`, then corrupts `train_x` in place and notes it in `.noise`."""

    def __init__(self, cfg):
        base.__init__(self, cfg)
        record = _corrupt(self, cfg)
        if record is not None:
            self.noise = record

    members = {"__init__": __init__, "__doc__": f"{base.__name__} with label noise.", "__module__": __name__}
    return type(PREFIX + base.__name__, (base,), {**members, "clean_class": base})


def register_noisy():
    """Register `Noisy<Name>` of every registered data set class; names that somebody else took stay theirs."""
    for name in DATASET_REGISTRY.registered_names():
        base = DATASET_REGISTRY.get(name)
        if hasattr(base, "clean_class") or not isinstance(base, type):
            continue
        taken = PREFIX + name in DATASET_REGISTRY.registered_names()
        current = getattr(DATASET_REGISTRY.get(PREFIX + name), "clean_class", None) if taken else None
        if not taken or (current is not None and current is not base):
            noisy = make_noisy(base)
            noisy.__name__ = noisy.__qualname__ = PREFIX + name
            DATASET_REGISTRY.register(noisy, force=True)


def _corrupt(dataset, cfg):
    """Apply `cfg.DATASET.NOISE` to `dataset.train_x` in place and return the record, or None without noise."""
    noise = cfg.DATASET.NOISE
    check_noise(noise.FAMILY, noise.TYPE, noise.RATE)
    if not noise.FILE and (noise.TYPE == "none" or noise.RATE == 0):
        return None
    _check_possible(dataset)
    if noise.FILE:
        return _replay(dataset, cfg)
    seed = _noise_seed(cfg)
    clean = [item.label for item in dataset.train_x]
    given = clean
    if noise.FAMILY == "relabel":
        given = corrupt_labels(clean, dataset.num_classes, noise.TYPE, noise.RATE, seed, noise.PER_CLASS)
        _relabel(dataset, given)
    else:
        pool = _train_pool(dataset, cfg)
        swaps = draw_swaps(dataset.train_x, pool, dataset.num_classes, noise.TYPE, noise.RATE, seed)
        clean = [swaps[index].label if index in swaps else label for index, label in enumerate(clean)]
        _swap_images(dataset, {index: item.impath for index, item in swaps.items()})
    return NoiseRecord(
        dataset=cfg.DATASET.NAME, family=noise.FAMILY, type=noise.TYPE, rate=float(noise.RATE), seed=seed,
        per_class=noise.FAMILY == "swap" or bool(noise.PER_CLASS), num_classes=dataset.num_classes,
        paths=[_relative(dataset, cfg, item.impath) for item in dataset.train_x], clean=clean, given=given,
    )


def _check_possible(dataset):
    name = type(dataset).__name__
    check_num_classes(dataset.num_classes)
    if any(dataset.train_x is split for split in (dataset.val, dataset.test)):
        raise UserError(f"{name}: training and test images are the same list; noise is for training labels only")
    if getattr(dataset, "noise", None) is not None:
        raise UserError(f"{name} has wrong labels of its own: set DATASET.NOISE.TYPE none")


def _noise_seed(cfg):
    for seed in (cfg.DATASET.NOISE.SEED, cfg.SEED):
        if seed >= 0:
            return seed
    seed = secrets.randbelow(2**31)
    print(f"No seed is set: the label noise uses DATASET.NOISE.SEED {seed}")
    return seed


def _train_pool(dataset, cfg):
    if not hasattr(dataset, "train_pool"):
        raise UserError(
            f'Noise family "swap" needs the full training list, which {type(dataset).__name__} does not offer: '
            "use DATASET.NOISE.FAMILY relabel"
        )
    return dataset.train_pool(cfg)


def _relabel(dataset, given):
    for index, (item, label) in enumerate(zip(dataset.train_x, given, strict=True)):
        if item.label != label:
            dataset.train_x[index] = Datum(
                impath=item.impath, label=label, domain=item.domain, classname=dataset.lab2cname[label]
            )


def _swap_images(dataset, impaths):
    for index, impath in impaths.items():
        item = dataset.train_x[index]
        dataset.train_x[index] = Datum(impath=impath, label=item.label, domain=item.domain, classname=item.classname)


def _relative(dataset, cfg, impath):
    root = os.path.expanduser(getattr(dataset, "path_root", cfg.DATASET.ROOT))
    return PurePath(os.path.relpath(impath, root)).as_posix()


def _replay(dataset, cfg):
    """Apply the noise of `DATASET.NOISE.FILE`; raises UserError where it does not fit this training set."""
    path = cfg.DATASET.NOISE.FILE
    record = NoiseRecord.load(os.path.expanduser(path))
    _check_settings(record, dataset, cfg.DATASET.NOISE)
    pool = {}
    if record.family == "swap":
        pool = {_relative(dataset, cfg, item.impath): item for item in _train_pool(dataset, cfg)}
    swapped = {}
    samples = zip(dataset.train_x, record.paths, record.clean, record.given, strict=True)
    for index, (item, relative, clean, given) in enumerate(samples):
        replaced = record.family == "swap" and clean != given
        source = pool.get(relative) if replaced else item
        fits = source is not None and (_relative(dataset, cfg, source.impath), source.label) == (relative, clean)
        if not fits or (replaced and given != item.label):
            raise UserError(
                f"{path} does not fit this training set: sample {index} is {relative} with clean label {clean} there, "
                f"{_relative(dataset, cfg, item.impath)} with {item.label} here: use the same data set, shots and seed"
            )
        if replaced:
            swapped[index] = source.impath
    if record.family == "swap":
        _swap_images(dataset, swapped)
    else:
        _relabel(dataset, record.given)
    return record


def _check_settings(record, dataset, noise):
    for key, asked, found in (("TYPE", noise.TYPE, record.type), ("RATE", noise.RATE, record.rate)):
        if asked not in ("none", 0, found):
            raise UserError(f"DATASET.NOISE.{key} is {asked}, but {noise.FILE} holds {found}: leave out either")
    if (len(record.paths), record.num_classes) != (len(dataset.train_x), dataset.num_classes):
        raise UserError(
            f"{noise.FILE} is for {len(record.paths)} training images of {record.num_classes} classes, but there are "
            f"{len(dataset.train_x)} of {dataset.num_classes}: use the same data set, shots, seed and classes"
        )
