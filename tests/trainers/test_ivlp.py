"""IVLP and VPT against a full-length model with the family's file layout: logits, gradients, starts, refusals."""

import copy

import clip
import pytest
import reference
import torch
from torch import nn

from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.learners.ivlp import IVLPPromptLearner
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner
from dspt_atlas.trainers.learners.prompts import load_prompts
from dspt_atlas.trainers.registry import METHOD_TRAINERS
from support.family import NAMES, assert_same_logits_and_gradients
from support.refusals import refused
from support.tolerance import distance

WORDS = "a photo of a"
CASES = {  # n_text, n_vision, depth_text, depth_vision, CTX_INIT and what the family tokenises before the name
    "fixed words": (2, 3, 3, 2, WORDS, WORDS),
    "all words": (4, 2, 2, 3, WORDS, WORDS),
    "input alone": (4, 4, 1, 1, WORDS, WORDS),
    "text alone": (4, 0, 3, 0, WORDS, WORDS),
    "more vectors than words": (5, 1, 2, 2, WORDS, "X X X X X"),
    "no words": (2, 2, 3, 3, "", "X X"),
    "images alone, VPT": (0, 4, 0, 3, WORDS, WORDS),
}


@pytest.fixture(scope="module")
def model(exact_model):
    return exact_model


class FamilyIVLP(nn.Module):
    """IVLP at 77 positions per class, with the state dict of the family's whole model."""

    def __init__(self, clip_model, case):
        super().__init__()
        n_text, n_vision, depth_text, depth_vision, _, prefix = case
        self.clip = [copy.deepcopy(clip_model)]  # not a module, and so without keys of its own
        text_width, vision_width = clip_model.ln_final.weight.shape[0], clip_model.visual.conv1.weight.shape[0]
        self.prefix, self.text, self.vision = prefix, [], []
        self.prompt_learner, self.text_encoder, self.image_encoder = nn.Module(), nn.Module(), self.clip[0].visual
        self.text_encoder.transformer, self.logit_scale = self.clip[0].transformer, self.clip[0].logit_scale
        ctx = nn.Parameter(0.02 * torch.randn(n_text, text_width))
        if depth_text:
            self.prompt_learner.ctx = ctx
        self.prompt_learner.register_buffer("token_prefix", torch.zeros(len(NAMES), 1, text_width))
        self.prompt_learner.ZS_image_encoder = nn.Linear(3, 3)
        blocks = {"text": self.text_encoder.transformer.resblocks, "vision": self.image_encoder.transformer.resblocks}
        if depth_vision:
            self.image_encoder.VPT = nn.Parameter(0.02 * torch.randn(n_vision, vision_width))
            self.vision.append(self.image_encoder.VPT)
        for tower, depth, shape in (
            ("text", depth_text, (n_text, text_width)),
            ("vision", depth_vision, (n_vision, vision_width)),
        ):
            for index in range(1, depth):
                blocks[tower][index].VPT_shallow = nn.Parameter(0.02 * torch.randn(shape))
                getattr(self, tower).append(blocks[tower][index].VPT_shallow)
        self.start = [ctx]

    def forward(self, images):
        (clip_model,) = self.clip
        prompts = reference.full_prompts(clip_model, *self.start, NAMES, prefix=self.prefix)
        text = reference.encode_prompts(clip_model, *prompts, self.text)
        if not self.vision:
            return reference.logits(clip_model, clip_model.encode_image(images), text)
        features = reference.encode_prompted_images(clip_model, images, self.vision)
        return reference.logits(clip_model, features, text)


def made(clip_model, case, **changes):
    names = ("n_ctx_text", "n_ctx_vision", "depth_text", "depth_vision", "ctx_init")
    settings = {**dict(zip(names, case, strict=False)), **changes}
    return IVLPPromptLearner(clip_model, NAMES, **settings).to(clip_model.logit_scale)


def loaded_from_the_family(clip_model, case, file):
    torch.manual_seed(1)
    theirs = FamilyIVLP(clip_model, case).to(clip_model.logit_scale)
    torch.save({"state_dict": theirs.state_dict(), "epoch": 20}, file)
    learner = made(clip_model, case)
    load_prompts(learner, torch.load(file)["state_dict"])
    return learner, theirs


