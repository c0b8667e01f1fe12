"""CONTRACT.md, section 10: trainers."""

import pytest
import torch
from torch import nn

from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, TrainerBase, TrainerX, TrainerXU, build_trainer

ATTRIBUTES = (
    "_models _optims _scheds _writer best_result cfg device dm epoch evaluator lab2cname max_epoch model num_classes "
    "num_source_domains optim output_dir sched start_epoch test_loader train_loader_u train_loader_x val_loader"
).split()


@pytest.fixture
def base():
    trainer = TrainerBase()
    model = nn.Linear(2, 1)
    trainer.register_model("a", model, torch.optim.SGD(model.parameters(), lr=1.0))
    trainer.register_model("b", nn.BatchNorm1d(2))
    return trainer


def test_registering_models(base):
    class Early(TrainerBase):
        def __init__(self):
            self.register_model("a", nn.Linear(1, 1))

    with pytest.raises(AttributeError):
        Early()
    for kind in (AssertionError, ValueError):  # F16
        with pytest.raises(kind):
            base.register_model("a", nn.Linear(1, 1))
    assert base.get_model_names() == ["a", "b"]
    assert base.get_model_names("b") == ["b"]
    assert base.get_model_names(("b", "a")) == ["b", "a"]  # F30
    with pytest.raises(AssertionError, match='"c"'):
        base.get_model_names(["a", "c"])


def test_modes_concern_registered_models_only(base):
    base.model = nn.Sequential(base._models["a"], nn.Dropout())
    base.set_model_mode("test")
    assert not base._models["a"].training
    assert base.model.training
    base.set_model_mode("train", "a")
    assert (base._models["a"].training, base._models["b"].training) == (True, False)
    with pytest.raises(KeyError):
        base.set_model_mode("fast")


def test_one_step(base):
    weight = base._models["a"].weight
    before = weight.detach().clone()
    base.model_backward_and_update(base._models["a"](torch.ones(1, 2)).sum())
    base.model_backward_and_update(base._models["a"](torch.ones(1, 2)).sum())  # the first gradient is gone
    assert torch.allclose(weight, before - 2)
    for bad in ("nan", "inf"):
        with pytest.raises(FloatingPointError):
            base.model_backward(torch.tensor(float(bad), requires_grad=True))


@pytest.mark.parametrize("method", ["run_epoch", "test"])
def test_abstract_methods(base, method):
    with pytest.raises(NotImplementedError):
        getattr(base, method)()


def test_writer_is_optional(base, monkeypatch, tmp_path):  # F12
    import sys

    base.write_scalar("a", 1.0)
    base.close_writer()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.warns(UserWarning, match="tensorboard"):
        base.init_writer(str(tmp_path))
    base.write_scalar("a", 1.0)


def test_attributes_after_construction(make_cfg):
    trainer = build_trainer(make_cfg())
    assert sorted(set(vars(trainer)) - {"steps", "losses"}) == sorted(ATTRIBUTES)
    assert (trainer.epoch, trainer.start_epoch, trainer.max_epoch) == (0, 0, 4)
    assert trainer.best_result == float("-inf")
    assert trainer.device == torch.device("cpu")


def test_order_of_construction_and_hooks(make_cfg):
    calls = []

    def logged(name):
        def method(self, *args, **kwargs):
            calls.append(name)
            assert name != "check_cfg" or not hasattr(self, "cfg")
            return getattr(super(Trainer, self), name)(*args, **kwargs)

        return method

    hooks = "check_cfg build_data_loader build_model before_train before_epoch run_epoch after_epoch after_train test"
    base = TRAINER_REGISTRY.get("EngineToyTrainer")
    Trainer = type("Trainer", (base,), {name: logged(name) for name in hooks.split()})
    trainer = Trainer(make_cfg("OPTIM.MAX_EPOCH", "2"))
    trainer.train()
    epoch = ["before_epoch", "run_epoch", "after_epoch"]
    assert calls == [
        "check_cfg", "build_data_loader", "build_model", "before_train", *epoch, *epoch, "after_train", "test",
    ]  # fmt: skip


def test_loaders_are_read_afresh_each_epoch(make_cfg):
    trainer = build_trainer(make_cfg())
    trainer.epoch = 0
    trainer.train_loader_x = trainer.val_loader
    trainer.run_epoch()
    assert (trainer.num_batches, trainer.batch_idx) == (2, 1)
    trainer.train_loader_x = trainer.train_loader_u
    trainer.epoch = 1
    trainer.run_epoch()
    assert trainer.num_batches == 2


