"""Towers of open_clip, timm and transformers: the same numbers as there, in every learner, or a refusal by name."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from dspt_atlas.trainers.clip import tokenizers
from dspt_atlas.trainers.clip.encoders import ImageEncoder
from dspt_atlas.trainers.clip.model import backbone_input_size, fingerprint, load_clip, weights_digest
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, zero_shot_features
from dspt_atlas.trainers.clip.sources import preprocessing_of
from dspt_atlas.trainers.clip.tokenizers import files_beside
from dspt_atlas.trainers.clip.towers import is_encoded_whole, tokenizer_of
from dspt_atlas.trainers.clip.whole import WholeTextEncoder
from dspt_atlas.trainers.learners.cocoop import CoCoOpPromptLearner
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.ivlp import IVLPPromptLearner
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner
from dspt_atlas.trainers.learners.prompts import prompt_sequences
from dspt_atlas.trainers.learners.tcp import TCPPromptLearner
from dspt_atlas.trainers.words import nearest_words
from support import tiny_libraries as tiny
from support.refusals import assert_names, refused
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


def test_a_context_of_words_is_these_words(family):
    model = load_clip(family.name)
    ours = PromptedCLIP(model, CoOpPromptLearner(model, NAMES, ctx_init="a photo of a")).encode_text()
    assert distance(ours, zero_shot_features(model, NAMES, ["a photo of a {}."])) < 1e-6


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
def test_classes_at_a_time_and_contexts_of_images_change_nothing(family, position, csc):
    model = load_clip(family.name)
    learner = CoOpPromptLearner(model, NAMES, 4, csc=csc, class_token_position=position)
    weights = torch.randn(3, model.visual.output_dim)
    results = []
    for class_chunk in (0, 2):
        features = PromptedCLIP(model, learner, class_chunk).encode_text()
        results.append((features, torch.autograd.grad((features * weights).sum(), learner.ctx)[0]))
    for one, other in zip(*results, strict=True):
        assert distance(one, other) < 1e-5
    if not csc and position == "end":
        conditional = CoCoOpPromptLearner(model, NAMES, 4)
        images = normalised(torch.randn(2, model.visual.output_dim))
        together = PromptedCLIP(model, conditional).encode_text(images)
        alone = [PromptedCLIP(model, conditional).encode_text(image[None])[0] for image in images]
        assert together.shape[0] == 2
        assert distance(together, torch.stack(alone)) < 1e-5


def ids_of(family, texts):
    """Token ids as the library makes them."""
    if family.name.startswith("hf:"):
        return family.tokenizer(texts, padding="max_length", max_length=64, return_tensors="pt").input_ids
    return family.tokenizer(texts)


def text_by_blocks(family, texts, context, replaced):
    """Text features by the library's blocks, one after the other; replaced: by block, what to put after the start."""
    mask_name = "attention_mask"
    ids, places = ids_of(family, texts), slice(family.start, family.start + context.shape[-2])

    def put(x, vectors):
        x = x.clone()
        x[:, places] = vectors
        return x

    hook = family.embedding.register_forward_hook(lambda _module, _inputs, x: put(x, context))
    model = family.model
    if family.name.startswith("hf:"):
        text, mask = model.text_model, None
        x, blocks = text.embeddings(ids), text.encoder.layers
    elif hasattr(model.text, "pooler"):
        text, blocks = model.text, model.text.transformer.encoder.layer
        mask = (ids != 0)[:, None, None].expand(-1, 1, ids.shape[1], -1)
        x = text.transformer.embeddings(ids)
    else:
        text, blocks = model.text, model.text.transformer.resblocks
        (x, mask), mask_name = text._embeds(ids), "attn_mask"
    hook.remove()
    for number, block in enumerate(blocks):
        x = block(put(x, replaced[number]) if number in replaced else x, **{mask_name: mask})
        x = x[0] if isinstance(x, tuple) else x
    if family.name.startswith("hf:"):
        return text.head(text.final_layer_norm(x)[:, -1])
    if hasattr(model.text, "pooler"):
        return text.proj(x[:, 0])
    if text.cls_emb is not None:
        return text.ln_final(x[:, -1]) @ text.text_projection
    pooled = {"last": x[:, -1], "argmax": x[torch.arange(len(x)), ids.argmax(-1)]}[text.pool_type]
    projection, pooled = text.text_projection, text.ln_final(pooled)
    return projection(pooled) if callable(projection) else pooled @ projection