@pytest.mark.parametrize("class_chunk", [0, 3])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_file_of_the_family_means_the_same(case, class_chunk, model, images, tmp_path):
    learner, theirs = loaded_from_the_family(model, case, tmp_path / "model.pth.tar-20")
    assert_same_logits_and_gradients(
        PromptedCLIP(model, learner, class_chunk), theirs, images, 1e-9, learner.family_keys
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [(4, 4, 9, 9, WORDS, WORDS), (2, 2, 12, 12, WORDS, WORDS), (0, 8, 0, 12, WORDS, WORDS)], ids=str
)
def test_it_is_the_familys_at_the_size_of_vit_b_16(case, exact_layer_norm, tmp_path):
    torch.manual_seed(0)
    clip_model = reference.random_clip(224, 12, 768, 16, 512, 12, 512)
    learner, theirs = loaded_from_the_family(clip_model, case, tmp_path / "model.pth.tar-20")
    assert_same_logits_and_gradients(
        PromptedCLIP(clip_model, learner), theirs, torch.randn(2, 3, 224, 224), 1e-5, learner.family_keys
    )
    counts = {(4, 9): 46_080, (2, 12): 30_720, (0, 12): 73_728}
    assert sum(vectors.numel() for vectors in learner.parameters()) == counts[case[0], case[2] or case[3]]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_starts_from_the_words_that_it_replaces_and_all_else_from_noise(case, model):
    learner = made(model, case)
    if case[2]:
        words = model.token_embedding(clip.tokenize(case[5]))[0, 1 : 1 + case[0]]
        assert torch.equal(learner.ctx, words) != case[5].startswith("X")
    noise = [*learner.text_prompts, *learner.image_prompts]
    assert len({*map(str, noise)}) == len(noise) == max(0, case[2] - 1) + case[3]
    assert all(0.01 < vectors.std() < 0.03 for vectors in noise)


def test_a_text_without_vectors_is_encoded_once_and_gets_no_gradient(model, images):
    prompted = PromptedCLIP(model, made(model, CASES["images alone, VPT"]))
    calls = []
    prompted.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    outputs = [prompted(images) for _ in range(3)]
    assert len(calls) == 1 and not outputs[0].text_features.requires_grad and outputs[0].image_features.requires_grad
    texts = clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    expected = model.encode_text(texts)
    assert distance(outputs[0].text_features, expected / expected.norm(dim=-1, keepdim=True)) < 1e-9


def test_anothers_file_is_refused_with_its_keys(model, tmp_path):
    learner, theirs = loaded_from_the_family(model, CASES["fixed words"], tmp_path / "file")
    block = "transformer.resblocks.{}.VPT_shallow"
    with refused("image_encoder.VPT", f"text_encoder.{block.format(2)}", "proj.weight"):
        load_prompts(MaPLePromptLearner(model, NAMES, prompt_depth=2), theirs.state_dict())
    with refused("compound_prompts_text.0", "proj.weight", "text_prompts.1", "image_prompts.0"):
        load_prompts(learner, MaPLePromptLearner(model, NAMES, prompt_depth=2).state_dict())
    with refused("left over ctx", "left over text_encoder"):
        load_prompts(made(model, CASES["images alone, VPT"]), theirs.state_dict())
    with refused("image_prompts.2"):
        load_prompts(made(model, CASES["fixed words"], depth_vision=3), theirs.state_dict())
    with refused(f"image_encoder.{block.format(1)}"):
        load_prompts(made(model, CASES["fixed words"], depth_vision=1), theirs.state_dict())


@pytest.mark.parametrize(
    "changes, facts",
    [
        ({"depth_text": 4}, ("PROMPT_DEPTH_TEXT", "3", "4")),
        ({"depth_vision": 4}, ("PROMPT_DEPTH_VISION", "3", "4")),
        ({"n_ctx_vision": 0}, ("N_CTX_VISION", "0")),
    ],
    ids=str,
)
def test_what_the_towers_do_not_have_is_refused(changes, facts, model):
    with refused(*facts):
        made(model, CASES["fixed words"], **changes)


def test_a_resnet_takes_text_prompts_alone():
    resnet = reference.random_clip(vision_layers=(1, 1, 1, 1), vision_width=8)
    with refused("ResNet"):
        made(resnet, CASES["fixed words"])
    prompted = PromptedCLIP(resnet, made(resnet, CASES["text alone"]))
    assert prompted(torch.randn(2, 3, 32, 32)).logits.shape == (2, len(NAMES))


@pytest.mark.parametrize("name", ["IVLP", "VPT", "PromptSRC"])
def test_features_are_cached_only_where_images_get_no_prompts(name, tiny_run, tiny_clip_path, tmp_path, private_cache):
    cached = ("INPUT.CACHE", "features")
    with refused(name, "INPUT.CACHE none"):
        tiny_run(name, tiny_clip_path, tmp_path, *cached)
    if name == "IVLP":
        curves = []
        for options in ((), cached):
            text_alone = ("TRAINER.IVLP.PROMPT_DEPTH_VISION", 0, *options)
            trainer = tiny_run("IVLP", tiny_clip_path, tmp_path / str(len(options)), *text_alone)
            trainer.train()
            curves.append([epoch["train_loss"] for epoch in trainer.report["history"]])
        assert curves[0] == pytest.approx(curves[1], rel=1e-5)


@pytest.mark.parametrize("name", ["IVLP", "VPT", "PromptSRC"])
def test_every_method_that_takes_prompted_images_goes_with_it(name):
    assert {f"{name}{method}" for method in ("DSPT", "ATLaS", "GCE", "MAE", "LS", "TFKD", "OLS")} <= set(
        METHOD_TRAINERS
    )
    assert not {f"{name}NLPrompt", f"{name}JoAPR"} & set(METHOD_TRAINERS)
