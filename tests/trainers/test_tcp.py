"""TCP: its network, its prompts, classes that were not trained on, and blocks of towers of any size."""

import clip
import pytest
import reference
import torch
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import nn

from dspt_atlas.config.build import build_cfg
from dspt_atlas.datasets.catalogue import CATALOGUE
from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.model import tokenize
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, zero_shot_features
from dspt_atlas.trainers.learners.tcp import TCPPromptLearner
from dspt_atlas.trainers.templates import TCP_FROZEN, TCP_PROMPT, authors_template
from support.paths import CONFIGS
from support.tolerance import distance

NAMES = ["dog", "yellow_duck", "cat"]
CONTEXT = [-1, -2, -3, -4]


def learner_of(clip_model, names=NAMES, **settings):
    torch.manual_seed(1)
    features = zero_shot_features(clip_model, names, ("a photo of a {}.",))
    return TCPPromptLearner(clip_model, names, features, **{"block": 1, **settings}).to(clip_model.logit_scale)


def test_the_network_is_that_of_the_worked_example(model):
    learner = learner_of(model, n_ctx=2)
    learner.ctx = nn.Parameter(torch.zeros(2, 3))
    learner.meta_net, learner.features = nn.Identity(), torch.arange(12.0).view(2, 6)
    assert learner()[0, 2:].view(2, 2, 3).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    learner = learner_of(model, n_ctx=2)
    learner.ctx, learner.features = nn.Parameter(torch.zeros(2, 2)), torch.tensor([[1.0, -1]])
    values = {
        "linear1": ([[1.0, 2], [0.5, -1]], [0, 0.5]),
        "linear2": ([[1.0, 0], [0, 1], [1, 1], [2, -1]], [0] * 4),
    }
    for name, (weight, bias) in values.items():
        layer = getattr(learner.meta_net, name)
        layer.weight, layer.bias = nn.Parameter(torch.tensor(weight)), nn.Parameter(torch.tensor(bias).float())
    expected = [[-0.1542042, 1.9356586], [1.7814544, -2.2440671]]
    assert learner()[0, 2:].tolist() == [pytest.approx(row, rel=1e-6) for row in expected]


@pytest.mark.parametrize(
    "name, frozen, fixed, ending",
    [
        ("ImageNet", "a photo of a {}.", "", "."),
        ("Caltech101", "a photo of a {}.", "", "."),
        ("OxfordPets", "a photo of a {}, a type of pet.", "", ", a type of pet."),
        ("StanfordCars", "a photo of a {}.", "", ", a type of car"),
        ("OxfordFlowers", "a photo of a {}, a type of flower.", "", ", a type of flower."),
        ("Food101", "a photo of a {}, a type of food.", "", ", a type of food."),
        ("FGVCAircraft", "a photo of an aircraft {}.", "", ", a type of aircraft."),
        ("SUN397", "a photo of a {}.", "", "."),
        ("DescribableTextures", "a photo of a {}, a type of texture.", "", " texture."),
        ("EuroSAT", "a centered satellite photo of {}.", "", "."),
        ("UCF101", "a photo of a person doing {}.", "person doing", "."),
    ],
)
def test_prompts_are_the_authors(name, frozen, fixed, ending, model):
    dataset = next(dataset for dataset in CATALOGUE if dataset.__name__ == name)
    assert authors_template(TCP_FROZEN, dataset, f"Noisy{name}") == frozen
    (sequence,) = learner_of(model, ["duck"], template=authors_template(TCP_PROMPT, dataset, name)).sequences
    assert sequence[1:-1] == [*CONTEXT, *tokenize(fixed), *tokenize("duck" + ending)]


@pytest.mark.parametrize(
    "n_ctx, template, expected",
    [
        (2, "X X X X {}, a type of pet.", ([-1, -2], "duck, a type of pet.")),
        (2, "a photo of a {}.", ([-1, -2], "of a duck.")),
        (6, "a photo of a {}.", ([*CONTEXT, -5, -6], "duck.")),
        (4, "{} texture.", (CONTEXT, "duck texture.")),
    ],
)
def test_any_number_of_vectors_leaves_the_name(n_ctx, template, expected, model):
    (sequence,) = learner_of(model, ["duck"], n_ctx=n_ctx, template=template).sequences
    assert sequence[1:-1] == [*expected[0], *tokenize(expected[1])]


