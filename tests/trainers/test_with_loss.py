"""with_loss: whose loss is replaced trains by ours, whose is not is refused before it learns from another."""

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dassl.data.data_manager import DatasetWrapper
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import nn
from torch.nn import functional as F

from dspt_atlas import GCE, MAE, ATLaS, DoubleSoftmax, with_loss
from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.declare import METHODS
from dspt_atlas.trainers.learners.coop import CoOp
from dspt_atlas.trainers.losses import double_softmax_loss
from dspt_atlas.trainers.methods.smoothing import OLS
from support.refusals import refused


class Theirs(TrainerX):
    """A fork's trainer: a linear model, its loss as in the family's CoOp."""

    def build_model(self):
        torch.manual_seed(0)
        self.model = self.build(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))).to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def build(self, model):
        return model

    def forward_backward(self, batch):
        image, label = batch["img"], batch["label"]
        loss = self.compute_loss(image, label)
        self.model_backward_and_update(loss)
        return {"loss": loss.item()}

    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), label)


class ByHand(Theirs):
    """The reference: -log softmax(softmax(z)), written out."""

    def compute_loss(self, image, label):
        return -self.model(image).softmax(1).softmax(1)[range(len(label)), label].log().mean()


def _step(cls, tiny_cfg, tmp_path, *options):
    """Build a trainer, take one step on its first batch, return (trainer, summary)."""
    trainer = cls(tiny_cfg(cls.__name__, "unused", tmp_path / "run", *options))
    torch.manual_seed(1)
    batch = next(iter(trainer.train_loader_x))
    trainer.batch_idx, trainer.num_batches = 0, 2
    return trainer, trainer.forward_backward(batch)


def _weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("loss", [DoubleSoftmax, double_softmax_loss, lambda z, y: double_softmax_loss(z, y)])
def test_a_step_is_that_of_the_loss_written_by_hand(loss, tiny_cfg, tmp_path):
    robust, summary = _step(with_loss(Theirs, loss), tiny_cfg, tmp_path)
    reference, expected = _step(ByHand, tiny_cfg, tmp_path)
    plain, _ = _step(Theirs, tiny_cfg, tmp_path)
    assert summary["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    torch.testing.assert_close(_weights(robust), _weights(reference), rtol=0, atol=1e-6)
    assert (_weights(robust) - _weights(plain)).abs().max() > 1e-4


def test_gce_follows_its_setting_and_mae_is_gce_at_one(tiny_cfg, tmp_path):
    gce = with_loss(Theirs, GCE)
    at_one, _ = _step(gce, tiny_cfg, tmp_path, "TRAINER.GCE.Q", 1.0)
    at_half, _ = _step(gce, tiny_cfg, tmp_path, "TRAINER.GCE.Q", 0.5)
    mae, _ = _step(with_loss(Theirs, MAE), tiny_cfg, tmp_path)
    assert torch.equal(_weights(at_one), _weights(mae))
    assert not torch.equal(_weights(at_half), _weights(mae))
    with pytest.raises(UserError, match="TRAINER.GCE.Q"):
        gce(tiny_cfg("Theirs", "unused", tmp_path, "TRAINER.GCE.Q", 2.0))


def test_other_terms_and_criterion_modules_work(tiny_cfg, tmp_path):
    class WithTerms(Theirs):  # and with what is printed: an accuracy of the labels
        def build(self, model):
            self.loss = nn.CrossEntropyLoss()
            self.weight = 0.5
            return model

        def compute_loss(self, image, label):
            logits, teacher = self.model(image), torch.full((len(label), 4), 0.25)
            assert 0 <= (logits.argmax(1) == label.to(self.device)).float().mean() <= 1
            terms = self.weight * self.model[1].weight.square().sum() + F.cross_entropy(logits, teacher)
            return self.loss(logits, label) + terms

    class ByHandWithTerms(ByHand):
        def compute_loss(self, image, label):
            terms = 0.5 * self.model[1].weight.square().sum() - self.model(image).log_softmax(1).mean()
            return super().compute_loss(image, label) + terms

    robust, _ = _step(with_loss(WithTerms, DoubleSoftmax), tiny_cfg, tmp_path)
    reference, _ = _step(ByHandWithTerms, tiny_cfg, tmp_path)
    torch.testing.assert_close(_weights(robust), _weights(reference), rtol=0, atol=1e-6)


class _ReturnsLoss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, image, label):
        return F.cross_entropy(self.inner(image), label)


