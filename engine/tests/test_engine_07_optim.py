"""CONTRACT.md, section 7: optimisers and learning-rate schedules."""

import math

import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler
from dassl.optim.optimizer import AVAI_OPTIMS


@pytest.fixture
def optim_cfg():
    cfg = get_cfg_default().OPTIM
    cfg.NAME, cfg.LR = "sgd", 0.002
    return cfg


def schedule(optim_cfg, **changes):
    for key, value in changes.items():
        optim_cfg[key] = value
    optimizer = build_optimizer(nn.Linear(1, 1), optim_cfg)
    return optimizer, build_lr_scheduler(optimizer, optim_cfg)


def rates(optimizer, scheduler, epochs):
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[0]["lr"])
        assert scheduler.get_last_lr() == [values[-1]]
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", "Adam"),
        ("amsgrad", "Adam"),
        ("sgd", "SGD"),
        ("rmsprop", "RMSprop"),
        ("radam", "RAdam"),
        ("adamw", "AdamW"),
    ],
)
def test_optimizer_arguments(optim_cfg, name, kind):
    optim_cfg.NAME, optim_cfg.WEIGHT_DECAY, optim_cfg.ADAM_BETA1 = name, 0.01, 0.8
    frozen = nn.Linear(2, 2).requires_grad_(False)
    optimizer = build_optimizer(frozen, optim_cfg)
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, getattr(torch.optim, kind))
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.002, 0.01, 2)
    if "betas" in group:
        assert group["betas"] == (0.8, 0.999)
    if name in ("sgd", "rmsprop"):
        assert group["momentum"] == 0.9
    assert group.get("amsgrad", False) == (name == "amsgrad")
    optimizer.step()


def test_radam_decays_weights_not_gradients(optim_cfg):
    optim_cfg.NAME, optim_cfg.LR, optim_cfg.WEIGHT_DECAY = "radam", 0.1, 0.5
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = build_optimizer([weight], optim_cfg)
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


def test_unknown_optimizer_and_explicit_groups(optim_cfg):
    model = nn.Linear(2, 2)
    optim_cfg.NAME = "adan"
    with pytest.raises(ValueError) as error:
        build_optimizer(model, optim_cfg)
    assert str(error.value) == f"optim must be one of {AVAI_OPTIMS}, but got adan"
    optim_cfg.NAME, optim_cfg.STAGED_LR = "sgd", True
    with pytest.warns(UserWarning, match="staged_lr"):
        optimizer = build_optimizer(None, optim_cfg, param_groups=[{"params": [model.bias], "lr": 1.0}])
    assert optimizer.param_groups[0]["lr"] == 1.0
    with pytest.raises(TypeError, match="staged_lr"):
        build_optimizer(model.parameters(), optim_cfg)


class Staged(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 2)


@pytest.mark.parametrize("new_layers", ["classifier", ("classifier",)])
def test_staged_lr_golden_groups(optim_cfg, new_layers):
    optim_cfg.LR, optim_cfg.STAGED_LR, optim_cfg.NEW_LAYERS = 0.01, True, new_layers
    optimizer = build_optimizer(nn.DataParallel(Staged()), optim_cfg)
    groups = [(group["lr"], len(group["params"])) for group in optimizer.param_groups]
    assert groups == [(pytest.approx(0.001), 2), (0.01, 2)]


def test_staged_lr_keeps_direct_parameters_and_warns_on_names_without_match(optim_cfg):  # F29
    model = Staged()
    model.scale = nn.Parameter(torch.ones(1))
    optim_cfg.STAGED_LR, optim_cfg.NEW_LAYERS = True, ("classifier",)
    assert [len(group["params"]) for group in build_optimizer(model, optim_cfg).param_groups] == [3, 2]
    for names in ((), ("clasifier",)):
        optim_cfg.NEW_LAYERS = names
        with pytest.warns(UserWarning, match="NEW_LAYERS"):
            assert [len(group["params"]) for group in build_optimizer(model, optim_cfg).param_groups] == [5, 0]


