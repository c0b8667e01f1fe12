"""KgCoOp, ProGrad and TCP against all 77 tokens per class: logits, both terms, and the gradient of a step."""

from types import SimpleNamespace

import clip
import pytest
import reference
import torch
import torch.nn.functional as F

from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from support.tolerance import distance

NAMES = ["dog", "yellow_duck", "Boeing 737-800", "cat", "St. John's wort"]
TEXTS = [name.replace("_", " ") for name in NAMES]
CASES = {  # learner, data set, its hand-written prompt, what is tokenised before the names, what is after them
    "KgCoOp": ("DescribableTextures", "a photo of a {}, a type of texture.", "a photo of a", "."),
    "ProGrad": ("Food101", "a type of food, a photo of {}.", "X " * 9 + "a type of food, a photo of", "."),
    "TCP": ("FGVCAircraft", "a photo of an aircraft {}.", "X X X X", ", a type of aircraft."),
}
PAIRS = ("TRAINER.KGCOOP.W", 3.0, "TRAINER.TCP.W", 3.0, "TRAINER.PROGRAD.N_CTX", 16, "LOSS.LAMBDA", 0.8, "LOSS.T", 2.0)


def block_of(clip_model):
    """Return the block that gets TCP's vectors: 8 of 12, as the authors' code has it, or 2 of 4."""
    return 2 * len(clip_model.transformer.resblocks) // 3


def prepared(trainer, clip_model, dataset, class_chunk=0):
    """Give a trainer other weights and classes, and random prompts; its steps change nothing."""
    trainer.cfg.defrost()
    trainer.cfg.DATASET.NAME, trainer.cfg.TRAINER.TCP.BLOCK = dataset, block_of(clip_model)
    trainer.dm.dataset = SimpleNamespace(classnames=NAMES, templates=())
    learner = trainer.build_prompt_learner(clip_model, NAMES).to(clip_model.logit_scale)
    with torch.no_grad():  # a step away from the words, where cosines are not 1
        learner.ctx += 0.1 * torch.randn(learner.ctx.shape, generator=torch.Generator().manual_seed(0)).to(learner.ctx)
    trainer.model = PromptedCLIP(clip_model, learner, class_chunk)
    trainer.build_state()
    trainer.optim = torch.optim.SGD(learner.parameters(), lr=0.0)
    return learner


def step(trainer, images, label):
    """Return the logits, criterion and regulariser of a step, and the gradients with which it updates."""
    batch = {"img": images, "label": label}
    output = trainer.forward(batch)
    terms = trainer.label_loss(output, batch, trainer.criterion), trainer.regulariser(output, batch)
    trainer.update(*terms)
    return output.logits, *terms, [parameter.grad for parameter in trainer.model.prompt_learner.parameters()]


def slow_text(name, clip_model, learner):
    """Return the text features (C, d) of the learned and of the hand-written prompts, not normalised."""
    _, template, prefix, ending = CASES[name]
    with torch.no_grad():
        fixed = clip_model.encode_text(clip.tokenize([template.format(text) for text in TEXTS]))
    prompts = reference.full_prompts(clip_model, learner.ctx, NAMES, prefix=prefix, ending=ending)
    if name != "TCP":
        return reference.encode_prompts(clip_model, *prompts), fixed
    first, second = learner.meta_net.linear1, learner.meta_net.linear2
    hidden = (fixed / fixed.norm(dim=-1, keepdim=True)) @ first.weight.T + first.bias
    vectors = (hidden / (1 + torch.exp(-1.702 * hidden))) @ second.weight.T + second.bias
    vectors = torch.stack([row.reshape(4, -1) for row in vectors])
    return reference.encode_prompts(clip_model, *prompts, vectors=vectors, layer_of_vectors=block_of(clip_model)), fixed


def slow_step(name, clip_model, learner, images, label):
    """Do as `step`, with sums over classes and samples, and the projection worked out tensor by tensor."""
    text, fixed = slow_text(name, clip_model, learner)
    features = clip_model.encode_image(images)
    logits = reference.logits(clip_model, features, text)
    rows = list(zip(logits, label.tolist(), strict=True))
    criterion = sum(-F.log_softmax(row, 0)[y] for row, y in rows) / len(rows)
    learned = list(learner.parameters())
    if name != "ProGrad":
        cosines = [(row @ other) / (row.norm() * other.norm()) for row, other in zip(text, fixed, strict=True)]
        regulariser = 3.0 * (1 - sum(cosines) / len(cosines))
        return logits, criterion, regulariser, torch.autograd.grad(criterion + regulariser, learned)
    pairs = zip(reference.logits(clip_model, features, fixed), logits, strict=True)
    regulariser = 2.0**2 * sum(-(F.softmax(t / 2, 0) * F.log_softmax(z / 2, 0)).sum() for t, z in pairs) / len(rows)
    (a,), (b,) = (torch.autograd.grad(term, learned, retain_graph=True) for term in (criterion, regulariser))
    if F.cosine_similarity(a.flatten(), b.flatten(), dim=0) < 0:
        unit = b / b.norm()
        a = a - 0.8 * (a * unit).sum() * unit
    return logits, criterion, regulariser, [a]


def assert_same_step(name, trainer, images, label, tolerance):
    logits, criterion, regulariser, gradients = step(trainer, images, label)
    wanted = slow_step(name, trainer.model.clip_model, trainer.model.prompt_learner, images, label)
    assert distance(logits, wanted[0]) < tolerance
    assert criterion.item() == pytest.approx(wanted[1].item(), rel=tolerance)
    assert regulariser.item() == pytest.approx(wanted[2].item(), rel=tolerance)
    for gradient, right in zip(gradients, wanted[3], strict=True):
        assert right.abs().max() > 0 and distance(gradient, right) < tolerance


@pytest.mark.parametrize("class_chunk", [0, 2])
@pytest.mark.parametrize("labels", ["as zero-shot", "against zero-shot"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_in_float64(name, labels, class_chunk, exact_layer_norm, tiny_run, tiny_clip_path, tmp_path):
    torch.manual_seed(0)
    clip_model = reference.random_clip(text_layers=4).double()
    trainer = tiny_run(name, tiny_clip_path, tmp_path, *PAIRS)
    learner = prepared(trainer, clip_model, CASES[name][0], class_chunk)
    images = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    zero_shot = reference.logits(clip_model, clip_model.encode_image(images), slow_text(name, clip_model, learner)[1])
    label = zero_shot.argmax(1) if labels == "as zero-shot" else zero_shot.argmin(1)
    assert_same_step(name, trainer, images, label, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_step_in_float32_at_the_size_of_vit_b_16(name, exact_layer_norm, tiny_run, tiny_clip_path, tmp_path):
    torch.manual_seed(0)
    clip_model = reference.random_clip(224, 12, 768, 16, 512, 12, 512)
    trainer = tiny_run(name, tiny_clip_path, tmp_path, *PAIRS)
    prepared(trainer, clip_model, CASES[name][0])
    images = torch.randn(2, 3, 224, 224)
    assert_same_step(name, trainer, images, torch.tensor([0, 3]), 1e-5)