class LossInModel(Theirs):
    """As in CoCoOp; its labels are copied on the way, which makes them no others."""

    def build(self, model):
        return _ReturnsLoss(model)

    def compute_loss(self, image, label):
        return self.model(image, label.clone().view(-1).to(torch.int32).long())


class LossInModelByHand(LossInModel):
    def compute_loss(self, image, label):
        return -self.model.inner(image).softmax(1).softmax(1)[range(len(label)), label].log().mean()


def test_a_loss_in_the_model_is_replaced_too(tiny_cfg, tmp_path):
    robust, summary = _step(with_loss(LossInModel, "DSPT"), tiny_cfg, tmp_path)
    reference, expected = _step(LossInModelByHand, tiny_cfg, tmp_path)
    assert summary["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    torch.testing.assert_close(_weights(robust), _weights(reference), rtol=0, atol=1e-6)


class OwnFormula(Theirs):
    def compute_loss(self, image, label):
        return -self.model(image).log_softmax(1)[range(len(label)), label].mean()


class NoLabels(Theirs):
    def compute_loss(self, image, label):
        return self.model(image).softmax(1).square().mean()


class Smoothed(Theirs):
    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), label, label_smoothing=0.1)


class SoftLabels(Theirs):
    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), F.one_hot(label, 4).float())


class NoTensorBackward(OwnFormula):
    def model_backward_and_update(self, loss):
        torch.autograd.backward(loss)


@pytest.mark.parametrize(
    "trainer, fact",
    [
        (OwnFormula, "labels"),
        (SoftLabels, "labels"),
        (NoTensorBackward, "labels"),
        (NoLabels, "F.cross_entropy"),
        (Smoothed, "label_smoothing=0.1"),
    ],
)
def test_a_hidden_loss_is_refused_before_anything_is_learned(trainer, fact, tiny_cfg, tmp_path):
    robust = with_loss(trainer, DoubleSoftmax)(tiny_cfg("Theirs", "unused", tmp_path / "run"))
    before = _weights(robust)
    robust.batch_idx, robust.num_batches = 0, 2
    with refused(f"{trainer.__name__}DoubleSoftmax", fact, "CoOpDSPT"):
        robust.forward_backward(next(iter(robust.train_loader_x)))
    assert torch.equal(_weights(robust), before)


def test_cross_entropy_is_itself_again_outside_of_the_step(tiny_cfg, tmp_path):
    robust, _ = _step(with_loss(Theirs, DoubleSoftmax), tiny_cfg, tmp_path)
    logits, label = torch.zeros(1, 4), torch.tensor([2])
    assert F.cross_entropy(2 * logits, label).item() == pytest.approx(1.38629, rel=1e-4)
    assert not robust.model._forward_hooks and not robust.model._forward_pre_hooks


def test_our_own_trainers_just_get_the_mixin():
    robust = with_loss(CoOp, DoubleSoftmax)
    assert robust.criterion is DoubleSoftmax.criterion and robust.forward_backward is CoOp.forward_backward
    assert with_loss(CoOp, ATLaS).build_state is ATLaS.build_state


def test_names_and_registration(tiny_cfg):
    from dassl.engine import TRAINER_REGISTRY

    assert with_loss(Theirs, DoubleSoftmax).__name__ == "TheirsDoubleSoftmax"
    assert with_loss(Theirs, double_softmax_loss).__name__ == "TheirsDoubleSoftmaxLoss"
    assert with_loss(Theirs, "DSPT").__name__ == "TheirsDSPT"
    assert with_loss(Theirs, MAE, name="TheirsRobust").__name__ == "TheirsRobust"
    assert issubclass(with_loss(Theirs, MAE), Theirs)
    assert "TheirsDoubleSoftmax" not in TRAINER_REGISTRY.registered_names()


