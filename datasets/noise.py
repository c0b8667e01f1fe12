"""Wrong labels on purpose: the families "relabel" (NLPrompt, CVPR 2025) and "swap" (PTNL, ICCV 2023)."""

from __future__ import annotations

import json
import operator
import os
import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path

from dspt_atlas.datasets.formats import read_json
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home, relative_posix, write_atomically
from dspt_atlas.seeds import derive_seed

REAL = "real"  # the family of a data set's own wrong labels
OWN, MATRIX, LISTED = "own", "matrix", "listed"  # the families of a table, a transition matrix, a list of wrong samples
FAMILIES = {"relabel": ("sym", "asym"), "swap": ("symflip", "pairflip")}
TYPES = tuple(kind for kinds in FAMILIES.values() for kind in kinds)
PLACES = ("FILE", "MATRIX", "WRONG")  # the keys of DATASET.NOISE with a file
PREFIX = "Noisy"  # of the name of a data set with wrong labels


def clean_name(name: str) -> str:
    """Return the name of the data set that `Noisy<Name>` is a variant of.

    >>> clean_name("NoisyEmoji"), clean_name("Emoji")
    ('Emoji', 'Emoji')
    """
    return name.removeprefix(PREFIX) or name


def corrupt_labels(labels, num_classes, type, rate, seed, per_class=False):
    """Return `labels` with exactly `int(rate * N)` of the N wrong (family "relabel"), as a list of ints.

    `type`: "sym" draws the new label uniformly from the other C-1 classes, "asym" takes `(y + 1) mod C`, "none" changes
    nothing. `per_class`: exactly `int(rate * N_c)` of the N_c labels of every class c. Uses a generator of its own.
    Raises UserError for a rate outside [0, 1), an unknown type, fewer than two classes, or labels outside [0, C).

    >>> corrupt_labels([0, 0, 1, 1], num_classes=2, type="asym", rate=0.5, seed=1, per_class=True).count(0)
    2
    """
    check_noise("relabel", type, rate)
    try:
        labels = [operator.index(label) for label in labels]
    except TypeError:
        raise UserError("Expected labels as a sequence of whole numbers") from None
    wrong = [label for label in labels if not 0 <= label < num_classes]
    if wrong:
        raise UserError(f"Expected labels in [0, {num_classes}), but got {wrong[0]}")
    if type == "none" or rate == 0:
        return labels
    check_num_classes(num_classes)
    generator = generator_of(seed)
    for index in _choose(labels, rate, per_class, generator):
        labels[index] = other_class(labels[index], num_classes, type, generator)
    return labels


def other_class(label, num_classes, type, generator):
    """Return a wrong label: for "asym" the next class, otherwise each of the others with the same probability."""
    shift = 1 if type == "asym" else 1 + generator.randrange(num_classes - 1)
    return (label + shift) % num_classes


def generator_of(seed):
    """Return the generator of a noise seed."""
    return random.Random(derive_seed(seed, "noise"))


def _choose(labels, rate, per_class, generator):
    if not per_class:
        return generator.sample(range(len(labels)), int(rate * len(labels)))
    groups = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    return [i for _, group in sorted(groups.items()) for i in generator.sample(group, int(rate * len(group)))]


def check_noise(family, type, rate):
    """Raise UserError for an unknown family or type, or a rate outside [0, 1)."""
    if family not in FAMILIES:
        raise UserError(f'DATASET.NOISE.FAMILY must be one of {", ".join(FAMILIES)}, but got "{family}"')
    choices = ("none", *FAMILIES[family])
    if type not in choices:
        known = next((name for name, types in FAMILIES.items() if type in types), None)
        hint = f' ("{type}" belongs to DATASET.NOISE.FAMILY {known})' if known else ""
        raise UserError(f'Noise type of family "{family}" must be one of {", ".join(choices)}, but got "{type}"{hint}')
    number = float(rate) if isinstance(rate, Real) and not isinstance(rate, bool) else float("nan")
    if not 0 <= number < 1:
        hint = f": for {rate} % write {number / 100:g}" if 1 < number < 100 else ""
        raise UserError(f"Expected a noise rate in [0, 1), got {rate}{hint}")


def check_num_classes(num_classes):
    """Raise UserError for fewer than two classes, because then no label can be wrong."""
    if num_classes < 2:
        raise UserError(f"Label noise needs at least two classes, but there are {num_classes}")


