"""KgCoOp against a slow, independent implementation over all 77 tokens, and against its formula worked out by hand."""

import copy
import itertools
import runpy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dspt_atlas.trainers.clip.prompted_clip import Output
from dspt_atlas.trainers.registry import METHOD_TRAINERS
from support.paths import ROOT

reference = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "reference.py")))
TEMPLATE = "a photo of a {}."


def _slow_loss(clip_model, ctx, features, label, names, weight):
    """Return CE + W (1 - mean cos) in float64, the cosines in Python's own arithmetic where no gradient is needed."""
    words = TEMPLATE.partition(" {}")[0]
    text = reference.encode_prompts(clip_model, *reference.full_prompts(clip_model, ctx, names, prefix=words))
    fixed = reference.encode_prompts(
        clip_model, *reference.full_prompts(clip_model, ctx[:0], names, prefix=words)
    ).detach()
    logits = reference.logits(clip_model, features, text)
    cosines = [(row @ other) / (row.norm() * other.norm()) for row, other in zip(text, fixed, strict=True)]
    losses = [-F.log_softmax(row, 0)[y] for row, y in zip(logits, label.tolist(), strict=True)]
    return sum(losses) / len(losses) + weight * (1 - sum(cosines) / len(cosines))


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@pytest.mark.parametrize("cache", ["none", "features"])
def test_three_steps_are_those_of_the_slow_reference(tower, cache, exact_layer_norm, request, tiny_run, tmp_path):
    path = request.getfixturevalue({"vit": "tiny_clip_path", "resnet": "tiny_resnet_clip_path"}[tower])
    pairs = ("TRAINER.KGCOOP.W", 3.0, "INPUT.CACHE", cache, "OPTIM.WEIGHT_DECAY", 0.0, "OPTIM.MOMENTUM", 0.0)
    trainer = tiny_run("KgCoOp", path, tmp_path, *pairs, "OPTIM.LR", 0.1)
    trainer.before_train()
    trainer.epoch, trainer.num_batches = 0, 99
    trainer.before_epoch()
    clip_model = copy.deepcopy(trainer.model.clip_model).double()
    ctx = trainer.model.prompt_learner.ctx.detach().double().requires_grad_()
    with torch.no_grad():  # a step away from the words, where the cosines are not 1
        ctx += 0.3 * torch.randn(ctx.shape, generator=torch.Generator().manual_seed(0), dtype=ctx.dtype)
        trainer.model.prompt_learner.ctx.copy_(ctx)
    for step, batch in enumerate(itertools.islice(iter(trainer.train_loader_x), 3)):
        trainer.batch_idx = step
        features = batch["img"].double() if cache == "features" else clip_model.encode_image(batch["img"].double())
        loss = _slow_loss(clip_model, ctx, features, batch["label"], trainer.dm.dataset.classnames, 3.0)
        (gradient,) = torch.autograd.grad(loss, ctx)
        assert trainer.forward_backward(batch)["loss"] == pytest.approx(loss.item(), rel=1e-4)
        ctx = (ctx - trainer.get_current_lr() * gradient).detach().requires_grad_()
        torch.testing.assert_close(
            trainer.model.prompt_learner.ctx.detach().double(), ctx.detach(), rtol=1e-3, atol=1e-5
        )
    assert trainer.regulariser(trainer.model(batch["img"]), batch) > 0


def test_the_regulariser_is_that_of_the_worked_example(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("KgCoOp", tiny_clip_path, tmp_path)
    trainer._fixed_features = F.normalize(torch.tensor([[2.0, 2, 1], [4, 0, 3]]), dim=1)
    text = F.normalize(torch.tensor([[1.0, 2, 2], [3, 0, 4]]), dim=1)
    score = trainer.regulariser(Output(None, None, text), {})
    assert score.item() == pytest.approx(0.6044444, rel=1e-6)
    half_squares = 0.5 * (text - trainer._fixed_features).square().sum(dim=1).mean()
    assert score.item() == pytest.approx(8 * half_squares.item(), rel=1e-6)


def test_it_starts_at_the_hand_written_prompts_and_stays_nearer_than_coop(tiny_run, tiny_clip_path, tmp_path):
    far = {}
    for weight in (0.0, 8.0):
        options = ("TRAINER.KGCOOP.W", weight, "OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.001)
        trainer = tiny_run("KgCoOp", tiny_clip_path, tmp_path / str(weight), *options)
        trainer.before_train()
        assert F.cosine_similarity(trainer.model.encode_text(), trainer._fixed_features).min() > 1 - 1e-5
        trainer.train()
        far[weight] = 1 - F.cosine_similarity(trainer.model.encode_text(), trainer._fixed_features).mean().item()
    assert far[8.0] < 0.9 * far[0.0]


def test_without_weight_it_is_coop(tiny_run, tiny_clip_path, tmp_path):
    contexts = []
    for name, pairs in (("KgCoOp", ("TRAINER.KGCOOP.W", 0.0)), ("CoOp", ("TRAINER.COOP.CTX_INIT", "a photo of a"))):
        trainer = tiny_run(name, tiny_clip_path, tmp_path / name, *pairs)
        trainer.train()
        contexts.append(trainer.model.prompt_learner.ctx)
    torch.testing.assert_close(*contexts, rtol=1e-5, atol=1e-7)


def test_the_authors_template_of_textures_is_not_the_data_sets(tiny_run, tiny_clip_path, tmp_path):
    def fixed(name):
        trainer = tiny_run("KgCoOp", tiny_clip_path, tmp_path / name)
        trainer.cfg.defrost()
        trainer.cfg.DATASET.NAME = name
        trainer.build_state()
        return trainer._fixed_features

    assert torch.equal(fixed("DescribableTextures"), fixed("NoisyDescribableTextures"))
    assert not torch.equal(fixed("DescribableTextures"), fixed("TinyImages"))


def test_every_method_is_paired_with_it():
    assert {name for name in METHOD_TRAINERS if name.startswith("KgCoOp")} >= {
        f"KgCoOp{method}" for method in ("DSPT", "GCE", "MAE", "ATLaS", "LS", "TFKD", "OLS", "NLPrompt", "JoAPR")
    }
