"""A trainer is a pair of a prompt learner and a method, whose name is taken apart in one place."""

import json

import pytest
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY

from dspt_atlas import DoubleSoftmax, with_loss
from dspt_atlas.results.read import load
from dspt_atlas.trainers.learners.coop import CoOp
from dspt_atlas.trainers.registry import METHOD_TRAINERS, Pair, pair_of
from support.runs import result_of


def test_every_registered_name_is_one_pair():
    pairs = {name: pair_of(name) for name in METHOD_TRAINERS}
    assert len(set(pairs.values())) == len(pairs)
    assert all(pair.learner + pair.method == name for name, pair in pairs.items())


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("CoOp", Pair("CoOp", "CE")),
        ("CoCoOpATLaS", Pair("CoCoOp", "ATLaS")),
        ("ZeroshotCLIP", Pair("ZeroshotCLIP", "")),
        ("ZeroshotCLIP2", Pair("ZeroshotCLIP", "2")),
        ("CoOpNobody", Pair("CoOp", "Nobody")),
        ("PromptSRC", Pair("PromptSRC", "CE")),
        ("CoPrompt", Pair("CoPrompt", "")),
    ],
)
def test_a_name_that_nobody_registered_is_resolved_as_well(name, pair):
    assert pair_of(name) == pair
    assert pair.learns == (pair.learner != "ZeroshotCLIP")


def test_a_trainer_made_by_with_loss_says_its_pair_whatever_its_name(monkeypatch):
    def focal(logits, target):
        return F.cross_entropy(logits, target)

    made = with_loss(CoOp, DoubleSoftmax, name="Mine"), with_loss(CoOp, focal, name="Yours")
    for trainer, method in zip(made, ("DSPT", "Focal"), strict=True):
        monkeypatch.setitem(TRAINER_REGISTRY._objects, trainer.__name__, trainer)
        assert pair_of(trainer.__name__) == Pair("CoOp", method)


def test_a_result_says_its_pair_and_an_older_one_is_told_by_its_name(tiny_noisy_run, tmp_path):
    result = result_of(tiny_noisy_run)
    assert (result["learner"], result["method"]) == ("CoOp", "CE")

    def written(folder, **fields):
        (tmp_path / folder).mkdir()
        content = {name: value for name, value in {**result, **fields}.items() if value is not None}
        (tmp_path / folder / "result.json").write_text(json.dumps(content))
        (row,) = load([tmp_path / folder]).frame.itertuples()
        return row.learner, row.method

    assert written("as it is") == Pair("CoOp", "CE")
    assert written("said", trainer="Other", learner="MaPLe", method="GCE") == Pair("MaPLe", "GCE")
    assert written("older", trainer="CoCoOpTFKD", learner=None, method=None) == Pair("CoCoOp", "TFKD")
