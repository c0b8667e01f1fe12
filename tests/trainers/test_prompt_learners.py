"""Prompt learners against the naive reference: logits and gradients of every variant, files, refusals."""

import clip
import pytest
import reference
import torch

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.learners.cocoop import CoCoOpPromptLearner
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner
from dspt_atlas.trainers.learners.prograd import ProGradPromptLearner
from dspt_atlas.trainers.learners.prompts import load_prompts
from dspt_atlas.trainers.learners.tcp import TCPPromptLearner
from support.refusals import refused
from support.tolerance import distance

META_NET = [f"meta_net.linear{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
NAMES = ["dog", "yellow_duck", "Boeing 737-800", "cat", "St. John's wort"]


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return reference.random_clip(vision_layers=(1, 1, 1, 1), vision_width=8)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def assert_same(ours, theirs, learner, tolerance=1e-5):
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape
    assert distance(ours, theirs) < tolerance
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad((ours * weights).sum(), list(learner.parameters()))
    expected = torch.autograd.grad((theirs * weights).sum(), list(learner.parameters()))
    for name, (gradient, right) in zip(
        dict(learner.named_parameters()), zip(gradients, expected, strict=True), strict=True
    ):
        assert right.abs().max() > 0 and distance(gradient, right) < tolerance, name


@pytest.mark.parametrize("tower", ["model", "resnet"])
@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_coop_equals_the_reference(tower, csc, position, images, request):
    clip_model = request.getfixturevalue(tower)
    torch.manual_seed(1)
    learner = CoOpPromptLearner(clip_model, NAMES, 5, csc=csc, class_token_position=position)
    for class_chunk in (0, 2):
        prompts = reference.full_prompts(clip_model, learner.ctx, NAMES, position)
        text = reference.encode_prompts(clip_model, *prompts)
        theirs = reference.logits(clip_model, clip_model.encode_image(images), text)
        assert_same(PromptedCLIP(clip_model, learner, class_chunk)(images).logits, theirs, learner)


def cocoop_reference(clip_model, learner, images):
    features = clip_model.encode_image(images)
    biases = learner.meta_net(features / features.norm(dim=-1, keepdim=True))
    text = [
        reference.encode_prompts(clip_model, *reference.full_prompts(clip_model, learner.ctx + bias, NAMES))
        for bias in biases
    ]
    return reference.logits(clip_model, features, torch.stack(text))


@pytest.mark.parametrize("class_chunk", [0, 2])
@pytest.mark.parametrize("tower", ["model", "resnet"])
def test_cocoop_equals_the_reference(tower, class_chunk, images, request):
    clip_model = request.getfixturevalue(tower)
    torch.manual_seed(1)
    learner = CoCoOpPromptLearner(clip_model, NAMES, 4)
    assert_same(
        PromptedCLIP(clip_model, learner, class_chunk)(images).logits,
        cocoop_reference(clip_model, learner, images),
        learner,
    )


def test_cocoop_gives_an_image_the_same_logits_alone_and_in_a_batch(model, images):
    prompted = PromptedCLIP(model, CoCoOpPromptLearner(model, NAMES, 4))
    alone = torch.cat([prompted(image[None]).logits for image in images])
    assert distance(prompted(images).logits, alone) < 1e-5


def maple_reference(clip_model, learner, images, prefix="a photo of a"):
    deep = list(learner.compound_prompts_text)
    couplings = zip(learner.compound_prompt_projections, deep, strict=True)
    visual = [learner.proj(learner.ctx), *(coupling(prompt) for coupling, prompt in couplings)]
    prompts = reference.full_prompts(clip_model, learner.ctx, NAMES, prefix=prefix)
    text = reference.encode_prompts(clip_model, *prompts, deep)
    return reference.logits(clip_model, reference.encode_prompted_images(clip_model, images, visual), text)


@pytest.mark.parametrize("class_chunk", [0, 2])
@pytest.mark.parametrize("prompt_depth", [1, 2, 3])
def test_maple_equals_the_reference(prompt_depth, class_chunk, model, images):
    torch.manual_seed(1)
    learner = MaPLePromptLearner(model, NAMES, 2, prompt_depth=prompt_depth)
    assert_same(
        PromptedCLIP(model, learner, class_chunk)(images).logits, maple_reference(model, learner, images), learner
    )


def test_maple_takes_each_towers_width_from_the_model(images):
    torch.manual_seed(0)
    clip_model = reference.random_clip(vision_width=192, text_width=64, vision_layers=4)
    learner = MaPLePromptLearner(clip_model, NAMES, 3, "", prompt_depth=3)
    assert_same(
        PromptedCLIP(clip_model, learner)(images).logits, maple_reference(clip_model, learner, images, ""), learner
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda model: CoOpPromptLearner(model, NAMES, 5),
        lambda model: CoCoOpPromptLearner(model, NAMES),
        lambda model: MaPLePromptLearner(model, NAMES, prompt_depth=2),
    ],
)
def test_bf16_autocast_and_fixed_text(make, model, images):
    torch.manual_seed(1)
    prompted = PromptedCLIP(model, make(model), class_chunk=3)
    expected = prompted(images).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = prompted(images).logits
        rounded.sum().backward()
    assert rounded.dtype == torch.float32 and 0 < distance(rounded, expected) < 0.1
    assert all(torch.isfinite(p.grad).all() and p.dtype == torch.float32 for p in prompted.prompt_learner.parameters())
    assert all(p.grad is None for p in model.parameters())
    with prompted.fixed_text():
        assert not prompted(images).logits.requires_grad
        assert distance(prompted(images).logits, expected) < 1e-6
    with torch.no_grad():
        prompted.prompt_learner.ctx.normal_()
    assert distance(prompted(images).logits, expected) > 1e-3


