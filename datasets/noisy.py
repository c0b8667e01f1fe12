"""`Noisy<Name>`: any registered data set with wrong training labels, by `DATASET.NOISE` (methods.md, section 4)."""

from __future__ import annotations

import operator
import secrets
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum

from dspt_atlas.datasets.noise import (
    FAMILIES,
    OWN,
    PREFIX,
    NoiseRecord,
    check_noise,
    check_num_classes,
    clean_name,
    corrupt_labels,
    draw_swaps,
    is_record,
    names_file,
    relative_path,
)
from dspt_atlas.datasets.own_noise import brought_labels, file_of_noise
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home
from dspt_atlas.seeds import derive_seed

_ONE_NOISE = "set DATASET.NOISE_LABEL False to keep only ours, or DATASET.NOISE.TYPE none to keep only the fork's"


def make_noisy(base, name):
    """Return the class `name`: it constructs `base`, then corrupts `train_x` in place as DATASET.NOISE says.

    It keeps the record of the noise in `.noise`, and the labels after it in `.labels_as_given`.
    """

    def __init__(self, cfg):
        _show_clean_name(cfg)
        base.__init__(self, cfg)
        record = _corrupt(self, cfg)
        if record is not None:
            self.noise = record
        self.labels_as_given = [item.label for item in self.train_x]

    members = {"__init__": __init__, "__doc__": f"{base.__name__} with label noise.", "__module__": base.__module__}
    return type(name, (base,), {**members, "__qualname__": name, "clean_class": base})


def register_noisy():
    """Register `Noisy<Name>` of every registered data set class, and let `<Name>` follow DATASET.NOISE too.

    A `Noisy<Name>` that is already registered keeps its class. May be called repeatedly.
    """
    for name in DATASET_REGISTRY.registered_names():
        entry = DATASET_REGISTRY.get(name)
        if not isinstance(entry, type) or name.startswith(PREFIX):
            continue
        base = clean_class(entry)
        if entry is base:
            DATASET_REGISTRY.register(make_noisy(base, name), force=True)
        taken = PREFIX + name in DATASET_REGISTRY.registered_names()
        current = DATASET_REGISTRY.get(PREFIX + name) if taken else None
        if not taken or clean_class(current) not in (current, base):
            DATASET_REGISTRY.register(make_noisy(base, PREFIX + name), force=True)


def clean_class(entry):
    """Return a registered data set without its label noise."""
    return vars(entry).get("clean_class", entry)


def _show_clean_name(cfg):
    """Name the data set without its noise, because trainers of the family look up their templates by DATASET.NAME."""
    if cfg.DATASET.NAME != clean_name(cfg.DATASET.NAME):
        frozen = cfg.is_frozen()
        cfg.defrost()
        cfg.DATASET.NAME = clean_name(cfg.DATASET.NAME)
        if frozen:
            cfg.freeze()


def noise_in_place(dataset, cfg):
    """Return the record of the noise in `dataset.train_x`, from us or from a fork's Dassl, or None.

    Such a Dassl relabels the items when it makes its loaders, by the keys of NLPrompt. Raises UserError if labels
    changed for another reason, or did not change although the keys say so.
    """
    given, now = getattr(dataset, "labels_as_given", None), [item.label for item in dataset.train_x]
    if given is None:  # registered after extend_cfg: items keep their class's name when they are relabelled
        labels = {name: label for label, name in dataset.lab2cname.items()}
        given = [labels.get(item.classname, item.label) for item in dataset.train_x]
    changed = len(given) if len(given) != len(now) else sum(map(operator.ne, given, now))
    is_theirs = _has_noise_of_the_fork(cfg, len(now))
    if changed and (not is_theirs or len(given) != len(now) or _asks_for_noise(cfg.DATASET.NOISE)):
        raise UserError(
            f"{changed} of {len(now)} training labels of {cfg.DATASET.NAME} have changed, because this Dassl changes "
            f"labels by itself: {_ONE_NOISE}"
        )
    if _asks_for_noise(cfg.DATASET.NOISE) and getattr(dataset, "noise", None) is None:
        raise UserError(
            f"DATASET.NOISE asks for wrong labels, but {cfg.DATASET.NAME} was registered after "
            "dspt_atlas.extend_cfg(cfg) or makes noise of its own: import its module before that line, or set "
            "DATASET.NOISE.TYPE none"
        )
    if is_theirs and not changed:
        raise UserError(
            "DATASET.NOISE_LABEL asks for wrong labels, but this Dassl has not changed any: set DATASET.NOISE_LABEL "
            "False, and use DATASET.NOISE.TYPE and DATASET.NOISE.RATE, which work with any Dassl"
        )
    if changed:
        dataset.noise = NoiseRecord.of(
            dataset,
            cfg,
            given,
            family="relabel",
            type=str(cfg.DATASET.get("NOISE_TYPE", "unknown")),
            rate=float(cfg.DATASET.get("NOISE_RATE", changed / len(now))),
            seed=cfg.SEED,
            per_class=False,
        )
        _say(dataset.noise)
    return getattr(dataset, "noise", None)


def save_noise(dataset, cfg, folder, data=None):
    """Save the record of `noise_in_place` as noise.json, if there is one, and return it; data: the data's digest."""
    record = noise_in_place(dataset, cfg)
    if record is not None:
        record.save(Path(folder, "noise.json"), data)
    return record


def has_noise(cfg, dataset):
    """Return whether training labels are wrong, or should be by our keys or those of a fork's Dassl."""
    ours = cfg.DATASET.get("NOISE")
    is_asked_for = ours is not None and (_asks_for_noise(ours) or _has_noise_of_the_fork(cfg, len(dataset.train_x)))
    return is_asked_for or isinstance(getattr(dataset, "noise", None), NoiseRecord)