@pytest.mark.parametrize(
    "trainer, loss, facts",
    [
        ("CoOp", DoubleSoftmax, ("trainer class", "CoOp")),
        (nn.Linear, DoubleSoftmax, ("trainer class", "Linear")),
        (Theirs, "dspt", ("DoubleSoftmax, GCE, MAE", "dspt")),
        (Theirs, nn.CrossEntropyLoss, ("DoubleSoftmax, GCE, MAE", "CrossEntropyLoss")),
        (Theirs, OLS, ("OLS", "finish_epoch", "CoOpOLS")),
        (Theirs, "NLPrompt", ("NLPrompt", "finish_epoch", "CoOpNLPrompt")),
        (with_loss(Theirs, MAE), GCE, ("`loss`", "TheirsMAE")),
    ],
)
def test_what_is_no_trainer_or_no_loss_is_refused(trainer, loss, facts):
    with refused(*facts):
        with_loss(trainer, loss)


def test_every_method_that_is_only_a_loss_goes_by_its_name():
    taken = set()
    for name in METHODS:
        with suppress(UserError):
            taken.add(with_loss(Theirs, name).__name__)
    assert {f"Theirs{name}" for name in ("DSPT", "GCE", "MAE", "LS", "TFKD", "ATLaS")} <= taken
    assert not {f"Theirs{name}" for name in ("OLS", "NLPrompt", "JoAPR")} & taken


# Steps of other names, several backward passes, threads


class OtherNames(Theirs):
    """As in NLPrompt: an epoch, and steps, of the trainer's own; images of odd index are those judged wrong."""

    def run_epoch(self):
        self.set_model_mode("train")
        self.num_batches = len(self.train_loader_x)
        for batch in self.train_loader_x:
            image, label = self.parse_batch_train(batch)
            self.step_on_right(image, label)
            if self.epoch + 1 >= self.cfg.OPTIM.WARMUP_EPOCH:
                self.step_on_wrong(image, label)

    def parse_batch_train(self, batch):
        return batch["img"], batch["label"]

    def step_on_right(self, image, label):
        self.model_backward_and_update(self.compute_loss(image, label))

    step_on_wrong = step_on_right


class SecondByHand(OtherNames):
    """Its steps on what it judges wrong minimise 1 - p_y, written out: no cross-entropy is there to be replaced."""

    def step_on_wrong(self, image, label):
        loss = (1 - self.model(image).softmax(1)[range(len(label)), label]).mean()
        self.model_backward_and_update(loss)


class OtherNamesByHand(OtherNames, ByHand):
    pass


def _train(cls, tiny_cfg, folder, *options):
    trainer = cls(tiny_cfg(cls.__name__, "unused", folder, "TRAIN.CHECKPOINT_FREQ", 1, *options))
    torch.manual_seed(1)
    trainer.train()
    return trainer


def test_steps_of_other_names_are_those_of_the_loss_written_by_hand(tiny_cfg, tmp_path):
    robust = _train(with_loss(OtherNames, DoubleSoftmax), tiny_cfg, tmp_path / "robust")
    reference = _train(OtherNamesByHand, tiny_cfg, tmp_path / "by hand")
    plain = _train(OtherNames, tiny_cfg, tmp_path / "plain")
    torch.testing.assert_close(_weights(robust), _weights(reference), rtol=0, atol=1e-6)
    assert (_weights(robust) - _weights(plain)).abs().max() > 1e-4


@pytest.mark.parametrize("first", [1, 2])
def test_a_step_that_learns_from_another_loss_ends_the_run_before_its_epoch_is_saved(first, tiny_cfg, tmp_path):
    robust = with_loss(SecondByHand, DoubleSoftmax)
    with pytest.raises(UserError) as error:
        _train(robust, tiny_cfg, tmp_path, "OPTIM.WARMUP_EPOCH", first)
    assert "SecondByHandDoubleSoftmax" in str(error.value) and f"epoch {first})" in str(error.value)
    assert [path.name for path in tmp_path.rglob("model.pth*")] == ["model.pth.tar-1"] * (first - 1)


class OwnLoop(OwnFormula):
    """Its train() is a loop of its own, without any hook of Dassl's."""

    def train(self):
        for batch in self.train_loader_x:
            self.model_backward_and_update(self.compute_loss(batch["img"], batch["label"]))


def test_a_loop_of_the_trainers_own_is_refused_before_its_first_step(tiny_cfg, tmp_path):
    robust = with_loss(OwnLoop, DoubleSoftmax)(tiny_cfg("Theirs", "unused", tmp_path))
    before = _weights(robust)
    with pytest.raises(UserError):
        robust.train()
    assert torch.equal(_weights(robust), before)