def test_fixed_text_encodes_once_and_is_over_after_an_error(model, images):
    prompted = PromptedCLIP(model, CoOpPromptLearner(model, NAMES, 5))
    calls = []
    prompted.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    with prompted.fixed_text():
        prompted(images)
        prompted(images)
    assert len(calls) == 1
    with pytest.raises(RuntimeError), prompted.fixed_text():
        raise RuntimeError
    prompted(images)
    assert len(calls) == 3


def test_encoded_features_take_the_place_of_images_except_for_maple(model, images):
    prompted = PromptedCLIP(model, CoOpPromptLearner(model, NAMES, 5))
    features = prompted.encode_image(images)
    assert not features.requires_grad and torch.allclose(features.norm(dim=-1), torch.ones(3))
    assert torch.equal(prompted(features).logits, prompted(images).logits)
    maple = PromptedCLIP(model, MaPLePromptLearner(model, NAMES, prompt_depth=1))
    assert maple.encode_image(images).requires_grad
    with refused("INPUT.CACHE none"):
        maple(features)


def test_ctx_init_starts_from_the_words_embeddings_and_sets_their_number(model):
    for learner in (
        CoOpPromptLearner(model, NAMES, 16, "a_photo of a"),
        CoCoOpPromptLearner(model, NAMES, 16, "a photo of a"),
    ):
        assert torch.equal(learner.ctx, model.token_embedding(torch.tensor([320, 1125, 539, 320])))
        from_words = learner.sequences[0]
        assert from_words[1:5] == [-1, -2, -3, -4] and len(from_words) == 8
    prompted = PromptedCLIP(model, CoOpPromptLearner(model, NAMES, ctx_init="a photo of a"))
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    expected = model.encode_text(clip.tokenize(texts))
    assert distance(prompted.encode_text(), expected / expected.norm(dim=-1, keepdim=True)) < 1e-5
    assert torch.equal(MaPLePromptLearner(model, NAMES, 2, prompt_depth=1).ctx, learner.ctx[:2])
    assert CoOpPromptLearner(model, NAMES, ctx_init="a photo of a", csc=True).ctx.shape == (len(NAMES), 4, 128)


def test_random_contexts_have_the_familys_deviation_and_follow_the_global_generator(model):
    torch.manual_seed(3)
    first = CoOpPromptLearner(model, NAMES, 16).ctx
    torch.manual_seed(3)
    assert torch.equal(first, CoOpPromptLearner(model, NAMES, 16).ctx)
    assert first.std().item() == pytest.approx(0.02, rel=0.1)
    contexts = CoOpPromptLearner(model, NAMES, 16, csc=True).ctx
    assert not torch.equal(contexts[0], contexts[1])


@pytest.mark.parametrize(
    "make, keys",
    [
        (lambda model, names: CoOpPromptLearner(model, names, 5), {"ctx"}),
        (lambda model, names: ProGradPromptLearner(model, names, 6, "a photo of a {}."), {"ctx"}),
        (lambda model, names: TCPPromptLearner(model, names, torch.eye(len(names), 64), block=2), {"ctx", *META_NET}),
        (
            lambda model, names: CoCoOpPromptLearner(model, names),
            {"ctx", *META_NET},
        ),
        (
            lambda model, names: MaPLePromptLearner(model, names, prompt_depth=2),
            {
                "ctx",
                "proj.weight",
                "proj.bias",
                "compound_prompts_text.0",
                "compound_prompt_projections.0.weight",
                "compound_prompt_projections.0.bias",
            },
        ),
    ],
)
def test_the_state_is_what_is_learned_and_goes_to_other_classes_and_comes_from_the_family(make, keys, model, images):
    learner, other = make(model, NAMES), make(model, ["fish", "bird"])
    state = learner.state_dict()
    assert set(state) == keys == set(dict(learner.named_parameters()))
    load_prompts(other, state)
    assert all(torch.equal(other.state_dict()[key], state[key]) for key in keys)
    again = make(model, NAMES)
    family = {"token_prefix": torch.zeros(5, 1, 128), "token_suffix": torch.zeros(5, 70, 128), **state}
    load_prompts(again, family)
    assert torch.equal(PromptedCLIP(model, again)(images).logits, PromptedCLIP(model, learner)(images).logits)
    whole = {f"prompt_learner.{key}": value.half() for key, value in family.items()} | {"logit_scale": torch.ones([])}
    load_prompts(again, whole)
    assert torch.equal(again.ctx, learner.ctx.half().float())