def _has_noise_of_the_fork(cfg, num_items):
    """Return whether NLPrompt's keys ask for wrong labels."""
    return bool(cfg.DATASET.get("NOISE_LABEL", False)) and int(float(cfg.DATASET.get("NOISE_RATE", 1)) * num_items) > 0


def _asks_for_noise(noise):
    return names_file(noise) or (noise.TYPE != "none" and noise.RATE != 0)


def _say(record):
    """Print what was done to the labels; family_logs.py reads this line in a fork's log."""
    wrong = sum(map(operator.ne, record.clean, record.given))
    print(
        f"Label noise: {record.type} {record.rate:g} ({record.family}), seed {record.seed}: "
        f"{wrong} of {len(record.given)} training labels are wrong"
    )


def _corrupt(dataset, cfg):
    """Apply `cfg.DATASET.NOISE` to `dataset.train_x` in place and return the record, or None without noise."""
    noise = cfg.DATASET.get("NOISE")
    if noise is None:  # a configuration without our keys, in a process that extended another one
        return None
    check_noise(noise.FAMILY, noise.TYPE, noise.RATE)
    if not _asks_for_noise(noise):
        return None
    if _has_noise_of_the_fork(cfg, len(dataset.train_x)):
        raise UserError(f"DATASET.NOISE and DATASET.NOISE_LABEL both ask for wrong labels: {_ONE_NOISE}")
    _check_possible(dataset)
    if (found := file_of_noise(noise)) is None:
        record = _draw(dataset, cfg)
    else:
        is_replayed = found[0] == "FILE" and is_record(found[1])
        record = _replay(dataset, cfg) if is_replayed else _bring(dataset, cfg, *found)
    _say(record)
    return record


def _draw(dataset, cfg):
    noise, seed = cfg.DATASET.NOISE, _noise_seed(cfg)
    clean = [item.label for item in dataset.train_x]
    if noise.FAMILY == "relabel":
        given = corrupt_labels(clean, dataset.num_classes, noise.TYPE, noise.RATE, seed, noise.PER_CLASS)
        _relabel(dataset, given)
    else:
        pool = _train_pool(dataset, cfg)
        swaps = draw_swaps(dataset.train_x, pool, dataset.num_classes, noise.TYPE, noise.RATE, seed)
        clean = [swaps[index].label if index in swaps else label for index, label in enumerate(clean)]
        _swap_images(dataset, {index: item.impath for index, item in swaps.items()})
    return NoiseRecord.of(
        dataset,
        cfg,
        clean,
        family=noise.FAMILY,
        type=noise.TYPE,
        rate=float(noise.RATE),
        seed=seed,
        per_class=noise.FAMILY == "swap" or bool(noise.PER_CLASS),
    )


def _bring(dataset, cfg, key, path):
    seed = -1 if key == "FILE" else _noise_seed(cfg)
    clean, given, settings = brought_labels(dataset, cfg, key, path, seed)
    _relabel(dataset, given)
    return NoiseRecord.of(dataset, cfg, clean, **settings)


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


def noisy_validation(dataset):
    """Return the validation items with labels as wrong as the training labels were made, drawn from another seed.

    They are the items themselves if none was made wrong. "symflip" and "pairflip" relabel here, as sym and asym do.
    """
    record = getattr(dataset, "noise", None)
    if not isinstance(record, NoiseRecord) or record.family not in FAMILIES:
        return dataset.val
    kind = dict(zip(FAMILIES["swap"], FAMILIES["relabel"], strict=True)).get(record.type, record.type)
    labels, seed = [item.label for item in dataset.val], derive_seed(record.seed, "validation")
    given = corrupt_labels(labels, dataset.num_classes, kind, record.rate, seed, record.per_class)
    names = dataset.lab2cname
    return [
        Datum(impath=item.impath, label=label, domain=item.domain, classname=names[label])
        for item, label in zip(dataset.val, given, strict=True)
    ]


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


def _replay(dataset, cfg):
    """Apply the noise of `DATASET.NOISE.FILE`; raises UserError if it does not fit this training set."""
    path = cfg.DATASET.NOISE.FILE
    record = NoiseRecord.load(expand_home(path))
    _check_settings(record, dataset, cfg.DATASET.NOISE)
    pool = {}
    if record.family == "swap":
        pool = {relative_path(dataset, cfg, item.impath): item for item in _train_pool(dataset, cfg)}
    swapped = {}
    samples = zip(dataset.train_x, record.paths, record.clean, record.given, strict=True)
    for index, (item, relative, clean, given) in enumerate(samples):
        replaced = record.family == "swap" and clean != given
        source = pool.get(relative) if replaced else item
        if (
            source is None
            or relative_path(dataset, cfg, source.impath) != relative
            or source.label not in ((clean, given) if record.family == OWN else (clean,))
            or (replaced and given != item.label)
        ):
            raise UserError(
                f"{path} does not fit this training set: sample {index} is {relative} with clean label {clean} there, "
                f"{relative_path(dataset, cfg, item.impath)} with {item.label} here: use the same data set, shots "
                "and seed"
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
            raise UserError(f"DATASET.NOISE.{key} is {asked}, but {noise.FILE} holds {found}: leave out one of the two")
    if (len(record.paths), record.num_classes) != (len(dataset.train_x), dataset.num_classes):
        raise UserError(
            f"{noise.FILE} is for {len(record.paths)} training images of {record.num_classes} classes, but there are "
            f"{len(dataset.train_x)} of {dataset.num_classes}: use the same data set, shots, seed and classes"
        )
