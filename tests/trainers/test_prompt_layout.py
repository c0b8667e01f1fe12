"""Prompts begin as the family's do: MaPLe, CoOp and CoCoOp against full-length models with the family's file layout."""

import clip
import pytest
import reference
import torch
from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.learners.cocoop import CoCoOpPromptLearner
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner
from dspt_atlas.trainers.learners.prompts import load_prompts
from support.family import NAMES, assert_same_logits_and_gradients
from support.tolerance import distance

WORDS = {  # N_CTX, CTX_INIT and what the family tokenises before the name
    "longer": (2, "a photo of a", "a photo of a"),
    "longer by a word of several tokens": (3, "itap of anti-establishment", "itap of anti-establishment"),
    "equal": (4, "a_photo_of_a", "a photo of a"),
    "shorter": (3, "a photo", "a photo"),
    "shorter by two": (4, "a photo", "a photo"),
    "left aside": (5, "a photo of a", "X X X X X"),
    "none": (2, "", "X X"),
}


@pytest.fixture(scope="module")
def model(exact_model):
    return exact_model


class FamilyMaPLe(nn.Module):
    """MaPLe at 77 positions per class, with the state dict of the family's whole model."""

    def __init__(self, clip_model, n_ctx, prefix, depth, names):
        super().__init__()
        width, vision_width = clip_model.ln_final.weight.shape[0], clip_model.visual.conv1.weight.shape[0]
        learner = self.prompt_learner = nn.Module()
        learner.ctx = nn.Parameter(0.02 * torch.randn(n_ctx, width))
        learner.proj = nn.Linear(width, vision_width)
        learner.compound_prompts_text = nn.ParameterList(0.02 * torch.randn(n_ctx, width) for _ in range(depth - 1))
        learner.compound_prompt_projections = nn.ModuleList(nn.Linear(width, vision_width) for _ in range(depth - 1))
        texts = [f"{prefix} {name.replace('_', ' ')}." for name in names]
        self.tokens = torch.cat([clip.tokenize(text) for text in texts])
        embedded = clip_model.token_embedding(self.tokens)
        learner.register_buffer("token_prefix", embedded[:, :1])
        learner.register_buffer("token_suffix", embedded[:, 1 + n_ctx :])
        self.image_encoder, self.logit_scale = clip_model.visual, clip_model.logit_scale
        self.clip_model = [clip_model]  # not a module, and so without keys of its own

    def forward(self, images):
        (clip_model,), learner = self.clip_model, self.prompt_learner
        context = learner.ctx.expand(len(self.tokens), -1, -1)
        prompts = torch.cat([learner.token_prefix, context, learner.token_suffix], dim=1)
        text = reference.encode_prompts(clip_model, prompts, self.tokens, list(learner.compound_prompts_text))
        couplings = zip(learner.compound_prompt_projections, learner.compound_prompts_text, strict=True)
        vision = [learner.proj(learner.ctx), *(coupling(prompt) for coupling, prompt in couplings)]
        return reference.logits(clip_model, reference.encode_prompted_images(clip_model, images, vision), text)


def maple_from_the_familys_file(clip_model, case, depth, file):
    n_ctx, ctx_init, prefix = WORDS[case]
    torch.manual_seed(1)
    theirs = FamilyMaPLe(clip_model, n_ctx, prefix, depth, NAMES).to(clip_model.logit_scale)
    torch.save({"state_dict": theirs.state_dict(), "epoch": 5}, file)
    learner = MaPLePromptLearner(clip_model, NAMES, n_ctx, ctx_init, depth).to(clip_model.logit_scale)
    load_prompts(learner, torch.load(file)["state_dict"])
    own, family = (dict(one.named_parameters()) for one in (learner, theirs.prompt_learner))
    assert own.keys() == family.keys()
    return learner, theirs


@pytest.mark.parametrize("class_chunk", [0, 2])
@pytest.mark.parametrize("case", WORDS)
def test_a_file_of_the_familys_maple_means_the_same(case, class_chunk, model, images, tmp_path):
    learner, theirs = maple_from_the_familys_file(model, case, 3, tmp_path / "model.pth.tar-5")
    assert_same_logits_and_gradients(PromptedCLIP(model, learner, class_chunk), theirs, images, 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["longer", "equal", "shorter"])
