"""CONTRACT.md, sections 5.4 and 11: layers, weights, checkpoint files."""

import io
import os
import sys
import types
from collections import OrderedDict

import pytest
import torch
from torch import nn

from dassl import utils
from dassl.utils import checkpoint_reader


def state_of(model, epoch=3, **extra):
    return {"state_dict": model.state_dict(), "epoch": epoch, "optimizer": None, "scheduler": None, **extra}


def test_saving_writes_file_pointer_and_best_copy(tmp_path, capsys):
    model = nn.DataParallel(nn.Linear(2, 1))
    model.module.module = nn.Linear(1, 1)  # only one leading "module." goes
    utils.save_checkpoint(state_of(model), str(tmp_path / "m"), is_best=True)
    path = str(tmp_path / "m" / "model.pth.tar-3")
    assert sorted(os.listdir(tmp_path / "m")) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-3"]
    assert (tmp_path / "m" / "checkpoint").read_text() == "model.pth.tar-3\n"
    stored = utils.load_checkpoint(path)
    assert isinstance(stored["state_dict"], OrderedDict)
    assert list(stored["state_dict"]) == ["weight", "bias", "module.weight", "module.bias"]
    best = str(tmp_path / "m" / "model-best.pth.tar")
    assert capsys.readouterr().out == f'Checkpoint saved to {path}\nBest checkpoint saved to "{best}"\n'


def test_a_crash_while_saving_keeps_the_old_checkpoint(tmp_path, monkeypatch):  # F37
    model = nn.Linear(2, 1)
    utils.save_checkpoint(state_of(model), str(tmp_path), model_name="last")

    def crash(descriptor):
        os.ftruncate(descriptor, 4)
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        utils.save_checkpoint(state_of(model, epoch=4), str(tmp_path), model_name="last")
    assert utils.load_checkpoint(str(tmp_path / "last"))["epoch"] == 3
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "last"]


