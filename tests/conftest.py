"""Shared fixtures: tiny random CLIPs in OpenAI's layout, and a tiny data set of class folders of small PNGs."""

import json
import os
import shutil
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.paths import ROOT, SUPPORT
from support.runs import NOISY, OF_LEARNERS, train_arguments

TINY_CLASSES = ("red circle", "green_square", "blue", "yellow duck")
RUNS = {
    "tiny_clip_path",
    "tiny_resnet_clip_path",
    "copy_fork",
    "subprocess",
    "load_clip",
    "backbone_path",
    "draw_figures",
    "plot_panels",
}
IMAGES_PER_CLASS = {"train": 6, "val": 2, "test": 4}


def _saved_clip(tmp_path_factory, tower):
    import torch  # only where it is needed: pytest-xdist's first process runs no test

    from support.tiny_clip import build_tiny_clip

    path = tmp_path_factory.mktemp("clip") / f"tiny_{tower}.pt"
    torch.save(build_tiny_clip(tower).state_dict(), path)
    return str(path)


def pytest_collection_modifyitems(items):
    """Mark what trains, loads a CLIP, draws or starts a process: `scripts/test.sh --quick` leaves it out."""
    for item in items:
        names = getattr(getattr(item, "function", None), "__code__", None)
        if RUNS & {*item.fixturenames, *(names.co_names if names else ())}:
            item.add_marker("runs")


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory):
    """Keep what the tests cache, their subprocesses' too, out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSPT_ATLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def private_cache(tmp_path, monkeypatch):
    """A cache that no other test has filled."""
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_clip_path(tmp_path_factory):
    """Path of a tiny random CLIP with a vision transformer (32 px, width 64, 2 layers), a state dict in float32."""
    return _saved_clip(tmp_path_factory, "vit")


@pytest.fixture(scope="session")
def tiny_resnet_clip_path(tmp_path_factory):
    """Path of a tiny random CLIP with a ModifiedResNet (32 px), a state dict in float32."""
    return _saved_clip(tmp_path_factory, "resnet")


@pytest.fixture(scope="module")
def exact_layer_norm():
    """Let CLIP's layer norm compute in its input's precision; as published it rounds to float32."""
    import torch
    from clip.model import LayerNorm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LayerNorm, "forward", torch.nn.LayerNorm.forward)
        yield


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """Root of `<split>/<class>/<n>.png`: 4 classes, each with its own colour; 6 train, 2 val, 4 test images each."""
    root = tmp_path_factory.mktemp("data") / "tiny"
    generator = np.random.default_rng(0)
    for split, count in IMAGES_PER_CLASS.items():
        for classname in TINY_CLASSES:
            colour = np.random.default_rng(TINY_CLASSES.index(classname)).integers(0, 256, 3)
            folder = root / split / classname
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = colour + generator.integers(-60, 60, (40, 48, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def tiny_registered(tiny_dataset):
    """Name under which `tiny_dataset` is registered with dassl (it ignores shots); DATASET.ROOT is its folder."""
    from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

    if "TinyImages" in DATASET_REGISTRY.registered_names():
        return "TinyImages"

    @DATASET_REGISTRY.register()
    class TinyImages(DatasetBase):
        templates = ("a photo of a {}.", "a drawing of a {}.")

        def __init__(self, cfg):
            classes = {"all": TINY_CLASSES, "base": TINY_CLASSES[:2], "new": TINY_CLASSES[2:]}
            chosen = classes[cfg.DATASET.SUBSAMPLE_CLASSES]
            root = Path(cfg.DATASET.ROOT)
            splits = {
                ("train_x" if split == "train" else split): [
                    Datum(impath=str(path), label=label, classname=classname)
                    for label, classname in enumerate(chosen)
                    for path in sorted((root / split / classname).iterdir())
                ]
                for split in IMAGES_PER_CLASS
            }
            super().__init__(**splits)

    return TinyImages.__name__


@pytest.fixture
def tiny_cfg(tiny_registered, tiny_dataset):
    """Return a function (trainer, backbone path, output folder, KEY, VALUE, ...) -> frozen config of a tiny CPU run."""
    from dassl.config import get_cfg_default

    from dspt_atlas.config.defaults import extend_cfg
    from dspt_atlas.trainers.registry import register_methods, register_standard_trainers
    from support.tiny_clip import TINY_RESOLUTION

    register_methods()
    register_standard_trainers()

    def build(trainer, backbone, output, *options):
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.merge_from_list(["TRAINER.NAME", trainer, "MODEL.BACKBONE.NAME", str(backbone), "OUTPUT_DIR", str(output)])
        cfg.merge_from_list(["DATASET.NAME", tiny_registered, "DATASET.ROOT", str(tiny_dataset), "SEED", 1])
        cfg.merge_from_list(["INPUT.SIZE", (TINY_RESOLUTION, TINY_RESOLUTION), "INPUT.INTERPOLATION", "bicubic"])
        cfg.merge_from_list(["INPUT.TRANSFORMS", ("random_resized_crop", "random_flip", "normalize"), "VERBOSE", False])
        cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 8, "USE_CUDA", False])
        cfg.merge_from_list(["OPTIM.NAME", "sgd", "OPTIM.LR_SCHEDULER", "cosine", "OPTIM.LR", 0.02])
        cfg.merge_from_list(["OPTIM.MAX_EPOCH", 2])
        for pairs in OF_LEARNERS.values():
            cfg.merge_from_list(list(pairs))
        cfg.merge_from_list(["TRAINER.COOP.N_CTX", 4, "TRAINER.COCOOP.N_CTX", 2])
        cfg.merge_from_list(["TRAINER.COOP.PREC", "fp32", "TRAINER.COCOOP.PREC", "fp32", "TRAINER.MAPLE.PREC", "fp32"])
        for learner in ("KGCOOP", "PROGRAD", "TCP", "IVLP", "PROMPTSRC", "VPT"):
            cfg.merge_from_list([f"TRAINER.{learner}.PREC", "fp32"])
        cfg.merge_from_list(["TRAINER.PROGRAD.N_CTX", 6])
        cfg.merge_from_list(list(options))
        cfg.freeze()
        return cfg

    return build


@pytest.fixture
def tiny_run(tiny_cfg):
    """Return a function with the arguments of `tiny_cfg` that seeds all generators and builds the trainer."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    def build(*arguments):
        cfg = tiny_cfg(*arguments)
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)

    return build