class Counting(TrainerX):
    """A trainer without models, or with none to update."""

    def build_model(self):
        pass

    def forward_backward(self, batch):
        return None

    def model_inference(self, input):
        return torch.zeros(len(input), self.num_classes)


def test_training_without_registered_models(make_cfg, capsys):  # F06
    trainer = Counting(make_cfg("OPTIM.MAX_EPOCH", "1"))
    trainer.train()
    out = capsys.readouterr().out
    assert "No checkpoint found, train from scratch\n" in out
    assert "* total: 6\n" in out


@pytest.mark.parametrize(("frequency", "lines"), [(0, 0), (-1, 0), (1, 3), (2, 1), (3, 1), (5, 3)])
def test_print_frequency(make_cfg, capsys, frequency, lines):  # F27
    trainer = Counting(make_cfg("OPTIM.MAX_EPOCH", "1", "TRAIN.PRINT_FREQ", str(frequency), "TEST.NO_TEST", "True"))
    trainer.train()
    assert capsys.readouterr().out.count("epoch [1/1] batch [") == lines


@pytest.mark.parametrize(("count_iter", "batches"), [("train_x", 3), ("train_u", 2), ("smaller_one", 2)])
def test_trainer_xu_pairs_batches(make_cfg, count_iter, batches):
    class Paired(TrainerXU):
        build_model = Counting.build_model

        def forward_backward(self, batch_x, batch_u):
            input_x, label_x, input_u = self.parse_batch_train(batch_x, batch_u)
            assert input_x.shape == input_u.shape == (4, 3, 8, 8)
            seen.append((batch_x["index"].tolist(), batch_u["index"].tolist()))
            assert label_x.tolist() == [i % 3 for i in seen[-1][0]]

    seen = []
    trainer = Paired(make_cfg("TRAIN.COUNT_ITER", count_iter))
    trainer.run_epoch()
    assert trainer.num_batches == len(seen) == batches
    if count_iter == "train_x":  # the unlabelled loader started again: its third batch may repeat items
        assert len(set(seen[0][1] + seen[1][1])) == 8
    with pytest.raises(ValueError, match="COUNT_ITER"):
        Paired(make_cfg("TRAIN.COUNT_ITER", "both")).run_epoch()


def test_default_model_is_a_simple_net(make_cfg, capsys):
    trainer = SimpleTrainer(make_cfg("MODEL.BACKBONE.NAME", "EngineToyBackbone"))
    assert "Building model\nBackbone: EngineToyBackbone\n# params: 12\n" in capsys.readouterr().out
    assert trainer.get_model_names() == ["model"]
    assert trainer.get_current_lr() == trainer.get_current_lr("model") == 1e-5
    assert 0 <= trainer.test() <= 100


def test_split_of_an_evaluation(make_cfg, capsys):
    trainer = build_trainer(make_cfg("TEST.SPLIT", "val"))
    for split, shown in ((None, "val"), ("val", "val"), ("test", "test"), ("train", "test")):
        capsys.readouterr()
        trainer.test(split=split)
        captured = capsys.readouterr()
        assert captured.out.startswith(f"Evaluate on the *{shown}* set\n=> result\n")
        assert "2/2" in captured.err
    assert not trainer.model.training
    trainer.val_loader = None
    trainer.test(split="val")
    assert capsys.readouterr().out.startswith("Evaluate on the *test* set\n")


def test_loading_models(make_cfg, tmp_path, capsys):  # F05
    trainer = build_trainer(make_cfg())
    trainer.save_model(1, str(tmp_path))
    trainer.save_model(2, str(tmp_path), val_result=50, model_name="model-best.pth.tar")
    capsys.readouterr()
    trainer.load_model("")
    trainer.load_model(str(tmp_path), epoch=2)
    trainer.load_model(str(tmp_path))
    folder = f"{tmp_path}/prompt_learner"
    assert capsys.readouterr().out.splitlines() == [
        "Note that load_model() is skipped as no pretrained model is given (ignore this if it's done on purpose)",
        f"Load {folder}/model.pth.tar-2 to prompt_learner (epoch=2, val_result=None)",
        f"Load {folder}/model-best.pth.tar to prompt_learner (epoch=3, val_result=50.0)",
    ]
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-9"):
        trainer.load_model(str(tmp_path), epoch=9)


def test_best_val_without_val_split_is_announced(make_cfg, capsys):  # F35
    build_trainer(make_cfg("DATASET.VAL_PERCENT", "0.0", "TEST.FINAL_MODEL", "best_val")).train()
    assert capsys.readouterr().out.count("Warning: there is no val split") == 1