class NoOptimiser(OtherNames):
    """Descends without an optimiser, along a gradient of a loss written by hand."""

    def step_on_right(self, image, label):
        logits = self.model(image)
        loss = -logits.log_softmax(1)[range(len(label)), label].mean()
        for parameter, gradient in zip(
            self.model.parameters(), torch.autograd.grad(loss, list(self.model.parameters())), strict=True
        ):
            parameter.data -= 0.01 * gradient

    step_on_wrong = step_on_right


def test_an_epoch_in_which_nothing_was_replaced_is_not_saved(tiny_cfg, tmp_path):
    with pytest.raises(UserError):
        _train(with_loss(NoOptimiser, DoubleSoftmax), tiny_cfg, tmp_path)
    assert not list(tmp_path.rglob("model.pth*"))


class Projected(Theirs):
    """As in ProGrad: a first backward pass shapes the gradient of a second one and is no part of it."""

    set_to_none = True

    def forward_backward(self, batch):
        logits, weight = self.model(batch["img"]), self.model[1].weight
        loss = self.from_logits(logits, batch["label"])
        self.optim.zero_grad(self.set_to_none)
        (logits.softmax(1) * logits.log_softmax(1)).sum().backward(retain_graph=True)
        guide = F.normalize(weight.grad.flatten(), dim=0)
        self.optim.zero_grad(self.set_to_none)
        loss.backward()
        weight.grad.sub_((weight.grad.flatten() @ guide) * guide.view_as(weight))
        self.optim.step()
        return {"loss": loss.item()}

    def from_logits(self, logits, label):
        return F.cross_entropy(logits, label)


class ProjectedByHand(Projected):
    def from_logits(self, logits, label):
        return -logits.softmax(1).softmax(1)[range(len(label)), label].log().mean()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_pass_that_only_shapes_the_gradient_may_lack_the_loss(set_to_none, tiny_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(Projected, "set_to_none", set_to_none)
    robust = _train(with_loss(Projected, DoubleSoftmax), tiny_cfg, tmp_path / "robust")
    reference = _train(ProjectedByHand, tiny_cfg, tmp_path / "by hand")
    torch.testing.assert_close(_weights(robust), _weights(reference), rtol=0, atol=1e-6)


class TwoPasses(Theirs):
    """Adds up the gradients of two backward passes, of which the second is written by hand."""

    def forward_backward(self, batch):
        logits, label = self.model(batch["img"]), batch["label"]
        self.optim.zero_grad()
        F.cross_entropy(logits, label).backward(retain_graph=True)
        (1 - logits.softmax(1)[range(len(label)), label]).mean().backward()
        self.optim.step()


class HalfByHand(Theirs):
    """Adds a term on the labels, written by hand, to the cross-entropy."""

    def compute_loss(self, image, label):
        logits = self.model(image)
        return 0.5 * F.cross_entropy(logits, label) - 0.5 * logits.log_softmax(1)[range(len(label)), label].mean()


class HalfOneHot(Theirs):
    def compute_loss(self, image, label):
        logits = self.model(image)
        return F.cross_entropy(logits, label) + F.cross_entropy(logits, 0.9 * F.one_hot(label, 4) + 0.025)


class WeighedByClass(Theirs):
    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), label) * (1 + label.bincount(minlength=4).float()[0])


class OnTwoGPUs(Theirs):
    def build(self, model):
        model = nn.DataParallel(model)
        model.device_ids = [0, 1]  # as on a machine with two
        return model


class Positions(Theirs):
    """As in DPC: the targets are positions in the batch."""

    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), torch.arange(len(label)) % 4)


class EqualNumbers(Theirs):
    """Its targets equal the labels, but nothing says that they would in the next batch."""

    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), torch.tensor(label.tolist()))


class Mixed(Theirs):
    """As in MixUp: the labels of other images of the batch."""

    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), label[torch.arange(len(label)).flip(0)])


class CountedUp(Theirs):
    """Positions that are computed from the labels, and from nothing else."""

    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(image), (torch.ones_like(label).cumsum(0) - 1) % 4)


class HalfByHandAlone(HalfByHand):
    """The same without Tensor.backward."""

    def model_backward_and_update(self, loss):
        self.optim.zero_grad()
        torch.autograd.backward(loss)
        self.optim.step()