def images_by_blocks(family, images, prompts):
    """Image features by the library's blocks, with prompts after the image's tokens that are never pooled."""
    visual = family.model.vision_model if family.name.startswith("hf:") else family.model.visual

    def rows(prompt):
        return prompt.expand(len(images), -1, -1)

    if family.name.startswith("hf:"):
        x, blocks = visual.embeddings(images), visual.encoder.layers
        length, x = x.shape[1], torch.cat([x, rows(prompts[0])], 1)
    elif hasattr(visual, "trunk"):
        x, blocks = visual.trunk._pos_embed(visual.trunk.patch_embed(images)), visual.trunk.blocks
        length, x = x.shape[1], visual.trunk.norm_pre(torch.cat([x, rows(prompts[0])], 1))
    else:
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + visual.positional_embedding
        length, blocks = x.shape[1], visual.transformer.resblocks
        x = visual.ln_pre(torch.cat([x, rows(prompts[0])], 1))
    for number, block in enumerate(blocks):
        if 1 <= number < len(prompts):
            x = torch.cat([x[:, :length], rows(prompts[number])], 1)
        x = block(x, None) if family.name.startswith("hf:") else block(x)
    x = x[:, :length]
    if family.name.startswith("hf:"):
        return visual.head(visual.post_layernorm(x))
    if hasattr(visual, "trunk"):
        return visual.head(visual.trunk.forward_head(visual.trunk.norm(x)))
    return visual._pool(x)[0] @ visual.proj


def test_deep_prompts_equal_an_independent_forward(family, exact_layer_norm):
    model = load_clip(family.name).double()
    family.model.double()
    images = torch.randn(2, 3, family.size, family.size, dtype=torch.float64)
    if "EVA" in family.kind or family.kind == "MobileCLIP":
        with refused("timm's test_"):
            MaPLePromptLearner(model, NAMES, 2, prompt_depth=2)
        learner = IVLPPromptLearner(model, NAMES, 2, ctx_init="x x x x", depth_text=2, depth_vision=0).double()
    else:
        learner = MaPLePromptLearner(model, NAMES, 2, "x x x x", prompt_depth=2).double()
        prompts = learner().images
        theirs = images_by_blocks(family, images, prompts)
        assert distance(ImageEncoder(model)(images, prompts), theirs) < 1e-10
        only_first = images_by_blocks(family, images, prompts[:1])
        assert distance(ImageEncoder(model)(images, prompts[:1]), only_first) < 1e-10
        assert distance(theirs, only_first) > 1e-6
    prompts = learner()
    ours = PromptedCLIP(model, learner).encode_text()
    texts = ["x x x x " + name.replace("_", " ") + "." for name in NAMES]
    theirs = text_by_blocks(family, texts, prompts.context, {1: prompts.deep[0]})
    assert distance(ours, normalised(theirs)) < 1e-10
    assert distance(theirs, text_by_blocks(family, texts, prompts.context, {})) > 1e-6


def test_class_vectors_equal_an_independent_forward(family, exact_layer_norm):
    model = load_clip(family.name).double()
    family.model.double()
    features = zero_shot_features(model, NAMES, TEMPLATES)
    learner = TCPPromptLearner(model, NAMES, features, 4, template="X X X X {}.", block=1).double()
    texts = ["x x x x " + name.replace("_", " ") + "." for name in NAMES]
    vectors = learner.meta_net(features).view(3, 4, -1)
    theirs = normalised(text_by_blocks(family, texts, learner.ctx, {1: vectors}))
    for class_chunk in (0, 2):
        assert distance(PromptedCLIP(model, learner, class_chunk).encode_text(), theirs) < 1e-10