MEASURED = [  # section 7.2; scheduler, stepsize, warm-up epochs, type, recount, learning rates of 8 epochs
    ("cosine", -1, 0, "linear", True,
     "2e-3 1.923879533e-3 1.707106781e-3 1.382683432e-3 1e-3 6.173165676e-4 2.928932188e-4 7.612046749e-5"),
    ("cosine", -1, 1, "constant", True,
     "1e-5 2e-3 1.923879533e-3 1.707106781e-3 1.382683432e-3 1e-3 6.173165676e-4 2.928932188e-4"),
    ("cosine", -1, 1, "constant", False,
     "1e-5 2e-3 1.77465039e-3 1.437390865e-3 1.03956613e-3 6.417413951e-4 3.0448187e-4 7.913225979e-5"),
    ("cosine", -1, 3, "linear", True,
     "1e-5 6.666666667e-4 1.333333333e-3 2e-3 1.923879533e-3 1.707106781e-3 1.382683432e-3 1e-3"),
    ("cosine", -1, 3, "linear", False,
     "1e-5 6.666666667e-4 1.333333333e-3 2e-3 1.446462692e-3 8.929253843e-4 4.236591138e-4 1.101054163e-4"),
    ("multi_step", (3, 5), 0, "linear", True, "2e-3 2e-3 2e-3 2e-4 2e-4 2e-5 2e-5 2e-5"),
    ("multi_step", (3, 5), 1, "constant", True, "1e-5 2e-3 2e-3 2e-3 2e-4 2e-4 2e-5 2e-5"),
    ("multi_step", (3, 5), 3, "linear", True, "1e-5 6.666666667e-4 1.333333333e-3 2e-3 2e-3 2e-3 2e-4 2e-4"),
    ("multi_step", (3, 5), 3, "linear", False, "1e-5 6.666666667e-4 1.333333333e-3 2e-3 2e-3 2e-4 2e-4 2e-4"),
    ("single_step", (3,), 0, "linear", True, "2e-3 2e-3 2e-3 2e-4 2e-4 2e-4 2e-5 2e-5"),
    ("single_step", (3,), 1, "constant", True, "1e-5 2e-3 2e-3 2e-3 2e-4 2e-4 2e-4 2e-5"),
    ("single_step", (3,), 3, "constant", False, "1e-5 1e-5 1e-5 2e-3 2e-3 2e-3 2e-4 2e-4"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stepsize", "warmup", "kind", "recount", "expected"), MEASURED)
def test_measured_tables(optim_cfg, name, stepsize, warmup, kind, recount, expected):
    optimizer, scheduler = schedule(
        optim_cfg, LR_SCHEDULER=name, STEPSIZE=stepsize, MAX_EPOCH=8, WARMUP_EPOCH=warmup, WARMUP_TYPE=kind,
        WARMUP_RECOUNT=recount,
    )  # fmt: skip
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert rates(optimizer, scheduler, 8) == pytest.approx([float(x) for x in expected.split()], rel=1e-9)


def formula(name, epoch, base, max_epoch, stepsize, gamma, warmup, kind, recount):
    """The learning rate of an epoch as section 7.2 writes it."""

    def passed(k):
        return k // stepsize if name == "single_step" else sum(m <= k for m in stepsize)

    if epoch < warmup:
        return 1e-5 if kind == "constant" or epoch == 0 else base * epoch / warmup
    if recount or warmup <= 0:
        k = epoch - max(warmup, 0)
        return base / 2 * (1 + math.cos(math.pi * k / max_epoch)) if name == "cosine" else base * gamma ** passed(k)
    if name == "cosine":
        return base * (1 + math.cos(math.pi * epoch / max_epoch)) / (1 + math.cos(math.pi * warmup / max_epoch))
    return base * gamma ** (passed(epoch) - passed(warmup))


@pytest.mark.parametrize("name", ["cosine", "single_step", "multi_step"])
@pytest.mark.parametrize("warmup", [-1, 1, 4])
@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize("recount", [True, False])
def test_learning_rates_follow_the_formulas(optim_cfg, name, warmup, kind, recount):
    stepsize = (7, 20, 20, 33) if name == "multi_step" else 9
    optimizer, scheduler = schedule(
        optim_cfg, LR_SCHEDULER=name, STEPSIZE=stepsize, MAX_EPOCH=50, GAMMA=0.3, WARMUP_EPOCH=warmup, WARMUP_TYPE=kind,
        WARMUP_RECOUNT=recount,
    )  # fmt: skip
    expected = [formula(name, e, 0.002, 50, stepsize, 0.3, warmup, kind, recount) for e in range(50)]
    assert rates(optimizer, scheduler, 50) == pytest.approx(expected, rel=1e-9)


def test_the_family_s_schedule(optim_cfg):
    optimizer, scheduler = schedule(
        optim_cfg, LR_SCHEDULER="cosine", MAX_EPOCH=50, WARMUP_EPOCH=1, WARMUP_TYPE="constant"
    )
    values = rates(optimizer, scheduler, 50)
    got = [values[1], values[2], values[26], values[49]]
    assert got == pytest.approx([0.002, 0.001998026728, 0.001, 7.885298686e-06], rel=1e-9)


def test_wrong_schedules_are_refused(optim_cfg):
    with pytest.raises(ValueError) as error:
        schedule(optim_cfg, LR_SCHEDULER="poly")
    assert str(error.value) == "scheduler must be one of ['single_step', 'multi_step', 'cosine'], but got poly"
    with pytest.raises(TypeError, match="multi_step.*stepsize"):
        schedule(optim_cfg, LR_SCHEDULER="multi_step", STEPSIZE=3)
    with pytest.raises(TypeError, match="single_step.*stepsize"):
        schedule(optim_cfg, LR_SCHEDULER="single_step", STEPSIZE=(1.5,))
    with pytest.raises(ValueError, match="WARMUP_TYPE"):
        schedule(optim_cfg, LR_SCHEDULER="cosine", WARMUP_EPOCH=1, WARMUP_TYPE="cold")


@pytest.mark.parametrize("verbose", [False, True])
def test_warmup_around_any_torch_schedule(verbose):  # F01
    for kind, minimum in ((ConstantWarmupScheduler, 0.5), (LinearWarmupScheduler, 0.25)):
        optimizer = torch.optim.SGD([{"params": nn.Linear(1, 1).parameters()}, {"params": [], "lr": 4.0}], lr=1.0)
        successor = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        scheduler = kind(optimizer, successor, 2, minimum, -1, verbose)
        assert (scheduler.successor, scheduler.warmup_epoch, scheduler.base_lrs) == (successor, 2, [1.0, 4.0])
        seen = []
        for _ in range(5):
            seen.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        second = [0.5, 0.5] if kind is ConstantWarmupScheduler else [0.5, 2.0]
        assert seen == [[minimum, minimum], second, [1.0, 4.0], [0.5, 2.0], [0.25, 1.0]]


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("recount", [True, False])
@pytest.mark.parametrize("name", ["cosine", "single_step", "multi_step"])
@pytest.mark.parametrize("finished", [0, 2, 3, 6])
def test_resumed_rates_equal_uninterrupted_ones(optim_cfg, tmp_path, warmup, recount, name, finished):  # F02, F03
    changes = {
        "LR_SCHEDULER": name, "STEPSIZE": (2, 4, 5), "MAX_EPOCH": 9, "WARMUP_EPOCH": warmup, "WARMUP_RECOUNT": recount,
    }  # fmt: skip
    whole = rates(*schedule(optim_cfg, **changes), 9)
    optimizer, scheduler = schedule(optim_cfg, **changes)
    rates(optimizer, scheduler, finished)
    torch.save([optimizer.state_dict(), scheduler.state_dict()], tmp_path / "state")
    states = torch.load(tmp_path / "state", weights_only=True)
    optimizer, scheduler = schedule(optim_cfg, **changes)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert scheduler.last_epoch == finished
    assert rates(optimizer, scheduler, 9 - finished) == whole[finished:]


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_longer_run_takes_its_shape_from_the_new_configuration(optim_cfg, warmup):  # F10
    changes = {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": warmup, "WARMUP_TYPE": "constant"}
    short_optimizer, short = schedule(optim_cfg, MAX_EPOCH=4, **changes)
    rates(short_optimizer, short, 4)
    whole = rates(*schedule(optim_cfg, MAX_EPOCH=8, **changes), 8)
    optimizer, scheduler = schedule(optim_cfg, MAX_EPOCH=8, **changes)
    optimizer.load_state_dict(short_optimizer.state_dict())
    scheduler.load_state_dict(short.state_dict())
    assert rates(optimizer, scheduler, 4) == whole[4:]
