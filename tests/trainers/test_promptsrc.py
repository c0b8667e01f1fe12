"""PromptSRC's three terms, templates and mean of epochs against literal values and a slow float64 reference."""

import hashlib
import math

import clip
import numpy as np
import pytest
import reference
import steps
import torch
import torch.nn.functional as F

from dspt_atlas.trainers.clip.prompted_clip import Output, PromptedCLIP, ensemble, zero_shot_features
from dspt_atlas.trainers.learners.promptsrc import gaussian_weights
from dspt_atlas.trainers.losses import double_softmax_loss
from dspt_atlas.trainers.templates import SIXTY
from support.refusals import refused
from support.tolerance import distance

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.mark.parametrize(
    "epochs, mean, deviation, expected",
    [
        (20, 15, 1, {1: 1.09661e-43, 6: 1.02798e-18, 10: 1.48672e-06, 20: 1.48672e-06, 12: 0.00443185, 18: 0.00443185,
                     13: 0.053991, 17: 0.053991, 14: 0.241971, 16: 0.241971, 15: 0.398942}),
        (20, 6, 10, {1: 0.055402, 6: 0.0627787, 20: 0.0235615}),
        (50, 30, 30, {1: 0.0141238, 30: 0.0225352, 50: 0.0180448}),
        (50, 45, 5, {30: 0.00102502, 45: 0.0922693, 50: 0.0559642}),
        (3, 2, 1, {1: 0.274069, 2: 0.451863, 3: 0.274069}),
    ],
)  # fmt: skip
def test_epochs_weigh_as_in_the_worked_example(epochs, mean, deviation, expected):
    weights = gaussian_weights(epochs, mean, deviation)
    assert {epoch: weights[epoch - 1].item() for epoch in expected} == pytest.approx(expected, rel=1e-5)
    assert weights.sum().item() == pytest.approx(1)


def test_means_of_the_worked_example_and_weights_far_from_all_epochs():
    numbers = torch.arange(1, 51, dtype=torch.float64)
    assert (gaussian_weights(20, 15, 1) @ numbers[:20] ** 2).item() == pytest.approx(225.99999848, rel=1e-10)
    assert (gaussian_weights(20, 6, 10) @ numbers[:20]).item() == pytest.approx(9.205122, rel=1e-6)
    assert (gaussian_weights(50, 30, 30) @ numbers).item() == pytest.approx(26.447462, rel=1e-6)
    assert gaussian_weights(5, 1000, 1).tolist() == pytest.approx([0, 0, 0, 0, 1])


def _example(trainer):
    """The features of the worked example, as an Output and as the trainer's frozen ones."""
    text, fixed_text, images, fixed_images = (
        F.normalize(torch.tensor(rows, dtype=torch.float64), dim=1)
        for rows in (
            [[1, 2, 2], [0, 3, 4]],
            [[2, 2, 1], [0, 4, 3]],
            [[2, 1, 2], [6, 0, 8]],
            [[1, 2, 2], [0, 6, 8]],
        )
    )
    trainer._fixed_text, trainer._fixed_images = fixed_text, fixed_images[None].numpy()
    trainer.model.clip_model.logit_scale.data = torch.tensor(math.log(10), dtype=torch.float64)
    return Output(10 * images @ text.T, images, text), {"label": torch.tensor([0, 1]), "index": torch.tensor([0, 1])}


