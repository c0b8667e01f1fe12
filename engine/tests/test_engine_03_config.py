"""CONTRACT.md, section 3: configuration."""

import pytest
from yacs.config import CfgNode

from dassl.config import cfg_default, clean_cfg, get_cfg_default
from dassl.config.defaults import _C


def test_the_default_tree_is_one_object_and_copies_are_deep():
    assert cfg_default is _C
    cfg = get_cfg_default()
    cfg.INPUT.PIXEL_MEAN[0] = 7.0
    cfg.OPTIM.LR = 1.0
    fresh = get_cfg_default()
    assert (fresh.INPUT.PIXEL_MEAN[0], fresh.OPTIM.LR) == (0.485, 0.0003)
    assert type(fresh.INPUT) is CfgNode


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SEED", -1),
        ("INPUT.SIZE", (224, 224)),
        ("INPUT.TRANSFORMS", ()),
        ("INPUT.GB_K", 21),
        ("DATASET.SUBSAMPLE_CLASSES", "all"),
        ("DATALOADER.TRAIN_X.N_INS", 16),
        ("OPTIM.STEPSIZE", (-1,)),
        ("OPTIM.WARMUP_CONS_LR", 1e-5),
        ("TRAIN.COUNT_ITER", "train_x"),
        ("TEST.FINAL_MODEL", "last_step"),
        ("TRAINER.CDAC.P_THRESH", 0.95),
        ("TRAINER.MIXMATCH.RAMPUP", 20000),
    ],
)
def test_defaults(key, value):
    node = get_cfg_default()
    for part in key.split("."):
        node = node[part]
    assert node == value
    assert type(node) is type(value)


def test_yaml_values_are_converted_as_the_family_s_files_need(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        'INPUT:\n  SIZE: (32, 48)\n  TRANSFORMS: ["normalize"]\n  PIXEL_MEAN: [0.1, 0.2, 0.3]\n'
        "OPTIM:\n  WARMUP_CONS_LR: 1e-4\n"
    )
    cfg = get_cfg_default()
    cfg.merge_from_file(str(path))
    assert cfg.INPUT.SIZE == (32, 48)
    assert cfg.INPUT.TRANSFORMS == ("normalize",)
    assert cfg.INPUT.PIXEL_MEAN == [0.1, 0.2, 0.3]
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-4


def test_wrong_overrides_are_refused():
    cfg = get_cfg_default()
    with pytest.raises(ValueError, match="Type mismatch"):
        cfg.merge_from_list(["OPTIM.LR", "1"])
    with pytest.raises(AssertionError, match="OPTIM.RATE"):
        cfg.merge_from_list(["OPTIM.RATE", "1"])
    with pytest.raises(AssertionError):
        cfg.merge_from_list(["OPTIM.LR"])
    with pytest.raises(KeyError, match="NEW"):
        cfg.merge_from_other_cfg(CfgNode({"NEW": 1}))
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SEED = 1


def test_clients_may_add_nodes_by_assignment():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode()
    cfg.TRAINER.COOP.N_CTX = 16
    cfg.merge_from_list(["TRAINER.COOP.N_CTX", "4"])
    assert cfg.TRAINER.COOP.N_CTX == 4


def test_clean_cfg_keeps_the_trainer_s_node_only():
    cfg = get_cfg_default()
    assert clean_cfg(cfg, "MixMatch") is None
    assert set(cfg.TRAINER) == {"NAME", "MIXMATCH"}