class UnseenBatches(OtherNames):
    """Its own epoch takes the labels without any method of Dassl's."""

    def parse_batch_train(self, batch):
        raise AssertionError("not called")

    def run_epoch(self):
        for batch in self.train_loader_x:
            self.step_on_right(batch["img"], batch["label"])


class NoLoss(Theirs):
    """As in PromptKD: no label is used."""

    def compute_loss(self, image, label):
        return F.kl_div(self.model(image).log_softmax(1), torch.full((len(label), 4), 0.25), reduction="batchmean")


OTHERS = [TwoPasses, HalfByHand, HalfByHandAlone, HalfOneHot, WeighedByClass, OnTwoGPUs, Positions, EqualNumbers]


@pytest.mark.parametrize("trainer", [*OTHERS, CountedUp, Mixed, UnseenBatches, NoLoss])
def test_what_is_replaced_in_part_or_out_of_sight_is_refused_before_anything_is_learned(trainer, tiny_cfg, tmp_path):
    robust = with_loss(trainer, DoubleSoftmax)(tiny_cfg("Theirs", "unused", tmp_path))
    before = _weights(robust)
    with pytest.raises(UserError, match=trainer.__name__):
        robust.train()
    assert torch.equal(_weights(robust), before)


@pytest.mark.parametrize("trainer", [Positions, CountedUp])
def test_positions_are_refused_also_where_every_label_equals_its_position(trainer, tiny_cfg, tmp_path):
    cfg = tiny_cfg("Theirs", "unused", tmp_path, "DATALOADER.TRAIN_X.SAMPLER", "SequentialSampler")
    robust = with_loss(trainer, DoubleSoftmax)(cfg)
    items = robust.dm.dataset.train_x
    items[:] = [item for start in range(6) for item in items[start::6]]
    assert next(iter(robust.train_loader_x))["label"].tolist() == [0, 1, 2, 3] * 2
    before = _weights(robust)
    with pytest.raises(UserError, match=trainer.__name__):
        robust.train()
    assert torch.equal(_weights(robust), before)


class TwoViews(Theirs):
    def compute_loss(self, image, label):
        return F.cross_entropy(self.model(torch.cat([image, image.flip(3)])), label.repeat(2))


def test_a_batch_in_two_views_hands_its_indices_over_twice(tiny_cfg, tmp_path):
    seen = []

    class Noted:
        def loss(self, logits, batch):
            seen.append((len(logits), batch["label"].tolist(), batch["index"].tolist()))
            return double_softmax_loss(logits, batch["label"])

    _step(with_loss(TwoViews, Noted), tiny_cfg, tmp_path)
    ((rows, labels, indices),) = seen
    assert rows == len(labels) == len(indices) == 16
    assert labels[:8] == labels[8:] and indices[:8] == indices[8:]


class Choosing(OtherNames):
    """Looks at each image's own cross-entropy, without a gradient, before it steps."""

    def step_on_right(self, image, label):
        with torch.no_grad():
            each = F.cross_entropy(self.model(image), label, reduction="none")
        assert each.shape == label.shape
        super().step_on_right(image, label)


def test_a_cross_entropy_that_teaches_nothing_stays_as_it_is(tiny_cfg, tmp_path):
    chosen = _train(with_loss(Choosing, DoubleSoftmax), tiny_cfg, tmp_path / "chosen")
    reference = _train(with_loss(OtherNames, DoubleSoftmax), tiny_cfg, tmp_path / "reference")
    assert torch.equal(_weights(chosen), _weights(reference))


@pytest.mark.parametrize("loss", [lambda z, y: 0.5, lambda z, y: z.sum(1), lambda z, y: z.detach().sum()])
def test_a_function_that_returns_no_loss_is_refused(loss, tiny_cfg, tmp_path):
    with pytest.raises(UserError, match="scalar"):
        _step(with_loss(Theirs, loss, name="Broken"), tiny_cfg, tmp_path)


def test_a_run_with_all_epochs_done_is_only_tested(tiny_cfg, tmp_path):
    _train(with_loss(Theirs, DoubleSoftmax), tiny_cfg, tmp_path)
    _train(with_loss(Theirs, DoubleSoftmax), tiny_cfg, tmp_path)


# ATLaS on a trainer of another repository: what it needs is found there, or asked for