def test_loading_what_is_not_there(tmp_path, capsys):
    with pytest.raises(ValueError):
        utils.load_checkpoint(None)
    with pytest.raises(FileNotFoundError):
        utils.load_checkpoint(str(tmp_path / "none"))
    (tmp_path / "broken").write_bytes(b"rubbish")
    with pytest.raises(Exception):  # noqa: B017
        utils.load_checkpoint(str(tmp_path / "broken"))
    assert f'Unable to load checkpoint from "{tmp_path}/broken"' in capsys.readouterr().out


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def upstream_checkpoint(tmp_path, request):
    """A file as upstream writes it with warm-up: live scheduler and optimizer objects inside."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    successor = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 3])
    model(torch.ones(1, 2)).sum().backward()
    for _ in range(3):
        optimizer.step()
        successor.step()
    scheduler = {"last_epoch": 1, "successor": successor, "warmup_epoch": 1, "base_lrs": [0.1]}
    path = tmp_path / "model" / "model.pth.tar-4"
    path.parent.mkdir()
    torch.save(
        {"state_dict": model.state_dict(), "epoch": 4, "optimizer": optimizer.state_dict(), "scheduler": scheduler},
        path,
        _use_new_zipfile_serialization=request.param,
    )
    (path.parent / "checkpoint").write_text("model.pth.tar-4\n")
    return path, model


def test_old_files_are_read_without_their_objects(upstream_checkpoint):  # F04
    path, model = upstream_checkpoint
    with pytest.raises(Exception, match="(?i)weights_only|unsupported"):
        torch.load(path, weights_only=True)
    loaded = utils.load_checkpoint(str(path))
    assert torch.equal(loaded["state_dict"]["weight"], model.weight)
    assert isinstance(loaded["scheduler"]["successor"], checkpoint_reader.Placeholder)
    assert vars(loaded["scheduler"]["successor"]) == {}
    assert torch.is_tensor(loaded["optimizer"]["state"][0]["exp_avg"])


def test_resuming_an_old_file_rebuilds_the_schedule_from_the_epoch(upstream_checkpoint, capsys):
    from dassl.config import get_cfg_default
    from dassl.optim import build_lr_scheduler, build_optimizer

    path, _ = upstream_checkpoint
    cfg = get_cfg_default().OPTIM
    cfg.LR, cfg.LR_SCHEDULER, cfg.STEPSIZE, cfg.WARMUP_EPOCH = 0.1, "multi_step", (2, 2, 5), 1
    model = nn.Linear(2, 1)
    optimizer = build_optimizer(model, cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    assert utils.resume_from_checkpoint(str(path.parent), model, optimizer, scheduler) == 4
    assert scheduler.last_epoch == 4
    assert scheduler.get_last_lr() == [pytest.approx(0.001)]
    assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0]
    assert capsys.readouterr().out.splitlines() == [
        f'Loading checkpoint from "{path}"',
        "Loaded model weights",
        "Loaded optimizer",
        "Loaded scheduler",
        "Previous epoch: 4",
    ]


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_foreign_classes_are_refused_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for value in (Evil(), {"successor": torch.optim.SGD([torch.ones(1)], lr=1), "evil": Evil()}):
        torch.save({"state_dict": {}, "epoch": 1, "scheduler": value}, "evil.pt")
        with pytest.raises(Exception, match=r"(posix|nt)\.system.*TRUSTED_GLOBALS\.add"):
            utils.load_checkpoint("evil.pt")
        assert 'Unable to load checkpoint from "evil.pt"' in capsys.readouterr().out
    assert os.listdir() == ["evil.pt"]


def test_attributes_of_attributes_of_torch_are_refused():
    stream = b"\x80\x04\x8c\x05torch\x8c\x16storage.UntypedStorage\x93."  # pickle protocol 4 follows the dot
    with pytest.raises(Exception, match=r"torch\.storage\.UntypedStorage"):
        checkpoint_reader._RestrictedUnpickler(io.BytesIO(stream)).load()


def test_a_class_may_be_trusted(tmp_path, monkeypatch):
    module = types.ModuleType("engine_test_module")
    module.Box = type("Box", (), {"__module__": "engine_test_module"})
    monkeypatch.setitem(sys.modules, "engine_test_module", module)
    box = module.Box()
    box.value = 5
    torch.save({"box": box}, tmp_path / "box.pt")
    with pytest.raises(Exception, match=r"engine_test_module\.Box"):
        utils.load_checkpoint(str(tmp_path / "box.pt"))
    monkeypatch.setattr(
        checkpoint_reader, "TRUSTED_GLOBALS", checkpoint_reader.TRUSTED_GLOBALS | {"engine_test_module.Box"}
    )
    assert utils.load_checkpoint(str(tmp_path / "box.pt"))["box"].value == 5


def test_stored_none_is_skipped(tmp_path, capsys):  # F49
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    utils.save_checkpoint({"state_dict": model.state_dict(), "epoch": 2, "optimizer": None}, str(tmp_path))
    assert utils.resume_from_checkpoint(str(tmp_path), nn.Linear(2, 1), optimizer, scheduler) == 2
    assert "Loaded optimizer" not in capsys.readouterr().out
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(FileNotFoundError):
        utils.resume_from_checkpoint(str(tmp_path), model)


def test_pretrained_weights_that_match_are_loaded(tmp_path, capsys):
    source, target = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 4))
    path = str(tmp_path / "weights")
    torch.save({"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, path)
    utils.load_pretrained_weights(target, path)
    assert torch.equal(target[0].weight, source[0].weight)
    assert capsys.readouterr().out.splitlines() == [
        f"Successfully loaded pretrained weights from {path}",
        "Layers discarded due to unmatched keys or size: ['1.weight', '1.bias']",
    ]
    torch.save(source.state_dict(), path)
    utils.load_pretrained_weights(target, path)
    with pytest.warns(UserWarning):
        utils.load_pretrained_weights(nn.Linear(5, 5), path)


def test_opening_layers():
    model = nn.Sequential(OrderedDict(a=nn.Linear(1, 1), b=nn.BatchNorm1d(1)))
    utils.open_specified_layers(nn.DataParallel(model), "a")
    assert (model.a.training, model.b.training) == (True, False)
    assert (model.a.weight.requires_grad, model.b.weight.requires_grad) == (True, False)
    with pytest.raises(AssertionError, match=r"\bc\b"):
        utils.open_specified_layers(model, ["c"])
    utils.open_all_layers(model)
    assert model.b.training
    assert all(p.requires_grad for p in model.parameters())


def test_counting_parameters():
    model = nn.Linear(3, 2)
    assert utils.count_num_param(model) == 8
    assert utils.count_num_param(params=[model.weight, {"params": model.bias}, {"params": [model.bias]}]) == 10
    with pytest.raises(ValueError, match="model.*params"):
        utils.count_num_param()


@pytest.mark.parametrize("init_type", ["normal", "xavier", "kaiming", "orthogonal"])
def test_initialising_weights(init_type):
    model = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm1d(2), nn.InstanceNorm1d(2))
    nn.init.constant_(model[0].weight, 5.0)
    nn.init.constant_(model[0].bias, 5.0)
    nn.init.constant_(model[2].weight, 5.0)
    utils.init_network_weights(model, init_type)
    expected_std = {"normal": 0.02, "xavier": 0.02 / 8, "kaiming": (2 / 64) ** 0.5, "orthogonal": 0.02 / 8}[init_type]
    assert model[0].weight.std().item() == pytest.approx(expected_std, rel=0.1)
    assert model[0].bias.abs().max() == 0
    assert model[2].weight.tolist() == [1, 1]
    with pytest.raises(NotImplementedError):
        utils.init_network_weights(model, "zeros")
