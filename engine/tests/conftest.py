"""A tiny image data set, and a configuration of a linear trainer on it."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True, scope="session")
def toys():
    """Register them; they load torch, which pytest-xdist's first process needs not."""
    import support.engine_toys  # noqa: F401


@pytest.fixture(scope="session")
def image_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(27):
        Image.fromarray(generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(root / f"{i}.png")
    return root


@pytest.fixture
def make_cfg(image_root, tmp_path):
    """Return a function of override pairs that returns a frozen configuration of a four-epoch run."""

    from dassl.config import get_cfg_default

    def make(*overrides):
        cfg = get_cfg_default()
        cfg.OUTPUT_DIR = str(tmp_path / "run")
        cfg.USE_CUDA = False
        cfg.INPUT.SIZE = (8, 8)
        cfg.INPUT.TRANSFORMS = ("random_flip", "normalize")
        cfg.DATASET.ROOT = str(image_root)
        cfg.DATASET.NAME = "EngineToyData"
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
        cfg.DATALOADER.TEST.BATCH_SIZE = 4
        cfg.OPTIM.NAME = "sgd"
        cfg.OPTIM.LR = 0.01
        cfg.OPTIM.MAX_EPOCH = 4
        cfg.OPTIM.LR_SCHEDULER = "cosine"
        cfg.OPTIM.WARMUP_EPOCH = 1
        cfg.OPTIM.WARMUP_TYPE = "constant"
        cfg.TRAIN.PRINT_FREQ = 1
        cfg.TRAINER.NAME = "EngineToyTrainer"
        cfg.merge_from_list(list(overrides))
        cfg.freeze()
        return cfg

    return make


@pytest.fixture
def make_items():
    """Return a function from labels (and domains) to items that need no files."""

    def make(labels, domains=None):
        domains = domains or [0] * len(labels)
        return [
            SimpleNamespace(label=label, domain=domain, classname=f"class{label}", impath=f"{i}.png")
            for i, (label, domain) in enumerate(zip(labels, domains))
        ]

    return make
