"""DePT against a slow, independent implementation over all 77 tokens, its worked examples, its classifier's classes."""

import copy
import itertools
import json

import pytest
import reference
import torch
import torch.nn.functional as F

from dspt_atlas.paths import cache_dir
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.dept import AffineMap, DecoupledPromptLearner, RawPromptedCLIP
from dspt_atlas.trainers.learners.kgcoop import KgCoOp
from dspt_atlas.trainers.learners.maple import MaPLe, MaPLePromptLearner
from dspt_atlas.trainers.learners.prompts import load_prompts
from dspt_atlas.trainers.losses import cross_entropy_loss
from dspt_atlas.trainers.registry import METHOD_TRAINERS
from support.refusals import refused
from support.tolerance import distance

pytestmark = pytest.mark.usefixtures("private_cache")

NAMES = ["dog", "yellow_duck", "Boeing 737-800", "cat", "St. John's wort"]
WORDS = "a photo of a"
SLOW_LOSSES = {"": F.cross_entropy, "DSPT": lambda logits, label: F.cross_entropy(logits.softmax(dim=1), label)}


def moved(learner):
    """Move all parameters away from their start, where maps are the identity and cosines are 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)


def slow_features(clip_model, learner, images, names, prefix):
    """Raw image features (B, d) and text features (C, d) from 77 positions per class."""
    if not learner.prompts_images:
        prompts = reference.full_prompts(clip_model, learner.ctx, names, prefix=prefix)
        return clip_model.encode_image(images), reference.encode_prompts(clip_model, *prompts)
    deep = list(learner.compound_prompts_text)
    couplings = zip(learner.compound_prompt_projections, deep, strict=True)
    visual = [learner.proj(learner.ctx), *(coupling(prompt) for coupling, prompt in couplings)]
    prompts = reference.full_prompts(clip_model, learner.ctx, names, prefix=prefix)
    text = reference.encode_prompts(clip_model, *prompts, deep)
    return reference.encode_prompted_images(clip_model, images, visual), text


def slow_terms(clip_model, learner, images, label, names, loss, prefix, weight=0.7):
    """z (B, C), u (2B, C), and the loss of both, one row after another."""
    image, text = slow_features(clip_model, learner.prompt_learner, images, names, prefix)
    head, of_text, of_image = learner.linear_probe_proj, learner.film_lp_text, learner.film_lp_img
    rows = [of_text.scale * text[y] + of_text.bias for y in label.tolist()]
    rows += [of_image.scale * row + of_image.bias for row in image]
    z = reference.logits(clip_model, image, text)
    u = torch.stack([head.weight @ row + head.bias for row in rows])
    total = (1 - weight) * loss(z, label) + weight * loss(u, torch.cat([label, label]))
    return z, u, total, text


def trained_in_float64(name, path, tiny_run, folder, *pairs):
    trainer = tiny_run(name, path, folder, *pairs)
    learner, clip_model = trainer.model.prompt_learner.double(), trainer.model.clip_model.double()
    moved(learner)
    trainer.model = trainer.model_class(clip_model, learner)
    trainer.build_state()
    return trainer


@pytest.mark.parametrize("suffix", ["", "DSPT"])
@pytest.mark.parametrize(
    ("name", "tower", "prefix"),
    [
        ("DePTCoOp", "tiny_clip_path", ""),
        ("DePTCoOp", "tiny_resnet_clip_path", ""),
        ("DePTKgCoOp", "tiny_clip_path", WORDS),
        ("DePTMaPLe", "tiny_clip_path", WORDS),
    ],
)
def test_logits_loss_and_gradients_are_those_of_the_slow_reference(
    name, tower, prefix, suffix, exact_layer_norm, request, tiny_run, tmp_path
):
    trainer = trained_in_float64(name + suffix, request.getfixturevalue(tower), tiny_run, tmp_path)
    model, names, label = trainer.model, trainer.dm.dataset.classnames, torch.tensor([1, 3, 1])
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    output = model(images)
    batch = {"label": label, "index": torch.arange(3)}
    ours = trainer.label_loss(output, batch, trainer.criterion)
    learner = copy.deepcopy(model.prompt_learner)
    z, u, theirs, text = slow_terms(model.clip_model, learner, images, label, names, SLOW_LOSSES[suffix], prefix)
    if issubclass(type(trainer), KgCoOp):
        ours = ours + trainer.regulariser(output, batch)
        fixed = reference.full_prompts(model.clip_model, learner.prompt_learner.ctx[:0], names, prefix=WORDS)
        fixed = reference.encode_prompts(model.clip_model, *fixed).detach()
        theirs = theirs + 8 * (1 - F.cosine_similarity(text, fixed, eps=1e-7).mean())
    assert distance(output.logits, z) < 1e-9 and distance(ours, theirs) < 1e-9
    assert distance(trainer.predict(output), 0.3 * z + 0.7 * u[3:]) < 1e-9
    found = torch.autograd.grad(ours, list(model.prompt_learner.parameters()))
    expected = torch.autograd.grad(theirs, list(learner.parameters()))
    for key, gradient, right in zip(dict(learner.named_parameters()), found, expected, strict=True):
        assert right.abs().max() > 0 and distance(gradient, right) < 1e-9, key


@pytest.mark.slow
@pytest.mark.parametrize("base", ["CoOp", "MaPLe"])
def test_float32_at_the_size_of_vit_b_16(base, exact_layer_norm):
    torch.manual_seed(0)
    clip_model = reference.random_clip(224, 12, 768, 16, 512, 12, 512)
    prompts = CoOpPromptLearner(clip_model, NAMES) if base == "CoOp" else MaPLePromptLearner(clip_model, NAMES)
    learner = DecoupledPromptLearner(prompts, NAMES, 512, "cpu")
    model, images, label = RawPromptedCLIP(clip_model, learner), torch.randn(2, 3, 224, 224), torch.tensor([2, 4])
    output = model(images)
    u = learner.classify(output.raw_image_features, output.raw_text_features[label])
    ours = 0.3 * cross_entropy_loss(output.logits, label) + 0.7 * cross_entropy_loss(u, label.repeat(2))
    gradients = torch.autograd.grad(ours, list(learner.parameters()))
    exact, clip_model = copy.deepcopy(learner).double(), clip_model.double()
    prefix = WORDS if base == "MaPLe" else ""
    z, right, theirs, _ = slow_terms(clip_model, exact, images.double(), label, NAMES, F.cross_entropy, prefix)
    assert distance(output.logits.double(), z) < 1e-5 and distance(u.double(), right) < 1e-5
    assert distance(ours.double(), theirs) < 1e-5
    expected = torch.autograd.grad(theirs, list(exact.parameters()))
    for key, gradient, right in zip(dict(learner.named_parameters()), gradients, expected, strict=True):
        assert distance(gradient.double(), right) < 1e-5, key


def example(trainer):
    """Give a trainer the weights of the worked example; return its output and batch."""
    learner, clip_model = trainer.model.prompt_learner, trainer.model.clip_model
    clip_model.logit_scale.data = torch.tensor(10.0).log()
    learner.film_lp_text, learner.film_lp_img = AffineMap(2, "cpu"), AffineMap(2, "cpu")
    learner.film_lp_text.scale.data, learner.film_lp_text.bias.data = torch.tensor([2.0, 1]), torch.tensor([0.1, 0])
    learner.film_lp_img.scale.data, learner.film_lp_img.bias.data = torch.tensor([1, 0.5]), torch.tensor([0, 0.1])
    learner.linear_probe_proj = torch.nn.Linear(2, 3)
    learner.linear_probe_proj.weight.data = torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5]])
    learner.linear_probe_proj.bias.data = torch.tensor([0, 0.1, -0.1])
    images, text = torch.tensor([[2.0, 0], [1, 3]]), torch.tensor([[1.0, 0], [0, 2], [1, 1]])
    return trainer.model.output(images, text), {"label": torch.tensor([0, 1]), "index": torch.arange(2)}


def test_loss_and_prediction_are_those_of_the_worked_example(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("DePTCoOp", tiny_clip_path, tmp_path)
    output, batch = example(trainer)
    torch.testing.assert_close(output.logits, torch.tensor([[10, 0, 7.071068], [3.162278, 9.486833, 8.944272]]))
    learner = trainer.model.prompt_learner
    u = learner.classify(output.raw_image_features, output.raw_text_features[batch["label"]])
    torch.testing.assert_close(u, torch.tensor([[2.1, 0.1, 0.95], [0.1, 2.1, 0.95], [2, 0.2, 0.95], [1, 1.7, 1.2]]))
    assert trainer.criterion(output.logits, batch).item() == pytest.approx(0.2557352, rel=1e-6)
    assert cross_entropy_loss(u, batch["label"].repeat(2)).item() == pytest.approx(0.4762092, rel=1e-6)
    assert trainer.label_loss(output, batch, trainer.criterion).item() == pytest.approx(0.4100670, rel=1e-6)
    right = torch.tensor([[4.4, 0.14, 2.786320], [1.648683, 4.036050, 3.523282]])
    torch.testing.assert_close(trainer.predict(output), right)


@pytest.mark.parametrize("choice", ["method", "ce", "ce_for_text"])
def test_the_classifiers_loss_is_the_methods_or_cross_entropy(choice, tiny_run, tiny_clip_path, tmp_path):
    pairs = ("TRAINER.LINEAR_PROBE.LOSS", choice, "TRAINER.LINEAR_PROBE.WEIGHT", 0.25)
    trainer = tiny_run("DePTCoOpMAE", tiny_clip_path, tmp_path, *pairs)
    output, batch = example(trainer)
    label = batch["label"]
    u = trainer.model.prompt_learner.classify(output.raw_image_features, output.raw_text_features[label])

    def mae(logits):
        return 1 - logits.softmax(dim=1)[range(2), label].mean()

    halves = {"method": (mae, mae), "ce": (F.cross_entropy, F.cross_entropy), "ce_for_text": (F.cross_entropy, mae)}
    of_text, of_images = halves[choice]
    head = (
        (of_text(u[:2], label) if of_text is F.cross_entropy else of_text(u[:2]))
        + (of_images(u[2:], label) if of_images is F.cross_entropy else of_images(u[2:]))
    ) / 2
    found = trainer.label_loss(output, batch, trainer.criterion)
    torch.testing.assert_close(found, 0.75 * mae(output.logits) + 0.25 * head)


def test_without_fusion_the_classifier_alone_predicts(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("DePTCoOp", tiny_clip_path, tmp_path, "TRAINER.LINEAR_PROBE.TEST_TIME_FUSION", False)
    output, _ = example(trainer)
    torch.testing.assert_close(trainer.predict(output), torch.tensor([[2, 0.2, 0.95], [1, 1.7, 1.2]]))


def test_prompts_and_classifier_have_their_own_learning_rates(tiny_run, tiny_clip_path, tmp_path):
    pairs = ("OPTIM.LR", 0.0035, "OPTIM.MAX_EPOCH", 10, "OPTIM.WARMUP_EPOCH", 1)
    warmup = ("OPTIM.WARMUP_TYPE", "constant", "OPTIM.WARMUP_CONS_LR", 1e-5)
    trainer = tiny_run("DePTKgCoOp", tiny_clip_path, tmp_path, *pairs, *warmup)
    learner = trainer.model.prompt_learner
    groups = [{id(parameter) for parameter in group["params"]} for group in trainer.optim.param_groups]
    assert groups[0] == {id(learner.prompt_learner.ctx)}
    assert groups[0] | groups[1] == {id(parameter) for parameter in learner.parameters()}
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in trainer.optim.param_groups])
        trainer.optim.step()
        trainer.update_lr()
    expected = [[1e-5, 1e-5], [0.0035, 0.02275], [0.0034143489, 0.022193268], [0.00033422026, 0.0021724317]]
    assert [rates[epoch] for epoch in (0, 1, 2, 9)] == [pytest.approx(pair, rel=1e-7) for pair in expected]


@pytest.mark.parametrize("cache", ["none", "features"])
def test_three_steps_are_those_of_the_slow_reference(cache, exact_layer_norm, tiny_run, tiny_clip_path, tmp_path):
    pairs = ("INPUT.CACHE", cache, "OPTIM.WEIGHT_DECAY", 0.0, "OPTIM.MOMENTUM", 0.0, "OPTIM.LR", 0.05)
    trainer = tiny_run("DePTCoOpDSPT", tiny_clip_path, tmp_path, *pairs)
    trainer.before_train()
    trainer.epoch, trainer.num_batches = 0, 99
    trainer.before_epoch()
    moved(trainer.model.prompt_learner)
    clip_model, names = copy.deepcopy(trainer.model.clip_model).double(), trainer.dm.dataset.classnames
    learner = copy.deepcopy(trainer.model.prompt_learner).double()
    for step, batch in enumerate(itertools.islice(iter(trainer.train_loader_x), 3)):
        trainer.batch_idx = step
        images = torch.stack([trainer_image(trainer, index) for index in batch["index"].tolist()]).double()
        terms = slow_terms(clip_model, learner, images, batch["label"], names, SLOW_LOSSES["DSPT"], "")
        parameters = list(learner.parameters())
        gradients = torch.autograd.grad(terms[2], parameters)
        assert trainer.forward_backward(batch)["loss"] == pytest.approx(terms[2].item(), rel=1e-4)
        with torch.no_grad():
            for (key, parameter), gradient in zip(learner.named_parameters(), gradients, strict=True):
                parameter -= 0.05 * (1 if key == "prompt_learner.ctx" else 6.5) * gradient
        for ours, theirs in zip(trainer.model.prompt_learner.parameters(), parameters, strict=True):
            torch.testing.assert_close(ours.detach().double(), theirs.detach(), rtol=1e-3, atol=1e-5)


def trainer_image(trainer, index):
    """The image that a step sees, also where its features are cached."""
    return trainer.dm.train_loader_x.dataset.image(index, 0)


def entries_of(folder):
    """{key of an entry of the feature cache: (its inputs, features.npy's time of change)}."""
    metas = (folder / "features").glob("*/meta.json")
    return {
        meta.parent.name: (json.loads(meta.read_text())["inputs"], (meta.parent / "features.npy").stat().st_mtime_ns)
        for meta in metas
    }


def test_raw_features_are_kept_beside_normalised_ones_that_do_not_change(tiny_run, tiny_clip_path, tmp_path):
    cached = ("INPUT.CACHE", "features")
    plain = tiny_run("CoOp", tiny_clip_path, tmp_path / "before", *cached)
    plain.train()
    before = entries_of(cache_dir())
    raw = tiny_run("DePTCoOp", tiny_clip_path, tmp_path / "raw", *cached)
    raw.train()
    after = entries_of(cache_dir())
    assert before.items() <= after.items() and all("raw" not in inputs for inputs, _ in before.values())
    assert [inputs["raw"] for key, (inputs, _) in after.items() if key not in before] == [True, True]
    features, normalised = (torch.tensor(each.train_loader_x.dataset.features) for each in (raw, plain))
    assert not torch.allclose(features.norm(dim=-1), torch.ones(()), atol=1e-2)
    torch.testing.assert_close(F.normalize(features, dim=-1), normalised)
    again = tiny_run("CoOp", tiny_clip_path, tmp_path / "again", *cached)
    again.train()
    assert entries_of(cache_dir()) == after and again.results == plain.results


@pytest.mark.parametrize("name", ["DePTCoOp", "DePTKgCoOp", "DePTMaPLe"])
def test_new_classes_are_predicted_by_the_prompts_alone(name, tiny_run, tiny_clip_path, tmp_path):
    def build(folder, classes, name=name, *pairs):
        return tiny_run(name, tiny_clip_path, tmp_path / folder, "DATASET.SUBSAMPLE_CLASSES", classes, *pairs)

    trained = build("base", "base", name, "TEST.NEW_CLASSES", True, "TEST.PERIOD", 1)
    trained.train()
    assert trained.model.prompt_learner.has_head
    new, plain = build("new", "new"), build("plain", "new", name.removeprefix("DePT"))
    new.load_model(str(tmp_path / "base"), epoch=2)
    load_prompts(plain.model.prompt_learner, trained.model.prompt_learner.prompt_learner.state_dict())
    images = torch.stack([plain.test_loader.dataset.image(index, 0) for index in range(4)])
    with torch.no_grad():
        torch.testing.assert_close(new.model_inference(images), plain.model_inference(images))
    new.test()
    assert trained.report["history"][-1]["new_accuracy"] == pytest.approx(new.results["accuracy"])


def decoupled(model, names=NAMES, assumed=()):
    return DecoupledPromptLearner(CoOpPromptLearner(model, names, 3), names, 64, "cpu", assumed)


def test_a_test_set_with_some_of_the_classes_takes_their_rows(model):
    trained, part = decoupled(model), decoupled(model, [NAMES[3], NAMES[0]])
    load_prompts(part, trained.state_dict())
    assert part.has_head
    assert torch.equal(part.linear_probe_proj.weight, trained.linear_probe_proj.weight[[3, 0]])
    assert torch.equal(part.linear_probe_proj.bias, trained.linear_probe_proj.bias[[3, 0]])


@pytest.mark.parametrize("names", [["fish", "bird"], [*NAMES, "fish"], [*NAMES[:4], "fish"]])
def test_classes_that_were_not_trained_have_no_classifier(names, model):
    trained, other = decoupled(model), decoupled(model, names)
    moved(trained)
    start = copy.deepcopy(other.linear_probe_proj.state_dict())
    load_prompts(other, trained.state_dict())
    assert not other.has_head and torch.equal(other.prompt_learner.ctx, trained.prompt_learner.ctx)
    assert all(torch.equal(other.linear_probe_proj.state_dict()[key], value) for key, value in start.items())


def test_the_state_is_the_authors_layout_and_their_file_is_loaded(model):
    learner, again = decoupled(model), decoupled(model, assumed=NAMES)
    moved(learner)
    state = learner.state_dict()
    maps = {f"film_lp_{tower}.{part}" for tower in ("img", "text") for part in ("scale", "bias")}
    learned = {"prompt_learner.ctx", *maps, "linear_probe_proj.weight", "linear_probe_proj.bias"}
    assert set(dict(learner.named_parameters())) == learned
    theirs = {key: value.half() for key, value in state.items() if key in learned}
    theirs |= {f"prompt_learner.{key}": torch.ones(5) for key in ("token_prefix", "token_suffix", "bias_vectors")}
    again.prompt_learner.unused = ("bias_vectors", "meta_net.linear1.", "adapter.")  # on KgCoOp
    unused = ("prompt_learner.meta_net.linear1.weight", "meta_net.linear1.bias", "adapter.fc.0.weight")
    frozen = ("logit_scale", "image_encoder.proj", "text_encoder.positional_embedding")
    theirs |= {key: torch.ones(3) for key in (*unused, *frozen)}
    load_prompts(again, theirs)
    assert again.has_head and all(torch.equal(again.state_dict()[key], theirs[key].float()) for key in learned)
    with refused("prompt_learner.bias_vectors", "prompt_learner.meta_net.linear1.weight"):
        load_prompts(decoupled(model), theirs)
    theirs = {key: value for key, value in theirs.items() if key not in ("prompt_learner.bias_vectors", *unused)}
    part, other, new = (decoupled(model, *each) for each in ((NAMES[2:4], NAMES), (["fish"], ["fish"]), (NAMES, ())))
    for each in (part, other, new):
        load_prompts(each, theirs)
    assert torch.equal(part.linear_probe_proj.weight, theirs["linear_probe_proj.weight"][2:4].float())
    assert (part.has_head, other.has_head, new.has_head) == (True, False, False)


def test_another_learners_file_is_refused_with_its_keys(model):
    learner, coop = decoupled(model), CoOpPromptLearner(model, NAMES, 3)
    before = copy.deepcopy(learner.state_dict())
    with refused("film_lp_img.scale", "linear_probe_proj.weight"):
        load_prompts(learner, coop.state_dict())
    with refused("film_lp_text.bias", "linear_probe_proj.bias"):
        load_prompts(coop, learner.state_dict())
    maple = DecoupledPromptLearner(MaPLePromptLearner(model, NAMES, 3, "", prompt_depth=2), NAMES, 64, "cpu")
    with refused("prompt_learner.proj.weight", "prompt_learner.compound_prompts_text.0"):
        load_prompts(learner, maple.state_dict())
    broken = {**before, "linear_probe_proj.weight": torch.zeros(4, 64)}
    with refused("linear_probe_proj.weight", "(4, 64)"):
        load_prompts(learner, broken)
    assert all(torch.equal(learner.state_dict()[key], value) for key, value in before.items())


def test_methods_whose_steps_see_one_prediction_per_image_are_left_out():
    for name in ("DePTCoOp", "DePTKgCoOp", "DePTMaPLe"):
        pairs = {trainer.removeprefix(name) for trainer in METHOD_TRAINERS if trainer.startswith(name)}
        frozen = set() if issubclass(METHOD_TRAINERS[f"{name}DSPT"], MaPLe) else {"NLPrompt"}
        assert pairs == {"DSPT", "GCE", "MAE", "ATLaS", "LS", "TFKD"} | frozen
