"""CONTRACT.md, section 9: models."""

import copy
import math

import pytest
import torch
from torch import nn

from dassl.engine import SimpleNet
from dassl.modeling import Backbone, build_head
from dassl.modeling.ops import utils as ops


def test_mlp_head():
    head = build_head("mlp", verbose=False, in_features=4, hidden_layers=[5, 6], activation="leaky_relu", dropout=0.1)
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU", "Dropout"] * 2
    assert head.out_features == 6
    assert len(build_head("mlp", verbose=False, in_features=4, hidden_layers=3, bn=False)) == 2
    with pytest.raises(AssertionError):
        build_head("mlp", verbose=False)
    with pytest.raises(NotImplementedError, match="relu"):
        build_head("mlp", verbose=False, hidden_layers=[1], activation="tanh")
    assert Backbone().out_features is None


def test_simple_net(make_cfg):
    cfg = make_cfg(
        "MODEL.BACKBONE.NAME", "EngineToyBackbone", "MODEL.HEAD.NAME", "mlp", "MODEL.HEAD.HIDDEN_LAYERS", "(7,)"
    )
    images = torch.randn(2, 3, 8, 8)
    net = SimpleNet(cfg, cfg.MODEL, 5)
    logits, features = net(images, return_feature=True)
    assert (logits.shape, features.shape, net.fdim) == ((2, 5), (2, 7), 7)
    assert net(images).shape == (2, 5)
    assert SimpleNet(cfg, cfg.MODEL, 0)(images).shape == (2, 7)


def test_label_operations():
    p = torch.tensor([[0.2, 0.8]])
    assert torch.allclose(ops.sharpen_prob(p), torch.tensor([[0.04, 0.64]]) / 0.68)
    data, label = torch.arange(6).view(3, 2), torch.arange(3)
    assert [x.tolist() for x in ops.reverse_index(data, label)] == [[[4, 5], [2, 3], [0, 1]], [2, 1, 0]]
    torch.manual_seed(0)
    order = torch.randperm(3)
    torch.manual_seed(0)
    shuffled = ops.shuffle_index(data, label)
    assert torch.equal(shuffled[0], data[order])
    assert torch.equal(shuffled[1], label[order])
    onehot = ops.create_onehot(torch.tensor([2, 0]), 3)
    assert onehot.dtype == torch.float32
    assert onehot.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_ramp_ups_and_moving_average():
    assert ops.sigmoid_rampup(5, 10) == pytest.approx(math.exp(-5 * 0.25))
    assert (ops.sigmoid_rampup(-1, 10), ops.sigmoid_rampup(20, 10)) == (pytest.approx(math.exp(-5)), 1.0)
    assert [ops.linear_rampup(c, 4) for c in (-1, 1, 9)] == [0.0, 0.25, 1.0]
    model = nn.BatchNorm1d(2)
    average = copy.deepcopy(model)
    nn.init.constant_(model.weight, 3.0)
    model.running_mean.fill_(9.0)
    ops.ema_model_update(model, average, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [0.0, 0.0]