@pytest.fixture(scope="session")
def shared_data():
    """The folder `shared/data` next to the repository (or $DATA) with the real Caltech101; skip without it."""
    roots = (
        [Path(os.environ["DATA"])]
        if "DATA" in os.environ
        else [parent / "shared" / "data" for parent in (ROOT, *ROOT.parents)]
    )
    found = next((root for root in roots if (root / "caltech-101").is_dir()), None)
    if found is None:
        pytest.skip("the real Caltech101 (../shared/data) is not here")
    return found


@pytest.fixture
def arguments(tiny_dataset, tiny_clip_path):
    """Return a function (folder, *pairs, option=value) -> train.py's arguments: three epochs, half the labels wrong."""
    common = (*NOISY, "TRAIN.PRINT_FREQ", "1", "TEST.PERIOD", "1")
    return partial(train_arguments, data=tiny_dataset, backbone=tiny_clip_path, common=common)


@pytest.fixture
def load_dataset():
    """Return a function (name, root, KEY, VALUE, ...) -> the data set, with all of ours registered."""
    from dassl.config import get_cfg_default
    from dassl.data.datasets import build_dataset

    from dspt_atlas.config.defaults import extend_cfg
    from dspt_atlas.datasets import register_all

    def load(name, root, *options):
        register_all()
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.merge_from_list(["DATASET.NAME", name, "DATASET.ROOT", str(root), "SEED", 1, "VERBOSE", False, *options])
        cfg.freeze()
        return build_dataset(cfg)

    return load


