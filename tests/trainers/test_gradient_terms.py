"""Gradients of a step's two terms: their share in the history, and the key that matches cross-entropy's norm."""

import pytest
import torch

from dspt_atlas.trainers.losses import cross_entropy_loss, mae_loss
from dspt_atlas.trainers.trainer import repeat_batch

SHARE, MATCH = ("TRAIN.GRADIENT_SHARE", True), ("TRAINER.MATCH_CE_GRADIENT", True)


def _first_step(trainer):
    """Make a trainer note the output, batch and terms of its first step, and the loss of each."""
    seen, update, regulariser = [], trainer.update, trainer.regulariser
    own = {}

    def noted(output, batch):
        own.update(output=output, batch=batch)
        return regulariser(output, batch)

    def updated(criterion, added):
        if not seen:
            learned = list(trainer.model.prompt_learner.parameters())
            terms = {"criterion": criterion, "regulariser": added}
            terms["ce"] = cross_entropy_loss(own["output"].logits, own["batch"]["label"])
            terms["mae"] = mae_loss(own["output"].logits, own["batch"]["label"])
            norms = {
                name: torch.cat([g.flatten() for g in torch.autograd.grad(term, learned, retain_graph=True)]).norm()
                for name, term in terms.items()
                if term is not None
            }
            seen.append({name: norm.item() for name, norm in norms.items()})
        update(criterion, added)

    trainer.regulariser, trainer.update = noted, updated
    return seen


def test_the_share_of_both_gradients_is_in_the_history_and_changes_nothing(tiny_run, tiny_clip_path, tmp_path):
    watched = tiny_run("KgCoOpMAE", tiny_clip_path, tmp_path / "watched", *SHARE, "TRAINER.KGCOOP.CTX_INIT", "")
    seen = _first_step(watched)
    watched.train()
    share = watched.report["history"][0]["gradient_share"]
    assert share["criterion"] == pytest.approx(seen[0]["criterion"], rel=1e-5)
    assert share["regulariser"] == pytest.approx(seen[0]["regulariser"], rel=1e-5)
    assert share["share"] == pytest.approx(share["criterion"] / (share["criterion"] + share["regulariser"]))
    free = tiny_run("KgCoOpMAE", tiny_clip_path, tmp_path / "free", "TRAINER.KGCOOP.CTX_INIT", "")
    free.train()
    assert torch.equal(free.model.prompt_learner.ctx, watched.model.prompt_learner.ctx)
    assert "gradient_share" not in free.report["history"][0]


def test_without_a_regulariser_the_criterion_has_the_whole_share(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOpDSPT", tiny_clip_path, tmp_path, *SHARE)
    trainer.train()
    share = trainer.report["history"][-1]["gradient_share"]
    assert share["share"] == 1 and share["regulariser"] is None and share["criterion"] > 0


def test_the_matched_criterion_has_the_norm_of_cross_entropy_at_the_first_step(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("KgCoOpMAE", tiny_clip_path, tmp_path, *MATCH)
    seen = _first_step(trainer)
    trainer.train()
    assert seen[0]["criterion"] == pytest.approx(seen[0]["ce"], rel=1e-5)
    assert seen[0]["mae"] < 0.9 * seen[0]["ce"]
    assert trainer.gradient_terms.state()["criterion_scale"] == pytest.approx(seen[0]["ce"] / seen[0]["mae"], rel=1e-5)


def test_cross_entropy_itself_is_scaled_by_one(tiny_run, tiny_clip_path, tmp_path):
    contexts = []
    for name, options in (("matched", MATCH), ("free", ())):
        trainer = tiny_run("KgCoOp", tiny_clip_path, tmp_path / name, *options)
        trainer.train()
        contexts.append(trainer.model.prompt_learner.ctx)
    assert torch.equal(*contexts)


def test_a_resumed_run_keeps_its_scale_bit_for_bit(tiny_run, tiny_clip_path, tmp_path):
    options = ("OPTIM.MAX_EPOCH", 3, *MATCH)
    whole = tiny_run("CoOpMAE", tiny_clip_path, tmp_path / "run", *options)
    whole.train()
    (tmp_path / "run" / "prompt_learner" / "model.pth.tar-3").unlink()
    (tmp_path / "run" / "prompt_learner" / "checkpoint").write_text("model.pth.tar-2\n")
    resumed = tiny_run("CoOpMAE", tiny_clip_path, tmp_path / "run", *options)
    resumed.train()
    assert resumed.gradient_terms.state() == whole.gradient_terms.state() != {}
    assert torch.equal(resumed.model.prompt_learner.ctx, whole.model.prompt_learner.ctx)


def test_a_repeated_batch_repeats_all_that_belongs_to_a_sample():
    batch = {
        "img": torch.zeros(2, 3, 4, 4),
        "label": torch.tensor([5, 6]),
        "index": torch.tensor([0, 1]),
        "soft": torch.eye(2),
        "impath": ["a", "b"],
    }
    repeated = repeat_batch(batch, 2)
    assert "img" not in repeated and repeated["impath"] == ["a", "b", "a", "b"]
    assert repeated["label"].tolist() == [5, 6, 5, 6] and repeated["index"].tolist() == [0, 1, 0, 1]
    assert torch.equal(repeated["soft"], torch.eye(2).repeat(2, 1))