def draw_swaps(items, pool, num_classes, type, rate, seed):
    """Return {index: item of `pool`}: images of other classes that replace `round(rate * n)` of the n items of a class.

    Replacements are not in `items`; each is used once. "symflip" draws their class uniformly from the other classes
    that have images left; "pairflip" takes class `(c + 1) mod C`. Raises UserError if too few images are left.
    """
    check_noise("swap", type, rate)
    check_num_classes(num_classes)
    generator = generator_of(seed)
    used = {item.impath for item in items}
    outside = [[] for _ in range(num_classes)]
    for item in pool:
        if item.impath not in used:
            outside[item.label].append(item)
    for group in outside:
        generator.shuffle(group)
    swaps = {}
    for label in range(num_classes):
        indices = [index for index, item in enumerate(items) if item.label == label]
        for index in generator.sample(indices, round(rate * len(indices))):
            others = [label + 1] if type == "pairflip" else range(label + 1, label + num_classes)
            donors = [c % num_classes for c in others if outside[c % num_classes]]
            if not donors:
                raise UserError(
                    f"Noise {type} {rate} replaces images of class {label}, but too few training images are left "
                    "outside the few-shot subset: use fewer shots, a lower rate, or DATASET.NOISE.FAMILY relabel"
                )
            swaps[index] = outside[generator.choice(donors)].pop()
    return swaps


def relative_path(dataset, cfg, impath):
    """Return an image's path as records hold it: relative to the data set's root, with forward slashes."""
    return relative_posix(impath, image_root(dataset, cfg))


def image_root(dataset, cfg):
    """Return the folder to which paths of images in tables and records are relative."""
    return expand_home(getattr(dataset, "path_root", cfg.DATASET.ROOT))


def image_place(root, text):
    r"""Return the absolute path of an image that a table names: absolute, or relative to `root`, also with \ in it."""
    return os.path.abspath(os.path.join(root, text if os.path.isabs(text) else text.replace("\\", "/")))


def names_file(noise):
    """Return whether a key of DATASET.NOISE names a file."""
    return any(noise.get(key) for key in PLACES)


def is_record(path) -> bool:
    """Return whether a file of DATASET.NOISE.FILE is a noise.json, by its extension."""
    return Path(path).suffix.lower() == ".json"


def brings_labels(noise):
    """Return whether a key of DATASET.NOISE names a file that says itself what is wrong: any but a noise.json."""
    return names_file(noise) and not is_record(noise.get("FILE") or "x.csv")


def file_pairs(path: object = "") -> list[str]:
    """Return KEY VALUE pairs that make a noise.json, or no file, the only one that DATASET.NOISE names."""
    return [part for key in PLACES for part in (f"DATASET.NOISE.{key}", str(path) if key == "FILE" else "")]


def clean_pairs() -> list[str]:
    """Return KEY VALUE pairs of a data set whose training labels are not used, so they stay as they are."""
    return ["DATASET.NOISE.TYPE", "none", *file_pairs()]


@dataclass(frozen=True)
class NoiseRecord:
    """What was done to the training labels, in the order of `train_x`; `rate` is the rate that was asked for.

    `paths` are relative to the data root, with forward slashes. `seed` is the noise's own.
    """

    dataset: str
    family: str
    type: str
    rate: float
    seed: int
    per_class: bool
    num_classes: int
    paths: list[str]
    clean: list[int]
    given: list[int]

    @classmethod
    def of(cls, dataset, cfg, clean, **settings):
        """Return the record of the labels that `dataset.train_x` has now, which the settings made of `clean`."""
        return cls(
            dataset=cfg.DATASET.NAME,
            num_classes=dataset.num_classes,
            paths=[relative_path(dataset, cfg, item.impath) for item in dataset.train_x],
            clean=clean,
            given=[item.label for item in dataset.train_x],
            **settings,
        )

    @property
    def realised_rate(self):
        """The fraction of samples whose given label is not the clean one."""
        return sum(map(operator.ne, self.clean, self.given)) / len(self.clean)

    def save(self, path, data=None):
        """Write the settings, the realised rate, and index, path, clean and given label of each sample as JSON.

        data: the digest of the data set, which is noted.
        """
        content = asdict(self)
        if data is not None:
            content["data"] = data
        columns = [content.pop(name) for name in ("paths", "clean", "given")]
        content["realised_rate"] = self.realised_rate
        content["samples"] = [
            {"index": index, "path": path, "clean": clean, "given": given}
            for index, (path, clean, given) in enumerate(zip(*columns, strict=True))
        ]
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path):
        """Return the record of a `noise.json`; raises UserError for any other content."""
        try:
            content = dict(read_json(path))
            content.pop("data", None)
            samples = content.pop("samples")
            realised_rate = content.pop("realised_rate")
            columns = {"paths": "path", "clean": "clean", "given": "given"}
            content |= {name: [sample[key] for sample in samples] for name, key in columns.items()}
            record = cls(**content)
            consistent = [sample["index"] for sample in samples] == list(range(len(samples)))
            for label in (*record.clean, *record.given):
                consistent &= type(label) is int and 0 <= label < record.num_classes
            if not consistent or not samples or realised_rate != record.realised_rate:
                raise ValueError("indices, labels or the realised rate do not fit together")
        except UserError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a noise file that this project wrote ({error})") from None
        return record
