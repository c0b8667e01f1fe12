"""CONTRACT.md, section 17: few-shot subsets of the real Caltech101 through a data set class as clients write it."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
from yacs.config import CfgNode

from dassl.config import get_cfg_default
from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import mkdir_if_missing, read_json, set_random_seed


def data_root():
    """$DATA, or `shared/data` next to an ancestor of this file."""
    candidates = [Path(os.environ["DATA"])] if os.environ.get("DATA") else []
    candidates += [folder / "shared" / "data" for folder in Path(__file__).resolve().parents]
    return next((root for root in candidates if (root / "caltech-101" / "split_zhou_Caltech101.json").is_file()), None)


ROOT = data_root()
pytestmark = pytest.mark.skipif(ROOT is None, reason="caltech-101 is neither under $DATA nor in ../shared/data")


@DATASET_REGISTRY.register()
class EngineCaltech(DatasetBase):
    def __init__(self, cfg):
        self.dataset_dir = os.path.join(cfg.DATASET.ROOT, "caltech-101")
        self.image_dir = os.path.join(self.dataset_dir, "101_ObjectCategories")
        split = read_json(os.path.join(self.dataset_dir, "split_zhou_Caltech101.json"))
        train, val, test = (
            [
                Datum(impath=os.path.join(self.image_dir, path), label=label, classname=name)
                for path, label, name in items
            ]
            for items in (split["train"], split["val"], split["test"])
        )
        shots = cfg.DATASET.NUM_SHOTS
        if shots >= 1:
            train, val = self.cached(cfg, train, val)
        train, val, test = self.subsample(cfg.DATASET.SUBSAMPLE_CLASSES, train, val, test)
        super().__init__(train_x=train, val=val, test=test)

    def cached(self, cfg, train, val):
        shots = cfg.DATASET.NUM_SHOTS
        folder = os.path.join(cfg.OUTPUT_DIR, "split_fewshot")
        mkdir_if_missing(folder)
        path = os.path.join(folder, f"shot_{shots}-seed_{cfg.SEED}.pkl")
        if os.path.exists(path):
            with open(path, "rb") as file:
                data = pickle.load(file)
                return data["train"], data["val"]
        train = self.generate_fewshot_dataset(train, num_shots=shots)
        val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4))
        with open(path, "wb") as file:
            pickle.dump({"train": train, "val": val}, file, protocol=pickle.HIGHEST_PROTOCOL)
        return train, val

    @staticmethod
    def subsample(subsample, *splits):
        if subsample == "all":
            return splits
        labels = sorted({item.label for item in splits[0]})
        half = (len(labels) + 1) // 2
        selected = labels[:half] if subsample == "base" else labels[half:]
        relabel = {label: new for new, label in enumerate(selected)}
        return [
            [Datum(impath=i.impath, label=relabel[i.label], classname=i.classname) for i in split if i.label in relabel]
            for split in splits
        ]


def digest(dataset, items):
    paths = [os.path.relpath(item.impath, dataset.image_dir).replace(os.sep, "/") for item in items]
    return paths[0], paths[-1], hashlib.sha256("\n".join(paths).encode()).hexdigest()[:12]


GOLDEN = """
1  1 all   100  100 2465 100 Faces/image_0201.jpg yin_yang/image_0036.jpg   33173bedf9ad d8cdaf6e3fcf
1  2 all   200  200 2465 100 Faces/image_0201.jpg yin_yang/image_0058.jpg   124d5e5f5047 bcd862b4736c
1  4 all   400  400 2465 100 Faces/image_0201.jpg yin_yang/image_0012.jpg   f996bf609c4e 9562109330fe
1  8 all   800  400 2465 100 Faces/image_0201.jpg yin_yang/image_0037.jpg   edc8b6967dfb 7937b0dafbd4
1 16 all  1600  400 2465 100 Faces/image_0201.jpg yin_yang/image_0027.jpg   e60a836bd33c 53555d3fce94
2  1 all   100  100 2465 100 Faces/image_0102.jpg yin_yang/image_0036.jpg   9a0e5969df4d fc02914307ca
2 16 all  1600  400 2465 100 Faces/image_0102.jpg yin_yang/image_0002.jpg   62be9f804c23 0ac3f0ace7d7
3  1 all   100  100 2465 100 Faces/image_0382.jpg yin_yang/image_0045.jpg   239363f8e685 226e9e0ddda3
3 16 all  1600  400 2465 100 Faces/image_0382.jpg yin_yang/image_0055.jpg   8c465c68bff4 bf481ac8e217
1 16 base  800  200 1549  50 Faces/image_0201.jpg helicopter/image_0011.jpg ccf176e5e125 257802093342
1 16 new   800  200  916  50 ibis/image_0051.jpg  yin_yang/image_0027.jpg   d039d7143041 0ad400cb9573
""".strip().splitlines()


def make_cfg(tmp_path, *overrides):
    cfg = get_cfg_default()
    cfg.merge_from_list(["DATASET.ROOT", str(ROOT), "DATASET.NAME", "EngineCaltech", "OUTPUT_DIR", str(tmp_path)])
    cfg.merge_from_list([*overrides])
    cfg.TRAINER.COOP = CfgNode()
    cfg.freeze()
    return cfg


@pytest.mark.parametrize("row", GOLDEN)
def test_few_shot_subsets_are_upstream_s(tmp_path, row):
    seed, shots, subsample, train, val, test, classes, first, last, digest_train, digest_val = row.split()
    cfg = make_cfg(tmp_path, "SEED", seed, "DATASET.NUM_SHOTS", shots, "DATASET.SUBSAMPLE_CLASSES", subsample)
    for _ in range(2):  # drawn, then from the cache
        set_random_seed(int(seed))
        dataset = EngineCaltech(cfg)
        counts = [len(dataset.train_x), len(dataset.val), len(dataset.test), dataset.num_classes]
        assert counts == [int(train), int(val), int(test), int(classes)]
        assert digest(dataset, dataset.train_x) == (first, last, digest_train)
        assert digest(dataset, dataset.val)[-1] == digest_val


def test_all_images_and_the_table(tmp_path, capsys):
    manager = DataManager(make_cfg(tmp_path, "DATALOADER.NUM_WORKERS", "0", "DATASET.NUM_SHOTS", "16"))
    table = "# classes  100\n# train_x  1,600\n# val      400\n# test     2,465\n---------  -------------\n"
    assert capsys.readouterr().out.endswith(table)
    dataset = EngineCaltech(make_cfg(tmp_path))
    assert [len(dataset.train_x), len(dataset.val), len(dataset.test)] == [4128, 1649, 2465]
    names = dataset.classnames
    assert names[:5] == ["face", "leopard", "motorbike", "accordion", "airplane"]
    assert names[-3:] == ["windsor_chair", "wrench", "yin_yang"]
    batch = next(iter(manager.test_loader))
    assert batch["img"].shape == (32, 3, 224, 224)