def test_every_key_that_does_not_fit_is_named(model):
    learner = CoCoOpPromptLearner(model, NAMES)
    state = {**learner.state_dict(), "surplus": torch.zeros(1), "ctx": torch.zeros(7, 128)}
    del state["meta_net.linear1.bias"]
    before = learner.ctx.clone()
    with refused("meta_net.linear1.bias", "surplus", "ctx", "(7, 128)"):
        load_prompts(learner, state)
    assert torch.equal(learner.ctx, before)


def test_files_of_kgcoop_prograd_and_tcp_are_told_apart(model, tiny_run, tiny_clip_path, tmp_path):
    def learner(name, *pairs):
        return tiny_run(name, tiny_clip_path, tmp_path, *pairs).model.prompt_learner

    frozen = {"token_prefix": torch.zeros(4, 1, 64), "token_suffix": torch.zeros(4, 72, 64)}
    unused = {"bias_vectors": torch.zeros(1, 4, 64)} | {name: torch.zeros(8) for name in META_NET[:2]}
    kgcoop, prograd = learner("KgCoOp"), learner("ProGrad", "TRAINER.PROGRAD.N_CTX", 4)
    tcp, cocoop = learner("TCP"), learner("CoCoOp")
    load_prompts(kgcoop, {**frozen, **unused, "ctx": torch.ones(4, 64)})
    assert torch.equal(kgcoop.ctx, torch.ones(4, 64))
    load_prompts(prograd, {**frozen, "ctx": torch.ones(4, 64)})
    load_prompts(tcp, {**frozen, **{name: torch.ones_like(value) for name, value in tcp.state_dict().items()}})
    assert all((value == 1).all() for value in (prograd.ctx, *tcp.state_dict().values()))
    for one, state, named in (
        (prograd, {"ctx": torch.zeros(4, 64), **unused}, ("bias_vectors", *META_NET[:2])),
        (kgcoop, tcp.state_dict(), META_NET[2:]),
        (kgcoop, cocoop.state_dict(), META_NET[2:]),
        (tcp, cocoop.state_dict(), ("ctx", *META_NET[:3])),
        (tcp, kgcoop.state_dict(), META_NET),
    ):
        with refused(*named):
            load_prompts(one, {**frozen, **state})


def test_a_class_specific_context_is_refused_for_other_classes(model):
    learner = CoOpPromptLearner(model, NAMES, 5, csc=True)
    load_prompts(CoOpPromptLearner(model, NAMES, 5, csc=True), learner.state_dict())
    load_prompts(CoOpPromptLearner(model, NAMES, 5, csc=True), {"ctx": learner.ctx, "token_prefix": torch.zeros(1)})
    for names in (NAMES[:3], [*NAMES[:4], "fish"]):
        with pytest.raises(UserError, match="CSC"):
            load_prompts(CoOpPromptLearner(model, names, 5, csc=True), learner.state_dict())
    with refused("ctx_classes"):
        load_prompts(CoOpPromptLearner(model, NAMES, 5), learner.state_dict())


@pytest.mark.parametrize(
    "make, facts",
    [
        (
            lambda model, resnet: CoOpPromptLearner(model, NAMES, class_token_position="start"),
            ("end, middle, front", "'start'"),
        ),
        (lambda model, resnet: CoOpPromptLearner(model, NAMES, n_ctx=0), ("N_CTX", "1", "0")),
        (
            lambda model, resnet: CoOpPromptLearner(model, ["dog", "very " * 60 + "old_dog"], 16),
            ("very very", "old dog"),
        ),
        (lambda model, resnet: MaPLePromptLearner(model, NAMES, prompt_depth=4), ("1 to 3", "4")),
        (lambda model, resnet: MaPLePromptLearner(model, NAMES, prompt_depth=0), ("1 to 3", "0")),
        (lambda model, resnet: MaPLePromptLearner(resnet, NAMES, prompt_depth=1), ("ResNet",)),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(make, facts, model, resnet):
    with refused(*facts):
        make(model, resnet)