def test_the_loss_is_that_of_the_worked_example(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("PromptSRC", tiny_clip_path, tmp_path)
    trainer.cfg.defrost()
    output, batch = _example(trainer)
    node, terms = trainer.cfg.TRAINER.PROMPTSRC, []
    for weights in ((25.0, 0.0), (0.0, 10.0), (0.0, 0.0), (25.0, 10.0)):
        node.TEXT_LOSS_WEIGHT, node.IMAGE_LOSS_WEIGHT = weights
        terms.append(trainer.regulariser(output, batch).item())
    divergence = 0.3720030
    assert terms == pytest.approx([4.4444444 + divergence, 3.1111111 + divergence, divergence, 7.9275585], abs=1e-6)
    losses = {"CE": trainer.criterion, "DSPT": lambda logits, batch: double_softmax_loss(logits, batch["label"])}
    found = {name: trainer.label_loss(output, batch, loss).item() + terms[-1] for name, loss in losses.items()}
    assert found == pytest.approx({"CE": 8.6557944, "DSPT": 8.6045517}, abs=1e-6)


def test_the_templates_are_the_authors():
    assert len(SIXTY) == 60
    digest = "dc3398ed3ffc7c259342582bc0f36d7ac66c4dee17981a37b77b0fc9c23d4f72"
    assert hashlib.sha256("\n".join(SIXTY).encode()).hexdigest() == digest


def test_an_ensemble_may_be_averaged_before_it_is_normalised():
    raw = torch.tensor([[[3.0, 0]], [[0, 1.0]]])  # the worked example
    assert ensemble(raw, normalise_each=False)[0].tolist() == pytest.approx([0.948683, 0.316228], abs=1e-6)
    assert ensemble(raw)[0].tolist() == pytest.approx([0.707107, 0.707107], abs=1e-6)


def _slow_text(clip_model, names):
    """Frozen text features (C, d): 77 tokens per class and template, averaged raw."""
    sums = 0
    for template in SIXTY:
        sums = sums + clip_model.encode_text(clip.tokenize([template.format(name.replace("_", " ")) for name in names]))
    return sums / len(SIXTY)


def _slow_regulariser(logits, image, text, fixed_image, fixed_text, scale):
    """The three terms with their weights; means in Python's own sums."""

    def unit(rows):
        return rows / rows.square().sum(dim=1, keepdim=True).sqrt()

    def mean(values):
        return sum(values.flatten()) / values.numel()

    fixed_image, fixed_text = unit(fixed_image), unit(fixed_text)
    p, p0 = (rows.exp() / rows.exp().sum(dim=1, keepdim=True) for rows in (logits, scale * fixed_image @ fixed_text.T))
    terms = mean((unit(text) - fixed_text).abs()), mean((unit(image) - fixed_image).abs()), mean(p0 * (p0 / p).log())
    return 25 * terms[0] + 10 * terms[1] + terms[2]


def _in_float64(trainer, batch):
    """Let a trainer compute in float64, its frozen features too."""
    clip_model, data = trainer.model.clip_model.double(), trainer.train_loader_x.dataset
    trainer.model = PromptedCLIP(clip_model, trainer.model.prompt_learner.double())
    if hasattr(trainer, "_fixed_text"):
        names = trainer.dm.dataset.classnames
        trainer._fixed_text = zero_shot_features(clip_model, names, SIXTY, normalise_each=False)
        features = np.full((data.views, len(data), trainer._fixed_text.shape[1]), np.nan)
        encoded = F.normalize(clip_model.encode_image(batch["img"].double()), dim=1).detach().numpy()
        assert np.abs(trainer._fixed_images[data.view, batch["index"]] - encoded).max() < 1e-5
        features[data.view, batch["index"]] = encoded
        trainer._fixed_images = features
    return {**batch, "img": batch["img"].double()}


@pytest.mark.parametrize("name", ["IVLP", "VPT", "PromptSRC"])
def test_loss_and_gradients_of_a_step_are_those_of_the_slow_reference(
    name, exact_layer_norm, tiny_run, tiny_clip_path, tmp_path
):
    trainer = tiny_run(name, tiny_clip_path, tmp_path, "INPUT.VIEWS", 3)
    trainer.before_train()
    trainer.epoch = 4  # the view after one
    trainer.before_epoch()
    batch = _in_float64(trainer, next(iter(trainer.train_loader_x)))
    learner, clip_model, names = trainer.model.prompt_learner, trainer.model.clip_model, trainer.dm.dataset.classnames
    learned = list(learner.parameters())
    with torch.no_grad():  # a step away from the words
        for vectors in learned:
            vectors += 0.1 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    output = trainer.forward(batch)
    criterion, regulariser = trainer.label_loss(output, batch, trainer.criterion), trainer.regulariser(output, batch)
    total = criterion if regulariser is None else criterion + regulariser
    context = clip_model.positional_embedding[:0] if name == "VPT" else learner.ctx
    prompts = reference.full_prompts(clip_model, context, names, prefix="a photo of a")
    text = reference.encode_prompts(clip_model, *prompts, list(learner.text_prompts))
    image = reference.encode_prompted_images(clip_model, batch["img"], list(learner.image_prompts))
    logits = reference.logits(clip_model, image, text)
    rows = zip(logits, batch["label"], strict=True)
    expected = -sum((row[y].exp() / row.exp().sum()).log() for row, y in rows) / len(logits)
    if name == "PromptSRC":
        frozen = clip_model.encode_image(batch["img"]).detach(), _slow_text(clip_model, names).detach()
        expected = expected + _slow_regulariser(logits, image, text, *frozen, clip_model.logit_scale.exp())
    assert distance(output.logits, logits) < 1e-9 and distance(total, expected) < 1e-9
    gradients = zip(torch.autograd.grad(total, learned), torch.autograd.grad(expected, learned), strict=True)
    assert all(right.abs().max() > 0 and distance(gradient, right) < 1e-9 for gradient, right in gradients)


def _epochs(folder):
    paths = sorted(folder.glob("*/model.pth.tar-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return [torch.load(path, weights_only=True)["state_dict"] for path in paths]


GPA = ("OPTIM.MAX_EPOCH", 3, "TRAINER.PROMPTSRC.GPA_MEAN", 2.0, "TEST.PERIOD", 1, "TRAIN.CHECKPOINT_FREQ", 1)


def test_the_last_checkpoint_history_and_test_are_those_of_the_mean_of_epochs(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("PromptSRC", tiny_clip_path, tmp_path, *GPA)
    last = {}

    def finish():  # what the last step leaves
        last.update({name: value.clone() for name, value in trainer.model.prompt_learner.state_dict().items()})
        type(trainer).finish_epoch(trainer)

    trainer.finish_epoch = finish
    trainer.train()
    first, second, saved = _epochs(tmp_path)
    for name, value in saved.items():
        mean = 0.274069 * first[name].double() + 0.451863 * second[name].double() + 0.274069 * last[name].double()
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
        assert torch.equal(trainer.model.prompt_learner.state_dict()[name], value) and not torch.equal(
            value, last[name]
        )
    assert trainer.report["history"][-1]["test_accuracy"] == pytest.approx(trainer.results["accuracy"])


def test_epochs_are_those_of_a_run_without_averaging_until_the_last(tiny_run, tiny_clip_path, tmp_path):
    curves = []
    for mean in (1.0, 3.0):
        trainer = tiny_run("PromptSRC", tiny_clip_path, tmp_path / str(mean), *GPA, "TRAINER.PROMPTSRC.GPA_MEAN", mean)
        trainer.train()
        curves.append([epoch["train_loss"] for epoch in trainer.report["history"]])
    assert curves[0] == curves[1]
    (*before, ended), (*others, other) = (_epochs(tmp_path / str(mean)) for mean in (1.0, 3.0))
    assert all(torch.equal(one[name], two[name]) for one, two in zip(before, others, strict=True) for name in one)
    assert not torch.equal(ended["ctx"], other["ctx"])


def test_a_checkpoint_without_its_sum_is_refused(tiny_run, tiny_clip_path, tmp_path):
    tiny_run("PromptSRC", tiny_clip_path, tmp_path, *GPA).train()
    (folder,) = tmp_path.glob("VLPromptLearner")
    (folder / "checkpoint").write_text("model.pth.tar-2\n")
    saved = torch.load(folder / "model.pth.tar-2", weights_only=True)
    del saved["extra_state"]["prompt_sum"]["ctx"]
    torch.save(saved, folder / "model.pth.tar-2")
    with refused("ctx"):
        tiny_run("PromptSRC", tiny_clip_path, tmp_path, *GPA).train()


def test_new_classes_are_tested_without_frozen_features_of_theirs(tiny_run, tiny_clip_path, tmp_path):
    options = ("DATASET.SUBSAMPLE_CLASSES", "base", "TEST.NEW_CLASSES", True, *GPA)
    trainer = tiny_run("PromptSRC", tiny_clip_path, tmp_path / "base", *options)
    trainer.train()
    assert trainer._fixed_text.shape[0] == 2
    new = tiny_run("PromptSRC", tiny_clip_path, tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new")
    new.load_model(str(tmp_path / "base"), epoch=3)
    new.test()
    assert new.results["accuracy"] == pytest.approx(trainer.report["history"][-1]["new_accuracy"])
    assert not hasattr(new, "_fixed_text")


@pytest.mark.slow
def test_gradients_of_a_step_at_the_size_of_vit_b_16_are_those_of_the_slow_reference():
    problem = steps.Problem(classes=5, batch=2)
    expected, result = (steps.promptsrc(side, problem)() for side in ("reference", "ours"))
    assert distance(result, expected) < 1e-5