LEARNERS = (
    "ZeroshotCLIP",
    "CoOpDSPT",
    "CoCoOp",
    "KgCoOpATLaS",
    "ProGrad",
    "TCP",
    "MaPLe",
    "IVLP",
    "PromptSRC",
    "DePTCoOp",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SigLIP of transformers", "BiomedCLIP"])
def test_every_learner_trains_on_it(kind, train_tiny, tmp_path, capsys):
    pytest.importorskip("timm", reason="timm is not installed")
    family = FAMILIES[kind](tmp_path / "hub")
    for trainer in LEARNERS:
        deep = trainer in ("MaPLe", "IVLP", "PromptSRC")
        pairs = ["TRAINER.TCP.BLOCK", 1] if trainer == "TCP" else []
        if trainer in ("IVLP", "PromptSRC"):
            pairs = [f"TRAINER.{trainer.upper()}.PROMPT_DEPTH_{tower}" for tower in ("TEXT", "VISION")]
            pairs = [value for key in pairs for value in (key, 2)]
        options = ["MODEL.BACKBONE.NAME", family.name, *(["INPUT.CACHE", "none"] if deep else []), *pairs]
        output = train_tiny(trainer, *options)
        record = json.loads((output / "result.json").read_text())
        assert record["backbone"] == family.name
        assert record["identity"]["backbone"] == weights_digest(family.name)
        assert load_clip(family.name).text.name in capsys.readouterr().out


# What is something else is refused.


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def saved(family, state):
    if family.name.startswith("hf:"):
        (family.folder / "model.safetensors").unlink(missing_ok=True)
        torch.save(state, family.folder / "pytorch_model.bin")
    else:
        torch.save(state, family.folder / "open_clip_pytorch_model.bin")


def test_missing_left_over_and_misshapen_weights_are_refused(family):
    table = next(key for key, value in family.model.named_parameters() if value is family.embedding.weight)
    key = next(reversed(family.state))
    for wrong, fact in (
        ({name: family.state[name] for name in family.state if name != key}, key),
        ({**family.state, "visual.trunk.more": torch.ones(1)}, "visual.trunk.more"),
        ({**family.state, table: family.state[table][:-1]}, table),
    ):
        saved(family, wrong)
        with refused(family.name, fact):
            load_clip(family.name)


def test_weights_behind_prefixes_and_in_checkpoints_are_the_same_backbone(family):
    digest = weights_digest(family.name)
    saved(family, {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in family.state.items()}})
    assert weights_digest(family.name) == digest