def test_maple_is_the_familys_at_the_size_of_vit_b_16(case, exact_layer_norm, tmp_path):
    torch.manual_seed(0)
    clip_model = reference.random_clip(224, 12, 768, 16, 512, 12, 512).double()
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    learner, theirs = maple_from_the_familys_file(clip_model, case, 9, tmp_path / "model.pth.tar-5")
    assert_same_logits_and_gradients(PromptedCLIP(clip_model, learner), theirs, images, 1e-6)
    assert_same_logits_and_gradients(
        PromptedCLIP(clip_model.float(), learner.float()), theirs.float(), images.float(), 2e-5
    )


@pytest.mark.parametrize("case", WORDS)
def test_maple_starts_from_the_words_that_its_vectors_replace(case, model):
    n_ctx, ctx_init, prefix = WORDS[case]
    learner = MaPLePromptLearner(model, NAMES, n_ctx, ctx_init, 1)
    words = model.token_embedding(clip.tokenize(prefix))[0, 1 : 1 + n_ctx]
    assert torch.equal(learner.ctx, words) != prefix.startswith("X")


def test_fixed_words_belong_to_the_prefix_that_classes_share(model):
    encoder = PromptedCLIP(model, MaPLePromptLearner(model, NAMES, 2, "a photo of a", 1)).text_encoder
    assert len(encoder.prefix) == 5  # start, v1, v2, "of", "a"
    one_token_names = MaPLePromptLearner(model, ["dog", "cat"], 2, "a photo of a", 1).sequences
    assert [len(sequence) for sequence in one_token_names] == [8, 8]


@pytest.mark.parametrize("n_ctx, name", [(3, "dog"), (4, "dog"), (4, "yellow duck")])
def test_a_context_that_hides_a_whole_class_name_is_refused(n_ctx, name, model):
    with pytest.raises(UserError) as refusal:
        MaPLePromptLearner(model, [*NAMES[1:], name], n_ctx, "a photo", 1)
    assert f"'{name}'" in str(refusal.value) and "CTX_INIT" in str(refusal.value)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("ctx_init", ["a photo of a", "a type of pet, a photo of a", "itap_of anti-establishment"])
def test_coop_learns_as_many_vectors_as_ctx_init_has_words_and_keeps_further_tokens(
    ctx_init, csc, position, model, images
):
    words = ctx_init.replace("_", " ")
    learner = CoOpPromptLearner(model, NAMES, 16, ctx_init, csc, position)
    start = model.token_embedding(clip.tokenize(words))[0, 1 : 1 + len(words.split())]
    assert torch.equal(learner.ctx, start.expand_as(learner.ctx)) and learner.ctx.shape[-2] == len(words.split())
    ours = PromptedCLIP(model, learner)(images).logits
    prompts = reference.full_prompts(model, learner.ctx, NAMES, position, words)
    theirs = reference.logits(model, model.encode_image(images), reference.encode_prompts(model, *prompts))
    assert distance(ours, theirs) < 1e-11
    (gradient,), (right,) = (torch.autograd.grad(one[:, 0].sum(), learner.ctx) for one in (ours, theirs))
    assert distance(gradient, right) < 1e-11


def test_cocoop_learns_as_many_vectors_as_ctx_init_has_words_and_keeps_further_tokens(model, images):
    words = "a type of pet, a photo of a"
    learner = CoCoOpPromptLearner(model, NAMES, 4, words).double()
    features = model.encode_image(images)
    biases = learner.meta_net(features / features.norm(dim=-1, keepdim=True))
    contexts = [learner.ctx + bias for bias in biases]
    assert len(learner.ctx) == 8
    prompts = [reference.full_prompts(model, context, NAMES, prefix=words) for context in contexts]
    text = torch.stack([reference.encode_prompts(model, *one) for one in prompts])
    assert distance(PromptedCLIP(model, learner)(images).logits, reference.logits(model, features, text)) < 1e-11


@pytest.mark.parametrize("learner", [CoOpPromptLearner, CoCoOpPromptLearner, MaPLePromptLearner])
def test_a_context_without_a_word_is_refused(learner, model):
    with pytest.raises(UserError, match="CTX_INIT"):
        learner(
            model,
            NAMES,
            n_ctx=2,
            ctx_init=" _ ",
            **({"prompt_depth": 1} if learner is MaPLePromptLearner else {}),
        )
