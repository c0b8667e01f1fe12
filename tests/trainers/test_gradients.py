"""Gradient norms of right and wrong labels: against finite differences, while training, and of a run's checkpoints."""

import csv
import json
import math

import pytest
import torch

from dspt_atlas.report.figures.gradients import theory
from dspt_atlas.tools.gradient_profile import PROFILE_FILE, SUMMARY_FILE, profile_run
from dspt_atlas.tools.profile import main
from dspt_atlas.trainers.gradients import LOSSES, logit_gradient_norms, logit_gradients, prompt_gradients
from support.refusals import refused
from support.runs import result_of


@pytest.mark.parametrize("name", LOSSES)
def test_each_sample_has_the_gradient_that_finite_differences_give(name):
    torch.manual_seed(0)
    logits, label = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0, 4, 2])
    found = logit_gradients(LOSSES[name], logits, label)
    step = 1e-6
    for i in range(3):
        for k in range(5):
            up, down = (logits[i : i + 1].clone() for _ in range(2))
            up[0, k] += step
            down[0, k] -= step
            slope = (LOSSES[name](up, label[i : i + 1]) - LOSSES[name](down, label[i : i + 1])) / (2 * step)
            assert found[i, k].item() == pytest.approx(slope.item(), abs=1e-8)
    row = list(LOSSES).index(name)
    assert torch.allclose(logit_gradient_norms(logits, label)[row], found.norm(dim=1))


def test_theory_is_the_closed_form_and_the_confident_prior_vetoes():
    p = torch.tensor([1e-6, 0.25, 0.5, 0.9], dtype=torch.float64)
    one_rival = {name: theory(loss, p, 10, 1) for name, loss in LOSSES.items()}
    assert torch.allclose(one_rival["CE"], math.sqrt(2) * (1 - p))
    assert torch.allclose(one_rival["MAE"], math.sqrt(2) * p * (1 - p))
    assert torch.allclose(one_rival["GCE"], math.sqrt(2) * p**0.7 * (1 - p))
    assert one_rival["CE"][0] > 1.41 and one_rival["DSPT"][0] < 1e-5
    spread = theory(LOSSES["CE"], p, 10, 9)
    assert torch.allclose(spread, ((1 - p) ** 2 + (1 - p) ** 2 / 9).sqrt())


@pytest.mark.parametrize("learner", ["CoOp", "CoCoOp", "MaPLe"])
def test_the_samples_prompt_gradients_add_up_to_the_batch_gradient(learner, tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run(learner, tiny_clip_path, tmp_path)
    batch = next(iter(trainer.test_loader))
    images, label = batch["img"][:3], torch.tensor([0, 1, 2])
    wrong = torch.tensor([False, True, True])
    logits, norms, sums = prompt_gradients(trainer.model, images, label, wrong)
    assert norms.shape == (len(LOSSES), 3) and torch.allclose(logits, trainer.model(images).logits, atol=1e-4)
    parameters = list(trainer.model.prompt_learner.parameters())
    for loss, norm, (right_sum, wrong_sum) in zip(LOSSES.values(), norms, sums, strict=True):
        whole = torch.autograd.grad(3 * loss(trainer.model(images).logits, label), parameters, materialize_grads=True)
        whole = torch.cat([part.flatten() for part in whole])
        scale = whole.norm().item()
        assert torch.allclose(right_sum + wrong_sum, whole, atol=1e-3 * scale)
        assert norm[0].item() == pytest.approx(right_sum.norm().item(), rel=1e-4)


def test_training_records_what_every_epoch_did_and_tensorboard_has_it(tiny_noisy_run):
    history = result_of(tiny_noisy_run)["history"]
    assert len(history) == 2
    for entry in history:
        assert entry["gradient"].keys() == LOSSES.keys()
        for norms in entry["gradient"].values():
            share = norms["wrong"] / (norms["right"] + norms["wrong"])  # as many wrong as right labels
            assert norms["wrong_share"] == pytest.approx(share, rel=1e-5)
        assert entry["gradient"]["CE"]["wrong"] > entry["gradient"]["MAE"]["wrong"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tiny_noisy_run / "tensorboard")).Reload()
    written = [event.value for event in events.Scalars("gradient/DSPT/wrong_share")]
    assert written == pytest.approx([entry["gradient"]["DSPT"]["wrong_share"] for entry in history])


def test_the_profile_does_not_change_the_training(tiny_noisy_run, train_tiny):
    plain = train_tiny("CoOp", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5)
    curves = [result_of(run)["history"] for run in (tiny_noisy_run, plain)]
    assert [entry["train_loss"] for entry in curves[0]] == [entry["train_loss"] for entry in curves[1]]
    assert "gradient" not in curves[1][0]


def test_every_checkpoint_of_a_run_is_profiled_and_drawn(tiny_noisy_run, tmp_path, capsys):
    assert main([str(tiny_noisy_run), "--samples", "10", "--out", str(tmp_path)]) == 0
    assert "update_wrong_share" in capsys.readouterr().out
    samples, summary = (list(csv.DictReader((tiny_noisy_run / name).open())) for name in (PROFILE_FILE, SUMMARY_FILE))
    assert len(samples) == 2 * len(LOSSES) * 10 and len(summary) == 2 * len(LOSSES)
    noise = json.loads((tiny_noisy_run / "noise.json").read_text())["samples"]
    for sample in samples:
        recorded = noise[int(sample["index"])]
        assert (int(sample["given"]), int(sample["clean"])) == (recorded["given"], recorded["clean"])
    chosen = [s for s in samples if (s["epoch"], s["loss"]) == ("2", "CE")]
    wrong = [float(s["prompt_norm"]) for s in chosen if s["wrong"] == "1"]
    row = next(row for row in summary if (row["epoch"], row["loss"]) == ("2", "CE"))
    assert float(row["prompt_wrong"]) == pytest.approx(sum(wrong) / len(wrong), rel=1e-4)
    assert 0 < float(row["update_wrong_share"]) < 1 and -1 <= float(row["update_cosine"]) <= 1
    drawn = {path.suffix for path in tmp_path.iterdir()}
    assert drawn == {".png", ".svg", ".pdf", ".csv"}
    (drawn_epochs,) = tmp_path.glob("prompt_gradient_epochs*.csv")
    points = [row for row in csv.DictReader(drawn_epochs.open()) if row["panel"].startswith("share")]
    own = [row["prompt_wrong_share"] for row in summary if row["loss"] == "CE"]
    assert [point["mean"] for point in points] == own and [point["epoch"] for point in points] == ["1", "2"]


def test_a_run_without_prompts_has_no_gradient(train_tiny):
    with refused("ZeroshotCLIP"):
        profile_run(train_tiny("ZeroshotCLIP"))
