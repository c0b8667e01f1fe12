"""Towers of open_clip, timm and transformers: the same numbers as there, in every learner, or a refusal by name."""

import json

import pytest
import torch

from dspt_atlas.trainers.clip.encoders import ImageEncoder
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, zero_shot_features
from dspt_atlas.trainers.clip.towers import is_encoded_whole
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from support import tiny_libraries as tiny
from support.tolerance import distance

NAMES = ["dog", "yellow_duck", "Boeing 738"]
TEMPLATES = ["a photo of a {}.", "the {}"]
TEXTS = [[template.format(name.replace("_", " ")) for name in NAMES] for template in TEMPLATES]
COCA = {"context_length": 76, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2, "attn_pooler_heads": 2}
BERT = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT |= {"intermediate_size": 96, "max_position_embeddings": 32, "pad_token_id": 0}


def of(vision, text, embed=64, **more):
    return {"embed_dim": embed, "custom_text": True, "vision_cfg": vision, "text_cfg": text, **more}


def siglip(folder):
    words = tiny.t5_tokenizer(folder)
    vision = tiny.timm_vision("test_vit", "map", "none")
    return tiny.OfOpenClip(folder, of(vision, tiny.siglip_text(words), init_logit_bias=-10), start=0)


def siglip2(folder):
    text = tiny.siglip_text(tiny.gemma_tokenizer(folder), act_kwargs={"approximate": "tanh"})
    vision = tiny.timm_vision("test_vit", "map", "none")
    return tiny.OfOpenClip(folder, of(vision, text, init_logit_bias=-10), start=0)


def biomed(folder):
    words = tiny.bert_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({**BERT, "vocab_size": words}))
    text = {"hf_model_name": "microsoft/none", "hf_tokenizer_name": "microsoft/none", "hf_proj_type": "mlp"}
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}
    return tiny.OfOpenClip(folder, of(tiny.timm_vision("test_vit", "", "linear"), text, 32))


def coca(folder):
    vision = {**tiny.IMAGE, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = {**tiny.TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
    return tiny.OfOpenClip(folder, of(vision, text, multimodal_cfg=COCA))


FAMILIES = {
    "SigLIP": siglip,
    "SigLIP 2": siglip2,
    "SigLIP of transformers": lambda folder: tiny.OfTransformers(folder, tiny.t5_tokenizer(folder)),
    "SigLIP 2 of transformers": lambda folder: tiny.OfTransformers(folder, tiny.gemma_tokenizer(folder)),
    "EVA02": lambda folder: tiny.OfOpenClip(folder, of(tiny.timm_vision("test_eva", "token", size=32), tiny.TEXT)),
    "MobileCLIP": lambda folder: tiny.OfOpenClip(folder, of(tiny.timm_vision("test_convnext", "avg"), tiny.TEXT)),
    "MobileCLIP that is not causal": lambda folder: tiny.OfOpenClip(
        folder, of(tiny.timm_vision("test_vit", "token"), {**tiny.TEXT, "no_causal_mask": True})
    ),
    "ViT-bigG": lambda folder: tiny.OfOpenClip(folder, of({**tiny.IMAGE, "mlp_ratio": 3.5}, tiny.TEXT)),
    "CoCa": coca,
    "BiomedCLIP": biomed,
}
SHARED = ("EVA02", "MobileCLIP", "ViT-bigG")  # with a text tower of OpenAI's kind


def normalised(features):
    return features / features.norm(dim=-1, keepdim=True)


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    tiny.register_eva()
    made = FAMILIES[request.param](tmp_path / "hub")
    made.kind = request.param
    return made


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_features_and_gradients_are_the_librarys_own(family, dtype, tolerance, exact_layer_norm):
    model = load_clip(family.name).to(dtype)
    assert is_encoded_whole(model) == (family.kind not in SHARED)
    family.model.to(dtype)
    images = torch.randn(3, 3, family.size, family.size, dtype=dtype)
    assert distance(normalised(ImageEncoder(model)(images)), normalised(family.images(images))) < tolerance
    theirs = normalised(torch.stack([normalised(family.texts(texts)) for texts in TEXTS]).mean(0))
    assert distance(zero_shot_features(model, NAMES, TEMPLATES), theirs) < tolerance

    learner = CoOpPromptLearner(model, NAMES, 4)
    context, start = learner.ctx, family.start
    ours = PromptedCLIP(model, learner).encode_text()
    family.embedding.register_forward_hook(
        lambda _module, _inputs, x: torch.cat([x[:, :start], context.expand(3, -1, -1), x[:, start + 4 :]], 1)
    )
    theirs = normalised(family.texts(["x x x x " + name.replace("_", " ") + "." for name in NAMES]))
    weights = torch.randn(theirs.shape, dtype=dtype)
    (gradient,), (expected,) = (torch.autograd.grad((one * weights).sum(), context) for one in (ours, theirs))
    assert distance(ours, theirs) < tolerance
    assert distance(gradient, expected) < 10 * tolerance


OTHERS = {
    "mlp_ratio": ({}, {"mlp_ratio": 2.0}),
    "no_causal_mask": ({}, {"no_causal_mask": True}),
    "pool_type": ({}, {"pool_type": "last"}),
    "act_kwargs": ({}, {"act_kwargs": {"approximate": "tanh"}}),
    "norm_kwargs": ({"norm_kwargs": {"eps": 1e-2}}, {"norm_kwargs": {"eps": 1e-2}}),
    "no_ln_pre": ({"no_ln_pre": True, "pool_type": "avg"}, {}),
    "context_length": ({}, {"context_length": 32}),
    "layer scale": ({"ls_init_value": 0.5}, {"ls_init_value": 0.5}),
    "clean": ({}, {"tokenizer_kwargs": {"clean": "canonicalize"}}),
}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("vision, text", OTHERS.values(), ids=OTHERS)
def test_what_openais_model_does_not_compute_is_computed_as_the_configuration_says(vision, text, quick, tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    if quick and "act_kwargs" in text:
        pytest.skip("open_clip's QuickGELU takes no settings")
    family = tiny.OfOpenClip(tmp_path / "hub", of({**tiny.IMAGE, **vision}, {**tiny.TEXT, **text}, quick_gelu=quick))
    model = load_clip(family.name)
    images = torch.randn(3, 3, family.size, family.size)
    assert distance(normalised(ImageEncoder(model)(images)), normalised(family.images(images))) < 1e-5
    theirs = normalised(family.texts([f"A-one {name.replace('_', ' ')}, b." for name in NAMES]))
    assert distance(zero_shot_features(model, NAMES, ["A-one {}, b."]), theirs) < 1e-5
