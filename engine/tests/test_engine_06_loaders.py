"""CONTRACT.md, sections 6.5, 6.7, 6.8: wrapper, loaders, data manager."""

import copy
import pickle

import pytest
import torch
from torch.utils.data import default_collate

from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum, build_dataset
from dassl.data.transforms import build_transform
from dassl.utils import set_random_seed


def test_items_and_their_collation(make_cfg):
    cfg = make_cfg("DATALOADER.RETURN_IMG0", "True")
    items = build_dataset(cfg).train_x
    transform = build_transform(cfg, is_train=False)
    wrapper = pickle.loads(pickle.dumps(DatasetWrapper(cfg, items, transform=[transform, transform])))
    assert len(wrapper) == 15
    assert list(wrapper[4]) == ["label", "domain", "impath", "index", "img", "img2", "img0"]
    batch = default_collate([wrapper[4], wrapper[5]])
    assert batch["label"].tolist() == [1, 2]
    assert batch["domain"].dtype == batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == [4, 5]
    assert batch["impath"] == [items[4].impath, items[5].impath]
    assert batch["img"].shape == batch["img0"].shape == (2, 3, 8, 8)
    assert batch["img"].dtype == torch.float32


def test_k_transforms_act_in_training_only(make_cfg):
    cfg = make_cfg("DATALOADER.K_TRANSFORMS", "3")
    items = build_dataset(cfg).train_x
    transform = build_transform(cfg)
    assert len(DatasetWrapper(cfg, items, transform=transform, is_train=True)[0]["img"]) == 3
    assert DatasetWrapper(cfg, items, transform=transform)[0]["img"].shape == (3, 8, 8)
    with pytest.raises(ValueError, match="3.*transform"):
        DatasetWrapper(cfg, items, is_train=True)
    assert DatasetWrapper(cfg, items)[0]["img"].size == (12, 10)


def test_drop_last_only_in_training_with_a_full_batch(make_cfg):
    cfg = make_cfg()
    items = build_dataset(cfg).train_x

    def lengths(is_train, count):
        loader = build_data_loader(cfg, data_source=items[:count], batch_size=4, is_train=is_train)
        return len(loader), loader.drop_last

    assert lengths(True, 15) == (3, True)
    assert lengths(True, 3) == (1, False)
    assert lengths(False, 15) == (4, False)


def test_loader_follows_the_list_and_can_be_copied(make_cfg):
    cfg = make_cfg()
    manager = DataManager(cfg)
    loader = manager.train_loader_x
    assert loader.sampler.data_source is loader.dataset.data_source is manager.dataset.train_x
    copied = copy.deepcopy(loader)
    del loader.dataset.data_source[8:]
    assert (len(loader), len(copied), len(manager.dataset.train_x)) == (2, 3, 8)
    assert copied.sampler.data_source is copied.dataset.data_source


def test_golden_order_of_a_random_loader(make_cfg):
    cfg = make_cfg()
    loader = build_data_loader(
        cfg, "RandomSampler", build_dataset(cfg).train_x, batch_size=4, tfm=build_transform(cfg, is_train=False)
    )
    set_random_seed(5)
    assert [batch["index"].tolist() for batch in loader] == [[8, 13, 6, 14], [7, 10, 0, 4], [3, 1, 2, 5]]


def test_manager_builds_loaders_and_prints_in_order(make_cfg, capsys):
    state = torch.get_rng_state()
    manager = DataManager(make_cfg())
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(getattr(manager, f"{name}")) for name in ("train_loader_x", "train_loader_u", "val_loader")] == [
        3,
        2,
        2,
    ]
    assert (manager.num_classes, manager.num_source_domains) == (3, 0)
    assert manager.lab2cname == {0: "cat", 1: "dog", 2: "owl"}
    assert capsys.readouterr().out.splitlines() == [
        "Loading dataset: EngineToyData",
        "Building transform_train",
        "+ resize to 8x8",
        "+ random flip",
        "+ to torch tensor of range [0, 1]",
        "+ normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])",
        "Building transform_test",
        "+ resize the smaller edge to 8",
        "+ 8x8 center crop",
        "+ to torch tensor of range [0, 1]",
        "+ normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])",
        "---------  -------------",
        "Dataset    EngineToyData",
        "# classes  3",
        "# train_x  15",
        "# train_u  9",
        "# val      6",
        "# test     6",
        "---------  -------------",
    ]


def test_custom_transform_and_wrapper(make_cfg, capsys):
    class Wrapper(DatasetWrapper):
        def __getitem__(self, idx):
            return {**super().__getitem__(idx), "gttarget": 7}

    cfg = make_cfg("DATASET.VAL_PERCENT", "0.0", "DATASET.SOURCE_DOMAINS", "('art',)")
    transform = build_transform(cfg, is_train=False)
    manager = DataManager(cfg, custom_tfm_train=transform, custom_tfm_test=transform, dataset_wrapper=Wrapper)
    assert next(iter(manager.train_loader_x))["gttarget"].tolist() == [7] * 4
    assert manager.val_loader is None
    assert manager.num_source_domains == 1
    printed = capsys.readouterr().out
    assert "* Using custom transform for training\n* Using custom transform for testing\n" in printed
    assert "Source     ('art',)\n" in printed


def test_empty_splits_are_explained(make_cfg, monkeypatch):  # F18
    from dassl.data import data_manager

    cfg = make_cfg()
    dataset = build_dataset(cfg)
    dataset._test = []
    monkeypatch.setattr(data_manager, "build_dataset", lambda cfg: dataset)
    with pytest.raises(ValueError, match='test.*"EngineToyData".*SUBSAMPLE_CLASSES'):
        DataManager(cfg)
    assert DataManager(make_cfg("TEST.NO_TEST", "True")).test_loader is None
    with pytest.raises(ValueError, match="training"):
        build_data_loader(cfg, "RandomSampler", None)


def test_a_moved_data_root_is_named_when_the_batch_is_read(make_cfg):  # F44
    cfg = make_cfg()
    moved = Datum.__new__(Datum)
    moved.__dict__.update(_impath="/moved/0.png", _label=0, _domain=0, _classname="x")
    with pytest.raises(FileNotFoundError, match=r"/moved/0\.png.*split_fewshot"):
        DatasetWrapper(cfg, [moved])[0]
