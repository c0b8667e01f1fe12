"""ProGrad: the start of its context, the projection, and what is minimised, as worked out by hand."""

import pytest
import torch

from dspt_atlas.datasets.catalogue import CATALOGUE
from dspt_atlas.trainers.clip.model import tokenize
from dspt_atlas.trainers.clip.prompted_clip import Output
from dspt_atlas.trainers.learners.prograd import ProGradPromptLearner, projected
from dspt_atlas.trainers.losses import cross_entropy_loss
from dspt_atlas.trainers.templates import PROGRAD, authors_template

START, END = 49406, 49407
LAYOUTS = {  # zeros, tokens that are learned, tokens that stay before the name
    "Caltech101": (12, "a photo of a", ""),
    "OxfordPets": (8, "a type of pet , a photo of", "a"),
    "OxfordFlowers": (8, "a type of flower , a photo of", "a"),
    "FGVCAircraft": (8, "a type of aircraft , a photo of", "a"),
    "Food101": (9, "a type of food , a photo", "of"),
    "DescribableTextures": (13, "a texture of", ""),
    "EuroSAT": (11, "a centered satellite photo of", ""),
    "UCF101": (10, "a photo of a person doing", ""),
}


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_context_starts_as_zeros_and_words(name, csc, model):
    zeros, learned, fixed = LAYOUTS[name]
    dataset = next(dataset for dataset in CATALOGUE if dataset.__name__ == name)
    learner = ProGradPromptLearner(model, ["duck", "dog"], 16, authors_template(PROGRAD, dataset, name), csc)
    words = tokenize(learned)
    assert zeros + len(words) == 16
    for index, sequence in enumerate(learner.sequences):
        context = [-1 - slot - 16 * index * csc for slot in range(16)]
        assert sequence == [START, *context, *tokenize(fixed), *tokenize(["duck.", "dog."][index]), END]
    start = torch.cat([torch.zeros(zeros, 128), model.token_embedding(torch.tensor(words))])
    assert torch.equal(learner.ctx, start.expand_as(learner.ctx))


def test_a_context_shorter_than_the_words_takes_the_first_and_keeps_the_others(model):
    learner = ProGradPromptLearner(model, ["duck"], 3, "a photo of a {}.")
    words = tokenize("a photo of a duck.")
    assert learner.sequences == [[START, -1, -2, -3, *words[3:], END]]
    assert torch.equal(learner.ctx, model.token_embedding(torch.tensor(words[:3])))


def test_without_words_the_context_is_random(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("ProGrad", tiny_clip_path, tmp_path, "TRAINER.PROGRAD.CTX_INIT", False)
    context = trainer.model.prompt_learner.ctx
    assert context.abs().min() > 0 and context.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    "a, strength, expected",
    [
        ([[1, -2], [0, 3]], 1.0, [[1.333333, -1.333333], [0.666667, 3]]),
        ([[1, -2], [0, 3]], 0.8, [[1.266667, -1.466667], [0.533333, 3]]),
        ([[1, 2], [0, 3]], 1.0, [[1, 2], [0, 3]]),
    ],
)
def test_the_projection_is_that_of_the_worked_example(a, strength, expected):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor([[1.0, 2], [2, 0]], dtype=torch.float64)
    assert projected(a, b, strength).tolist() == [pytest.approx(row, abs=1e-6) for row in expected]
    assert torch.equal(projected(a, 0 * b, strength), a)
    torch.testing.assert_close(projected(65536 * a, 512 * b, strength), 65536 * projected(a, b, strength))


def test_a_guide_that_overflowed_makes_the_step_not_finite_so_that_it_is_skipped():
    for broken in (float("inf"), float("nan")):
        assert not projected(torch.ones(2), torch.tensor([broken, 1.0])).isfinite().all()


@pytest.mark.parametrize("temperature, expected", [(1.0, 1.1469049), (2.0, 4.4428125)])
def test_the_distance_to_zero_shot_is_that_of_the_worked_example(
    temperature, expected, tiny_run, tiny_clip_path, tmp_path
):
    trainer = tiny_run("ProGrad", tiny_clip_path, tmp_path, "LOSS.T", temperature)
    logits, teacher = torch.tensor([[2.0, 0, 1], [0, 1, 0]]), torch.tensor([[1.0, 1, 0], [0, 2, 1]])
    trainer._fixed_features = teacher.T / trainer.model.clip_model.logit_scale.exp()
    output = Output(logits, torch.eye(2), None)
    assert trainer.regulariser(output, {}).item() == pytest.approx(expected, rel=1e-6)
    assert cross_entropy_loss(logits, torch.tensor([0, 2])).item() == pytest.approx(0.9795254, rel=1e-6)


def test_the_history_has_the_criterion_alone_and_without_strength_it_is_coop(tiny_run, tiny_clip_path, tmp_path):
    runs = {}
    pairs = {"ProGrad": ("TRAINER.PROGRAD.CTX_INIT", False, "TRAINER.PROGRAD.N_CTX", 4, "LOSS.LAMBDA"), "CoOp": ()}
    for name, strength in (("ProGrad", 1.0), ("ProGrad", 0.0), ("CoOp", None)):
        options = (*pairs[name], strength) if name == "ProGrad" else ()
        runs[name, strength] = tiny_run(name, tiny_clip_path, tmp_path / f"{name}{strength}", *options)
        runs[name, strength].train()
    projected_run, free, coop = runs.values()
    assert torch.equal(free.model.prompt_learner.ctx, coop.model.prompt_learner.ctx)
    losses = [[epoch["train_loss"] for epoch in run.report["history"]] for run in (free, coop)]
    assert losses[0] == losses[1]
    assert not torch.equal(projected_run.model.prompt_learner.ctx, coop.model.prompt_learner.ctx)