class NoIndex(DatasetWrapper):
    """Batches of an edited Dassl."""

    left_out = ("index",)

    def __getitem__(self, idx):
        return {key: value for key, value in super().__getitem__(idx).items() if key not in self.left_out}


class NoPlace(NoIndex):
    left_out = ("index", "impath")


class WithoutIndex(Theirs):
    wrapper = NoIndex

    def build_data_loader(self):
        super().build_data_loader()
        self.train_loader_x.dataset.__class__ = self.wrapper


class WithoutPlace(WithoutIndex):
    wrapper = NoPlace


class NoDataManager(Theirs):
    def build_model(self):
        super().build_model()
        self.data, self.dm = self.dm.dataset, None


class FiveLogits(Theirs):
    def build(self, model):
        return nn.Sequential(*model, nn.Linear(4, 5))


KIND, LONGER = "TRAINER.ATLAS.SOFT_LABELS", ("OPTIM.MAX_EPOCH", 2)


def _atlas(trainer, tiny_cfg, folder, backbone, *options, **found):
    robust = with_loss(trainer, ATLaS, **found)(tiny_cfg("Theirs", backbone, folder, *LONGER, *options))
    torch.manual_seed(1)
    before = _weights(robust)
    try:
        robust.train()
    except UserError:
        assert torch.equal(_weights(robust), before)
        raise
    return _weights(robust)


@pytest.mark.parametrize("kind", ["ls", "csl", "isl"])
def test_what_atlas_needs_may_be_given(kind, tiny_cfg, tiny_clip_path, tmp_path):
    reference = _atlas(Theirs, tiny_cfg, tmp_path / "reference", tiny_clip_path, KIND, kind)
    given = {"dataset": lambda trainer: trainer.data, "clip_model": lambda trainer: load_clip(tiny_clip_path)}
    assert torch.equal(_atlas(NoDataManager, tiny_cfg, tmp_path / "given", "unused", KIND, kind, **given), reference)
    found = _atlas(WithoutIndex, tiny_cfg, tmp_path / "by path", tiny_clip_path, KIND, kind)
    assert torch.equal(found, reference)


def test_only_soft_labels_by_instance_need_the_place_of_an_image(tiny_cfg, tiny_clip_path, tmp_path):
    with refused("WithoutPlaceATLaS", "impath", "index"):
        _atlas(WithoutPlace, tiny_cfg, tmp_path / "isl", tiny_clip_path, KIND, "isl")
    _atlas(WithoutPlace, tiny_cfg, tmp_path / "csl", tiny_clip_path, KIND, "csl")

    def a_part(trainer):
        kept = trainer.dm.dataset.train_x[1:]
        return SimpleNamespace(train_x=kept, classnames=trainer.dm.dataset.classnames)

    first = Path("train", "red circle", "0.png")
    with refused("TheirsATLaS", first):
        _atlas(Theirs, tiny_cfg, tmp_path / "part", tiny_clip_path, KIND, "isl", dataset=a_part)


@pytest.mark.parametrize(
    "trainer, found, facts",
    [
        (NoDataManager, {}, ("NoDataManagerATLaS", "dataset")),
        (Theirs, {}, ("TheirsATLaS", "clip_model", "unused")),
        (Theirs, {"clip_model": lambda trainer: None}, ("TheirsATLaS", "clip_model", "NoneType")),
        (Theirs, {"clip_model": lambda trainer: torch.ones(2) @ torch.ones(3)}, ("clip_model", "RuntimeError")),
        (FiveLogits, {"clip_model": lambda trainer: None}, ("FiveLogitsATLaS", 5, 4)),
    ],
)
def test_what_atlas_does_not_find_is_asked_for_by_its_argument(trainer, found, facts, tiny_cfg, tmp_path):
    kind = "ls" if trainer is FiveLogits else "csl"
    with refused(*facts):
        _atlas(trainer, tiny_cfg, tmp_path, "unused", KIND, kind, **found)


def test_settings_that_nobody_added_are_asked_for(tiny_cfg, tmp_path):
    cfg = tiny_cfg("Theirs", "unused", tmp_path)
    cfg.defrost()
    del cfg.TRAINER["GCE"]
    with refused("TRAINER.GCE", "TheirsGCE", "dspt_atlas.extend_cfg"):
        with_loss(Theirs, GCE)(cfg)