@pytest.fixture
def write_images():
    """Return a function (folder, relative paths) that writes a small image of its own to each."""

    def write(folder, paths):
        for path in map(Path(folder).joinpath, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = zlib.crc32(str(path.relative_to(folder)).encode())
            pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)

    return write


@pytest.fixture
def caltech_tree(tmp_path, write_images):
    """A data root with a Caltech101 of 5 classes in the family's layout: 8 train, 5 val and 3 test images per class."""
    root = tmp_path / "data"
    rows = {
        split: [[f"dir{y}/{split}{n}.jpg", y, f"name_{y}"] for y in (2, 0, 4, 1, 3) for n in range(count)]
        for split, count in (("train", 8), ("val", 5), ("test", 3))
    }
    write_images(root / "caltech-101" / "101_ObjectCategories", [row[0] for split in rows.values() for row in split])
    (root / "caltech-101" / "split_zhou_Caltech101.json").write_text(json.dumps(rows))
    return root


@pytest.fixture(scope="session")
def train_tiny(tiny_dataset, tiny_clip_path, tmp_path_factory):
    """Return a function (trainer, KEY, VALUE, ...) -> output folder of a run of two epochs on `tiny_dataset`."""
    from dspt_atlas.run.train import run_arguments

    yaml = tmp_path_factory.mktemp("yaml") / "tiny.yaml"
    yaml.write_text(
        f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n"
        "DATALOADER:\n  TRAIN_X:\n    BATCH_SIZE: 8\nOPTIM:\n  MAX_EPOCH: 2\n  LR: 0.02\n"
        "TRAINER:\n  COOP:\n    N_CTX: 4\n  MAPLE:\n    PROMPT_DEPTH: 2\n"
    )

    def train(trainer, *pairs):
        output = tmp_path_factory.mktemp("runs") / trainer / "seed1"
        options = ["--root", tiny_dataset.parent, "--dataset-config-file", yaml, "--trainer", trainer, "--seed", 1]
        options += ["--backbone", tiny_clip_path, "--output-dir", output, "DATALOADER.NUM_WORKERS", 0]
        options += ["INPUT.CACHE", "features", "VERBOSE", False, *pairs]
        run_arguments([str(option) for option in options])
        return output

    return train


@pytest.fixture(scope="session")
def tiny_noisy_run(train_tiny):
    """Output folder of a CoOp run of two epochs with half the labels wrong, and with all that can be recorded."""
    noise = ["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5, "TRAIN.LOGGERS", ["tensorboard"]]
    return train_tiny("CoOp", *noise, "TEST.PERIOD", 1, "TRAIN.GRADIENT_PROFILE", True, "TRAIN.CHECKPOINT_FREQ", 1)


@pytest.fixture(scope="session")
def tiny_base_run(train_tiny):
    """Output folder of an ATLaS (csl) run of two epochs on base classes, new ones evaluated after each."""
    classes = ["DATASET.SUBSAMPLE_CLASSES", "base", "TEST.PERIOD", 1, "TEST.NEW_CLASSES", True]
    return train_tiny("CoOpATLaS", *classes, "TRAINER.ATLAS.SOFT_LABELS", "csl")


@pytest.fixture(scope="session")
def copy_fork():
    """Return a function (folder) that copies the miniature fork there, with a tiny random CLIP in clip/tiny.pt."""
    import torch
    from clip.model import CLIP

    def copy(folder):
        shutil.copytree(SUPPORT / "miniature_fork", folder, ignore=shutil.ignore_patterns("__pycache__"))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = CLIP(32, 32, 2, 64, 16, 77, 258, 64, 1, 2).float()
        torch.save(model.state_dict(), folder / "clip" / "tiny.pt")
        return folder

    return copy


@pytest.fixture
def tiny_fork(copy_fork, tmp_path):
    """A copy of the miniature fork with a tiny random CLIP of its own vocabulary, clip/tiny.pt."""
    return copy_fork(tmp_path / "a fork")
