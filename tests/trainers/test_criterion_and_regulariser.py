"""A step minimises criterion plus regulariser: neither silences the other, and state is there before a resume."""

import pytest
import torch
from dassl.engine import TRAINER_REGISTRY

from dspt_atlas.trainers import declare, registry
from dspt_atlas.trainers.learners.coop import CoOp
from dspt_atlas.trainers.losses import double_softmax_loss, mae_loss
from dspt_atlas.trainers.registry import METHOD_TRAINERS, Pair, pair_of


@pytest.fixture
def declarations():
    """Forget afterwards what a test declares and registers."""
    tables = declare.LEARNERS, declare.METHODS, METHOD_TRAINERS, TRAINER_REGISTRY._objects
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


class Held(CoOp):
    """Holds the mean of squares of the text features' first half near 1, and notes what it sees."""

    def regulariser(self, output, batch):
        self.seen = output, batch
        return 3 * (1 - output.text_features[:, ::2].square().mean())


@pytest.mark.parametrize("suffix", ["", *declare.METHODS])
def test_each_method_goes_with_a_declared_learner_and_its_regulariser_is_added(
    suffix, declarations, tiny_run, tiny_clip_path, tmp_path
):
    declare.learner()(Held)
    registry.register_methods()
    registry.register_standard_trainers()
    assert pair_of("Held" + suffix) == Pair("Held", suffix or "CE")
    options = ("OPTIM.MAX_EPOCH", 2, "TRAIN.PRINT_FREQ", 1)
    held = tiny_run("Held" + suffix, tiny_clip_path, tmp_path / "held", *options)
    terms = []

    def update(criterion, regulariser):
        terms.append((held.epoch, criterion.item(), regulariser.item()))
        type(held).update(held, criterion, regulariser)

    held.update = update
    held.train()
    assert all(criterion != regulariser > 0 for _, criterion, regulariser in terms)
    last = [criterion + regulariser for epoch, criterion, regulariser in terms if epoch == 1]
    assert held.report["history"][-1]["train_loss"] == pytest.approx(sum(last) / len(last), rel=1e-5)
    free = tiny_run("CoOp" + suffix, tiny_clip_path, tmp_path / "free", *options)
    free.train()
    assert not torch.equal(held.model.prompt_learner.ctx, free.model.prompt_learner.ctx)


def test_the_output_has_what_the_logits_are_made_of(declarations, tiny_run, tiny_clip_path, tmp_path):
    declare.learner()(Held)
    registry.register_standard_trainers()
    trainer = tiny_run("Held", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    output, batch = trainer.seen
    scale = trainer.model.clip_model.logit_scale.exp()
    torch.testing.assert_close(output.logits, scale * output.image_features @ output.text_features.T)
    assert len(batch["label"]) == len(output.logits) == len(output.image_features)
    assert output.logits.shape[1] == len(output.text_features) == trainer.num_classes


def test_a_learner_that_shapes_the_gradient_gets_both_terms_apart(declarations, tiny_run, tiny_clip_path, tmp_path):
    class Shaped(Held):
        def update(self, criterion, regulariser):
            super().update(criterion, None)  # ProGrad's way: the second term never enters the update itself

    declare.learner()(Shaped)
    registry.register_standard_trainers()
    contexts = []
    for name in ("Shaped", "CoOp"):
        trainer = tiny_run(name, tiny_clip_path, tmp_path / name)
        trainer.train()
        contexts.append(trainer.model.prompt_learner.ctx)
    assert torch.equal(*contexts)


def test_a_half_of_a_pair_that_would_silence_the_other_is_not_declared(declarations):
    class Both:
        def criterion(self, logits, batch):
            return mae_loss(logits, batch["label"])

        def regulariser(self, output, batch):
            return None

    with pytest.raises(TypeError, match="Both.*regulariser"):
        declare.method("Both")(Both)
    with pytest.raises(TypeError, match="Loud.*criterion"):
        declare.learner()(type("Loud", (CoOp,), {"criterion": Both.criterion}))
    with pytest.raises(TypeError, match="Nowhere.*config_node"):
        declare.learner()(type("Nowhere", (CoOp,), {"config_node": ""}))


def test_a_criterion_under_its_earlier_name_is_not_ignored():
    class Mine:
        def loss(self, logits, batch):
            return 2 * mae_loss(logits, batch["label"])

    logits, batch = torch.eye(3), {"label": torch.tensor([0, 1, 1])}
    mixed, over_a_method = type("Mixed", (Mine, CoOp), {}), type("Over", (Mine, METHOD_TRAINERS["CoOpGCE"]), {})
    for trainer in (mixed, over_a_method):
        assert torch.equal(trainer.criterion(None, logits, batch), 2 * mae_loss(logits, batch["label"]))
    later = type(
        "Later", (mixed,), {"criterion": lambda self, logits, batch: double_softmax_loss(logits, batch["label"])}
    )
    assert torch.equal(later.criterion(None, logits, batch), double_softmax_loss(logits, batch["label"]))


@pytest.mark.parametrize("resumed", [False, True])
def test_state_is_made_once_after_the_loaders_and_before_a_checkpoint_is_read(
    resumed, declarations, tiny_run, tiny_clip_path, tmp_path
):
    calls = []

    class Counting(CoOp):
        def build_state(self):
            super().build_state()
            calls.append((len(self.train_loader_x), self.start_epoch))
            self.count = 0

        def finish_epoch(self):
            super().finish_epoch()
            self.count += 1

        def extra_state(self):
            return {**super().extra_state(), "count": self.count}

        def load_extra_state(self, state):
            super().load_extra_state(state)
            assert self.count == 0
            self.count = state["count"]

    declare.learner()(Counting)
    registry.register_standard_trainers()
    if resumed:
        tiny_run("Counting", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 3).train()
        (tmp_path / "prompt_learner" / "model.pth.tar-3").unlink()
        (tmp_path / "prompt_learner" / "checkpoint").write_text("model.pth.tar-2\n")
        calls.clear()
    trainer = tiny_run("Counting", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 3)
    trainer.train()
    assert trainer.count == 3 and len(calls) == 1 and calls[0][1] == 0


def test_each_file_of_a_learner_or_method_declares_itself():
    learners = {name: trainer for name, trainer in declare.LEARNERS.items() if _is_ours(trainer)}
    methods = {name: mixin for name, mixin in declare.METHODS.items() if _is_ours(mixin)}
    assert {"CoOp", "CoCoOp", "MaPLe"} <= learners.keys()
    assert {"DSPT", "GCE", "MAE", "ATLaS", "LS", "TFKD", "OLS", "NLPrompt", "JoAPR"} <= methods.keys()
    for learner in learners.values():
        assert {"noisy", "fewshot", "base2new", "transfer", "embedded"} <= learner.configurations.keys()
        for name, mixin in methods.items():
            goes = getattr(mixin, "goes_with", lambda learner: True)(learner)
            assert (learner.__name__ + name in METHOD_TRAINERS) == goes


def _is_ours(declared):
    return declared.__module__.startswith(("dspt_atlas.trainers.learners.", "dspt_atlas.trainers.methods."))