@pytest.mark.parametrize("class_chunk", [0, 2])
@pytest.mark.parametrize(
    "sizes, n_ctx, block, template",
    [
        ({"text_layers": 10, "text_width": 64}, 4, 8, "X X X X {}, a type of pet."),
        ({"text_layers": 10, "text_width": 64}, 4, 9, "a photo of a person doing {}."),
        ({"embed_dim": 50}, 3, 1, "a photo of a {}."),
        ({"embed_dim": 3}, 6, 2, "X X X X {} texture."),
    ],
)
def test_two_phases_are_a_replacement_at_full_length(sizes, n_ctx, block, template, class_chunk, exact_layer_norm):
    torch.manual_seed(0)
    clip_model = reference.random_clip(**sizes).double()
    learner = learner_of(clip_model, n_ctx=n_ctx, block=block, template=template)
    assert learner.meta_net.linear1.out_features == max(1, clip_model.text_projection.shape[1] // 4)
    ours = PromptedCLIP(clip_model, learner, class_chunk).encode_text()
    before, ending = template.split(" {}")
    prefix = " ".join(["X"] * n_ctx + before.split()[n_ctx:])
    prompts = reference.full_prompts(clip_model, learner.ctx, NAMES, prefix=prefix, ending=ending)
    vectors = learner.meta_net(learner.features).view(len(NAMES), n_ctx, -1)
    theirs = reference.encode_prompts(clip_model, *prompts, vectors=vectors, layer_of_vectors=block)
    theirs = theirs / theirs.norm(dim=-1, keepdim=True)
    assert distance(ours, theirs) < 1e-11
    weights = torch.randn(theirs.shape, dtype=theirs.dtype)
    pairs = (torch.autograd.grad((side * weights).sum(), list(learner.parameters())) for side in (ours, theirs))
    for gradient, right in zip(*pairs, strict=True):
        assert right.abs().max() > 0 and distance(gradient, right) < 1e-9


def test_new_classes_get_vectors_of_their_own_prompts(tiny_run, tiny_clip_path, tmp_path):
    def trainer(folder, classes):
        return tiny_run("TCP", tiny_clip_path, tmp_path / folder, "DATASET.SUBSAMPLE_CLASSES", classes)

    base, new = trainer("base", "base"), trainer("new", "new")
    base.train()
    new.load_model(str(tmp_path / "base"), epoch=2)
    names = new.dm.dataset.classnames
    prompts = clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in names])
    features = new.model.clip_model.encode_text(prompts)
    learner = new.model.prompt_learner
    assert distance(learner.features, features / features.norm(dim=-1, keepdim=True)) < 1e-5
    assert set(learner.state_dict()) == set(base.model.prompt_learner.state_dict())
    assert not set(names) & set(base.dm.dataset.classnames)


def test_new_classes_are_tested_besides_the_base_classes(tiny_run, tiny_clip_path, tmp_path):
    classes = ("DATASET.SUBSAMPLE_CLASSES", "base", "TEST.PERIOD", 1, "TEST.NEW_CLASSES", True)
    base = tiny_run("TCP", tiny_clip_path, tmp_path / "base", *classes)
    base.train()
    new = tiny_run("TCP", tiny_clip_path, tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new")
    new.load_model(str(tmp_path / "base"), epoch=2)
    new.test()
    assert base.report["history"][-1]["new_accuracy"] == pytest.approx(new.results["accuracy"])


def test_it_starts_random_and_from_words_if_asked(model):
    assert learner_of(model).ctx.std().item() == pytest.approx(0.02, rel=0.2)
    words = model.token_embedding(torch.tensor(tokenize("a photo of a")))
    assert torch.equal(learner_of(model, ctx_init="a photo of a").ctx, words)


@pytest.mark.parametrize("block", [0, 3, 8])
def test_a_block_that_the_tower_does_not_have_is_refused(block, model):
    with pytest.raises(UserError) as refusal:
        PromptedCLIP(model, learner_of(model, block=block))
    assert "1 to 2" in str(refusal.value) and str(block) in str(refusal.value)


@pytest.mark.parametrize(
    "name, rates",
    [
        ("KgCoOp/vit_b16_ep100_ctxv1", (1e-5, 0.002, 0.0019995066, 1.9732716e-6)),
        ("TCP/vit_b16_ep25", (1e-5, 0.002, 0.0019921147, 3.1416839e-5)),
    ],
)
def test_learning_rates_of_epochs_1_2_3_and_the_last(name, rates):
    files = {
        "config_file": CONFIGS / "trainers" / f"{name}.yaml",
        "dataset_config_file": CONFIGS / "datasets/emoji.yaml",
    }
    cfg = build_cfg({key: str(path) for key, path in files.items()} | {"trainer": name.split("/")[0]})
    optimiser = build_optimizer([nn.Parameter(torch.zeros(1))], cfg.OPTIM)
    schedule = build_lr_scheduler(optimiser, cfg.OPTIM)
    found = []
    for _ in range(cfg.OPTIM.MAX_EPOCH):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert [*found[:3], found[-1]] == pytest.approx(rates, rel=1e-6)
    assert optimiser.param_groups[0].get("eps", 1e-3) == 1e-3


def test_adams_eps_is_a_key(tiny_run, tiny_clip_path, tmp_path):
    pairs = ("OPTIM.NAME", "adam", "OPTIM.ADAM_EPS", 1e-3)
    trainer = tiny_run("TCP", tiny_clip_path, tmp_path, *pairs)
    assert [group["eps"] for group in trainer.optim.param_groups] == [1e-3]