def test_the_configuration_is_part_of_the_backbone(tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    vision, digests, images, state = {**tiny.IMAGE, "mlp_ratio": 2.0}, set(), set(), None
    other = {**vision, "norm_kwargs": {"eps": 1e-2}}
    changes = (vision, {}), (vision, {"no_causal_mask": True}), (vision, {"pool_type": "last"}), (other, {})
    for number, (tower, text) in enumerate(changes):
        family = tiny.OfOpenClip(tmp_path / str(number), of(tower, {**tiny.TEXT, **text}))
        state = state or family.state
        saved(family, state)
        digests.add(weights_digest(family.name))
        images.add(fingerprint(load_clip(family.name)))
    assert (len(digests), len(images)) == (4, 2)


def test_the_words_nearest_to_embeddings_are_their_own(family):
    model = load_clip(family.name)
    ids = tokenizer_of(model).encode("red circle")
    learner = CoOpPromptLearner(model, NAMES, len(ids))
    learner.ctx.data = model.token_embedding.weight[ids].clone()
    words = nearest_words(SimpleNamespace(clip_model=model, prompt_learner=learner), NAMES, 1)
    assert "".join(word.word for word in words).replace("##", "") == "redcircle"
    assert max(word.distance for word in words) < 1e-3


def test_the_tokenizer_is_part_of_the_backbone(family):
    if not (files := files_beside(family.folder / "model.safetensors")):
        pytest.skip("the tokenizer is the library's own")
    digest = weights_digest(family.name)
    files[-1].write_text(files[-1].read_text() + "\n")
    assert weights_digest(family.name) != digest


def test_a_tokenizer_that_is_missing_or_of_another_model_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    for kind in (FAMILIES["SigLIP"], FAMILIES["SigLIP of transformers"]):
        family = kind(tmp_path / "hub")
        for file in tokenizers._FILES:
            (family.folder / file).unlink(missing_ok=True)
        with refused(family.name, family.folder):
            load_clip(family.name)
        tiny.bert_tokenizer(family.folder)
        rows = len(family.embedding.weight)
        with refused(family.name, family.folder, rows):
            load_clip(family.name)
        shutil.rmtree(family.folder)


def test_classes_that_the_tokenizer_cannot_tell_apart_are_named(tmp_path, capsys):
    pytest.importorskip("timm", reason="timm is not installed")
    model = load_clip(FAMILIES["SigLIP"](tmp_path / "hub").name)
    CoOpPromptLearner(model, ["dog", "duck", "yellow dog"], 2)
    assert not capsys.readouterr().out
    CoOpPromptLearner(model, ["dog", "D.o.g", "duck"], 2)
    assert_names(capsys.readouterr().out, "dog and D.o.g")
    with refused("'+'"):
        CoOpPromptLearner(model, ["dog", "+"], 2)


def test_code_beside_weights_is_never_run(tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    mark = tmp_path / "exploded"
    for kind, file in (("SigLIP", "tokenizer_config.json"), ("BiomedCLIP", "config.json")):
        family = FAMILIES[kind](tmp_path / kind)
        (family.folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
        config = json.loads((family.folder / file).read_text())
        config |= {"tokenizer_class": "Own", "model_type": "own", "auto_map": {
            "AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own", "AutoModel": "own.Own"}}  # fmt: skip
        (family.folder / file).write_text(json.dumps(config))
        whole = json.loads((family.folder / "open_clip_config.json").read_text())
        whole["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
        (family.folder / "open_clip_config.json").write_text(json.dumps(whole))
        with refused(family.name):
            load_clip(family.name)
    assert not mark.exists()


def test_prompts_of_another_tokenizer_are_refused(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    for kind in ("SigLIP", "BiomedCLIP"):
        model = load_clip(FAMILIES[kind](tmp_path / kind).name)
        with refused("tokenizer_of"):
            WholeTextEncoder(model, prompt_sequences(NAMES, 2))
    tokenizer = tokenizer_of(model)
    with refused("32", "33"):
        WholeTextEncoder(model, [[*tokenizer.start, *[5] * 31, *tokenizer.end]])
    with refused("32", "yellow duck"):
        CoOpPromptLearner(model, NAMES, 30)
    with refused("30"):
        zero_shot_features(model, NAMES, ["a photo " * 20 + "{}"])


def test_a_siglip_configuration_with_other_weights_or_without_its_pooling_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    family = FAMILIES["SigLIP of transformers"](tmp_path / "hub")
    config = json.loads((family.folder / "config.json").read_text())
    for change, fact in (
        ({"vision_config": {**config["vision_config"], "vision_use_head": False}}, "vision_config"),
        (
            {"vision_config": {**config["vision_config"], "image_size": 64}},
            "vision_model.embeddings.position_embedding",
        ),
        ({"text_config": {**config["text_config"], "num_hidden_layers": 3}}, "text_model.encoder.layers.2"),
        ({"text_config": {**config["text_config"], "hidden_act": "none"}}, "none"),
        ({"vision_config": None}, "vision_config"),
    ):
        (family.folder / "config.json").write_text(json.dumps({**config, **change}))
        with refused(family.name, fact):
            load_clip(family.name)
    (family.folder / "config.json").write_text(json.dumps(config))
    with refused("SiglipModel", family.name):
        load_clip(family.folder / "model.safetensors")


def test_an_architecture_of_open_clip_is_named_with_its_file_or_its_folder(tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    config = of(tiny.timm_vision("test_convnext", "avg"), tiny.TEXT)
    family = tiny.OfOpenClip(tmp_path / "hub", config)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-Conv", config)
    name = f"open_clip:Tiny-Conv={family.folder / 'open_clip_pytorch_model.bin'}"
    assert weights_digest(name) == weights_digest(family.name)
    with refused("timm", name.partition("=")[2]):
        load_clip(f"open_clip:ViT-B-32={name.partition('=')[2]}")
    other = of(tiny.timm_vision("test_vit", "token"), tiny.TEXT)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-Conv", other)
    with refused("Tiny-Conv", "visual.trunk"):
        load_clip(name)


def test_images_are_made_as_the_architectures_tags_say(tmp_path):
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    (tmp_path / "weights.pt").touch()
    for arch, size, mean, interpolation in (
        ("ViT-B-16-SigLIP", 224, 0.5, "bicubic"),
        ("MobileCLIP-S1", 256, 0.0, "bilinear"),
        ("EVA02-B-16", 224, 0.48145466, "bicubic"),
    ):
        name = f"open_clip:{arch}={tmp_path / 'weights.pt'}"
        images = preprocessing_of(name)
        assert (images.mean[0], images.interpolation, images.is_squeezed) == (mean, interpolation, "SigLIP" in arch)
        assert backbone_input_size(name) == size


def test_sentencepieces_file_alone_is_siglips_tokenizer(tmp_path):
    pieces = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    family = tiny.OfTransformers(tmp_path / "hub", 64)
    texts = [text for texts in TEXTS for text in texts] * 40
    prefix = str(family.folder / "spiece")
    marks = {"unk_id": 2, "eos_id": 1, "pad_id": 0, "bos_id": -1}
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=prefix, vocab_size=42, hard_vocab_limit=False, **marks
    )
    model = load_clip(family.name)
    from transformers import AutoTokenizer

    family.tokenizer = AutoTokenizer.from_pretrained(family.folder)
    theirs = normalised(torch.stack([normalised(family.texts(texts)) for texts in TEXTS]).mean(0))
    assert distance(zero_shot_features(model, NAMES, TEMPLATES), theirs) < 1e-6
