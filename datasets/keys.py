"""The configuration keys of the data sets: few-shot subsets, classes, label noise, your own images."""

from __future__ import annotations

from dspt_atlas.datasets.noise import FAMILIES, brings_labels
from dspt_atlas.keys.declare import Need, declare
from dspt_atlas.keys.ranges import Allowed, one_of


def _data(*classes):
    return lambda run: run.is_data(*classes)


NOISE_TYPE = Need(  # one command is used for clean and noisy runs
    lambda run: run.has_noise or "DATASET.NOISE.TYPE" in run.command, "DATASET.NOISE.TYPE"
)
NO_FILE = Need(
    lambda run: not run.cfg.DATASET.NOISE.FILE, "an empty DATASET.NOISE.FILE, because its labels are used unchanged"
)
NO_RATE_OF_A_FILE = Need(  # a noise.json is compared with TYPE and RATE
    lambda run: not brings_labels(run.cfg.DATASET.NOISE),
    "no file of DATASET.NOISE besides a noise.json, because the file says how many labels are wrong",
)
NO_TABLE = Need(
    lambda run: not (run.cfg.DATASET.NOISE.FILE and brings_labels(run.cfg.DATASET.NOISE)),
    "no table as DATASET.NOISE.FILE, because its labels are used unchanged",
)
CHOSEN_HERE = Need(
    lambda run: not (run.cfg.DATASET.NOISE.MATRIX or run.cfg.DATASET.NOISE.WRONG),
    "an empty DATASET.NOISE.MATRIX and DATASET.NOISE.WRONG, which say what is wrong",
)
BY_CHANCE = Need(
    lambda run: not (run.cfg.DATASET.NOISE.WRONG and run.cfg.DATASET.NOISE.TYPE == "asym"),
    "no DATASET.NOISE.WRONG with the type asym, which takes the next class of each listed sample",
)
DRAWN = (NOISE_TYPE, NO_FILE)
RELABELS = Need(
    lambda run: run.cfg.DATASET.NOISE.FAMILY != "swap",
    "DATASET.NOISE.FAMILY relabel, because swap counts within each class",
)
OWN = Need(_data("OwnDataset"), "OwnFolder, OwnSplit or OwnCSV as data set")
LISTED = Need(
    _data("OwnSplit", "OwnCSV"),
    "OwnSplit or OwnCSV as data set, because OwnFolder finds its images by DATASET.OWN.PATH",
)
FOLDER = Need(_data("OwnFolder"), "OwnFolder as data set")
UNSPLIT = Need(_data("OwnFolder", "OwnCSV"), "OwnFolder or OwnCSV as data set")
CIFARN = Need(_data("CIFARN"), "CIFAR10N or CIFAR100N as data set")
SUBSAMPLED = Need(_data("ImageDataset"), "a data set of this package")
DIVIDED = Need.of("DATASET.SUBSAMPLE_CLASSES", "base", "new")
LISTED_BASE = Need(lambda run: run.cfg.DATASET.BASE_CLASSES, "DATASET.BASE_CLASSES too")
SEED = Allowed(lambda seed: seed >= -1, "to be a seed of at least 0, or -1 for the run's own")
CLASSES = one_of("all", "base", "new")

declare("DATASET.CHECK_IMAGES", True, "decode every image that is used once before training", role="machine")
declare("DATASET.SKIP_BROKEN", False, "leave out images that cannot be read", role="machine", digest="data")
declare("DATASET.SUBSAMPLE_CLASSES", "all", "base: the first half of the classes; new: the rest", CLASSES)
declare("DATASET.BASE_CLASSES", [], "names of the base classes; empty: the first half", needs=(SUBSAMPLED, DIVIDED))
declare(
    "DATASET.NEW_CLASSES", [], "names of the new classes; empty: all that are not base", needs=(LISTED_BASE, DIVIDED)
)
declare("DATASET.NOISE.FAMILY", "relabel", "how labels are made wrong", one_of(*FAMILIES), needs=(*DRAWN, CHOSEN_HERE))
declare("DATASET.NOISE.TYPE", "none", "none, sym, asym (relabel); symflip, pairflip (swap)", needs=NO_TABLE)
declare("DATASET.NOISE.RATE", 0.0, "fraction of wrong labels, in [0, 1)", needs=NO_RATE_OF_A_FILE)
declare("DATASET.NOISE.SEED", -1, "of the noise alone; -1: the run's seed", SEED, needs=(*DRAWN, BY_CHANCE))
declare("DATASET.NOISE.PER_CLASS", False, "an exact count in every class", needs=(*DRAWN, CHOSEN_HERE, RELABELS))
declare("DATASET.NOISE.FILE", "", "noise.json, or a table path,given,clean", role="location", digest="noise")
declare("DATASET.NOISE.MATRIX", "", "transition matrix (C, C), rows are clean labels", role="location", digest="noise")
declare(
    "DATASET.NOISE.WRONG", "", "list of samples that TYPE makes wrong", role="location", needs=DRAWN, digest="noise"
)
declare("DATASET.OWN.PATH", "", "folder, split JSON or table of your data", role="location", needs=OWN, digest="data")
declare("DATASET.OWN.IMAGES", "", "folder of the images that it lists", role="location", needs=LISTED, digest="data")
declare(
    "DATASET.OWN.NAMES",
    "",
    "table folder,name,prompt; empty: classes.csv, if there is one",
    role="location",
    needs=OWN,
    digest="data",
)
declare(
    "DATASET.OWN.CLASSES",
    "top",
    "class folders: those at the top, or all with images (leaves)",
    one_of("top", "leaves"),
    needs=FOLDER,
    digest="data",
)
declare("DATASET.OWN.PROMPTS_OF", "", "registered name of a data set whose hand-written prompts yours has", needs=OWN)
declare("DATASET.OWN.SPLIT_SEED", 1, "of train/val/test, if the data has no split", needs=UNSPLIT, digest="data")
declare("DATASET.CIFARN.LABELS", "", "label set; empty: worse_label or noisy_label", needs=CIFARN, digest="data")
declare("DATASET.CIFARN.FILE", "", "label file; empty: CIFAR-N's own", role="location", needs=CIFARN, digest="data")
