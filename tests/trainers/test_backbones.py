"""CLIPs of other libraries: the same numbers as there, and whatever is something else is refused by name."""

import json
import sys

import clip
import pytest
import reference
import torch
from torch import nn

from dspt_atlas.config.build import build_cfg
from dspt_atlas.trainers.clip import architectures
from dspt_atlas.trainers.clip.encoders import ImageEncoder
from dspt_atlas.trainers.clip.model import backbone_input_size, fingerprint, load_clip, weights_digest
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, zero_shot_features
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner
from support.paths import CONFIGS
from support.refusals import assert_names, refused
from support.tolerance import distance

NAMES = ["dog", "yellow_duck", "Boeing 737-800"]
TEMPLATES = ["a photo of a {}.", "{}"]
TEXTS = [[template.format(name.replace("_", " ")) for name in NAMES] for template in TEMPLATES]
IMAGE = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
MODEL = {"embed_dim": 32, "quick_gelu": False, "vision_cfg": IMAGE, "text_cfg": TEXT}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
ACTIVATION = {True: "quick_gelu", False: "gelu"}
TINY = (32, 32, 2, 64, 16, 16, 64, 2, 2)  # MODEL as the table of architectures has it


@pytest.fixture
def published(monkeypatch):
    """Let the tiny model be one that open_clip has published, with both activations."""
    monkeypatch.setitem(architectures._PUBLISHED, "ViT-Tiny", TINY)


@pytest.fixture
def state(tiny_clip_path):
    return torch.load(tiny_clip_path, weights_only=True)


def changed(config, **values):
    return {**config, **values}


def snapshot_of_open_clip(folder, state, config):
    folder.mkdir()
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return f"open_clip:{folder}"


def transformers_config(quick=True, heads=1, **text):
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": heads, "num_hidden_layers": 2}
    tower["hidden_act"] = ACTIVATION[quick]
    image = {**tower, "image_size": 32, "patch_size": 16}
    return {"model_type": "clip", "projection_dim": 32, "text_config": {**tower, **text}, "vision_config": image}


def snapshot_of_transformers(folder, state, config, file="pytorch_model.bin"):
    folder.mkdir()
    torch.save(state, folder / file)
    (folder / "config.json").write_text(json.dumps(config))
    return f"hf:{folder}"


def as_transformers(state):
    """Weights in OpenAI's layout under the names that transformers' CLIPModel gives them."""
    names = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "c_fc": "fc1", "c_proj": "fc2", "attn": "self_attn"}
    for kind in ("weight", "bias"):
        names[f"ln_final.{kind}"] = f"text_model.final_layer_norm.{kind}"
        names[f"visual.ln_pre.{kind}"] = f"vision_model.pre_layrnorm.{kind}"
        names[f"visual.ln_post.{kind}"] = f"vision_model.post_layernorm.{kind}"
    theirs = {f"{tower}_model.embeddings.position_ids": torch.arange(77)[None] for tower in ("text", "vision")}
    for key, value in state.items():
        if key in names:
            theirs[names[key]] = value
        elif key in ("text_projection", "visual.proj"):
            theirs[{"visual.proj": "visual_projection.weight"}.get(key, f"{key}.weight")] = value.T
        else:
            tower = "vision" if key.startswith("visual.") else "text"
            block, rest = key.split("resblocks.")[1].split(".", 1)
            start = f"{tower}_model.encoder.layers.{block}."
            if "in_proj_" in rest:
                for part, rows in zip("qkv", value.chunk(3), strict=True):
                    theirs[f"{start}self_attn.{part}_proj.{rest.rpartition('_')[2]}"] = rows
            else:
                theirs[start + ".".join(parts.get(part, part) for part in rest.split("."))] = value
    return theirs


# What needs neither library: weights in their layouts.


def test_transformers_layout_of_openais_weights_is_openais_model(tiny_clip_path, state, tmp_path):
    name = snapshot_of_transformers(tmp_path / "hub", as_transformers(state), transformers_config())
    model, openais = load_clip(name), load_clip(tiny_clip_path)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.visual(images), openais.visual(images))
    assert torch.equal(zero_shot_features(model, NAMES, TEMPLATES), zero_shot_features(openais, NAMES, TEMPLATES))
    assert (fingerprint(model), weights_digest(name)) == (fingerprint(openais), weights_digest(tiny_clip_path))
    assert backbone_input_size(name) == 32


def variants(state, tmp_path):
    theirs = as_transformers(state)
    for heads in (1, 2):
        for quick in (True, False):
            config = transformers_config(quick, heads)
            yield snapshot_of_transformers(tmp_path / f"hub{heads}{quick}", theirs, config)


def test_equal_weights_with_another_activation_or_head_width_are_another_backbone(state, tmp_path):
    names = list(variants(state, tmp_path))
    models = [load_clip(name) for name in names]
    assert len({weights_digest(name) for name in names}) == len({fingerprint(model) for model in models}) == 4
    images = torch.randn(2, 3, 32, 32)
    features = [model.visual(images) for model in models]
    assert min(distance(one, two) for i, one in enumerate(features) for two in features[:i]) > 1e-4


def test_every_forward_pass_has_the_activation_and_heads_of_the_configuration(state, tmp_path):
    for name in variants(state, tmp_path):
        model = load_clip(name)
        own = torch.stack([model.encode_text(clip.tokenize(texts)) for texts in TEXTS])
        own = (own / own.norm(dim=-1, keepdim=True)).mean(0)
        ours = zero_shot_features(model, NAMES, TEMPLATES)
        assert distance(ours, own / own.norm(dim=-1, keepdim=True)) < 1e-5
        images = torch.randn(2, 3, 32, 32)
        learner = MaPLePromptLearner(model, NAMES, n_ctx=2, prompt_depth=2)
        prompts = learner().images
        expected = reference.encode_prompted_images(model, images, prompts)
        assert distance(ImageEncoder(model)(images, prompts), expected) < 1e-5


def test_a_bare_file_of_a_published_shape_has_to_be_named(published, state, tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    with refused(path, f"open_clip:ViT-Tiny={path}", f"open_clip:ViT-Tiny-quickgelu={path}", f"openai:{path}"):
        load_clip(path)
    gelu, quick = load_clip(f"open_clip:ViT-Tiny={path}"), load_clip(f"open_clip:ViT-Tiny-quickgelu={path}")
    assert [sum(isinstance(part, nn.GELU) for part in model.modules()) for model in (gelu, quick)] == [4, 0]
    assert {part.num_heads for part in gelu.visual.modules() if isinstance(part, nn.MultiheadAttention)} == {4}
    with refused(f"open_clip:ViT-Tiny={path}", "4 heads"):  # nothing of OpenAI's has heads of 16
        load_clip(f"openai:{path}")
    monkeypatch.setitem(architectures._PUBLISHED, "ViT-Tiny", (*TINY[:5], 64, 64, 1, 2))
    with refused(f"openai:{path}"):
        load_clip(path)
    assert weights_digest(f"openai:{path}") == weights_digest(f"open_clip:ViT-Tiny-quickgelu={path}")
    torch.save({**state, "input_resolution": torch.tensor(32)}, path)  # as OpenAI's archives have it
    assert weights_digest(path) == weights_digest(f"openai:{path}")


def test_weights_are_found_behind_prefixes_and_inside_training_checkpoints(published, state, tmp_path):
    path = tmp_path / "epoch_3.pt"
    digests = set()
    for prefix in ("", "module.", "model.", "module.model."):
        for place in ("state_dict", "model", "ema"):
            torch.save({"epoch": 3, place: {prefix + key: value for key, value in state.items()}}, path)
            digests.add(weights_digest(f"open_clip:ViT-Tiny={path}"))
    assert len(digests) == 1
    torch.save({"model": state, "ema": state}, path)
    with refused("model", "ema", path):
        load_clip(f"open_clip:ViT-Tiny={path}")


def test_open_clips_model_of_two_parts_is_read(published, state, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    whole = load_clip(f"open_clip:ViT-Tiny={path}").state_dict()
    torch.save({key if key.startswith(("visual.", "logit_")) else f"text.{key}": state[key] for key in state}, path)
    parts = load_clip(f"open_clip:ViT-Tiny={path}").state_dict()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with refused("CustomTextCLIP", f"open_clip:ARCH={path}"):
        load_clip(path)


def wrong_shapes(state):
    return {
        "image_resolution": {"visual.positional_embedding": torch.zeros(17, 64)},
        "vision_patch_size": {"visual.conv1.weight": torch.zeros(64, 3, 8, 8)},
        "embed_dim": {"text_projection": torch.zeros(64, 16)},
        "context_length": {"positional_embedding": torch.zeros(64, 64)},
        "vocab_size": {"token_embedding.weight": torch.zeros(250, 64)},
        "transformer_layers": {key.replace("blocks.1", "blocks.2"): state[key] for key in state if key[0] == "t"},
        "vision_width": {"visual.conv1.weight": torch.zeros(128, 3, 16, 16)},
    }


def test_weights_of_other_shapes_than_the_configurations_are_refused(published, state, tmp_path):
    path = tmp_path / "weights.pt"
    for key, values in wrong_shapes(state).items():
        torch.save({**state, **values}, path)
        with refused(path, key):
            load_clip(f"open_clip:ViT-Tiny={path}")


@pytest.mark.parametrize("form", ["open_clip", "hf"])
def test_missing_and_left_over_weights_are_refused(form, published, state, tmp_path):
    def backbone(name, weights):
        if form == "hf":
            return snapshot_of_transformers(tmp_path / name, as_transformers(weights), transformers_config())
        torch.save(weights, tmp_path / name)
        return f"open_clip:ViT-Tiny={tmp_path / name}"

    without = {key: value for key, value in state.items() if key != "transformer.resblocks.1.mlp.c_fc.bias"}
    with refused("transformer.resblocks.1.mlp.c_fc.bias"):
        load_clip(backbone("missing", without))
    more = {**state, "transformer.resblocks.1.ls_1.gamma": torch.ones(64)}
    with refused("transformer.resblocks.1.ls_1.gamma"):
        load_clip(backbone("more", more))


LAYOUTS = {
    "visual.trunk.blocks.0.attn.qkv.weight": "timm",
    "text_decoder.resblocks.0.ln_1.weight": "CoCa",
    "vision_model.head.probe": "SiglipModel",
    "logit_bias": "SigLIP",
    "text.transformer.embeddings.word_embeddings.weight": "BiomedCLIP",
    "vision_model.pre_layrnorm.weight": "CLIPModel",
}


@pytest.mark.parametrize("key, layout", LAYOUTS.items())
def test_other_layouts_are_refused_by_name(key, layout, published, state, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({key: torch.zeros(1), **state}, path)
    for name in (path, f"openai:{path}", f"open_clip:ViT-Tiny={path}"):
        with refused(path, layout):
            load_clip(name)


UNSUPPORTED = {
    "timm_model_name": changed(MODEL, vision_cfg={"timm_model_name": "vit_base_patch16_siglip_224", "image_size": 224}),
    "hf_model_name": changed(MODEL, text_cfg={"hf_model_name": "roberta-base"}),
    "multimodal_cfg": changed(MODEL, multimodal_cfg={"width": 64}),
    "attentional_pool": changed(MODEL, vision_cfg={**IMAGE, "attentional_pool": True}),
    "no_causal_mask": changed(MODEL, text_cfg={**TEXT, "no_causal_mask": True}),
    "pool_type": changed(MODEL, text_cfg={**TEXT, "pool_type": "last"}),
    "mlp_ratio": changed(MODEL, vision_cfg={**IMAGE, "mlp_ratio": 4.9}),
    "act_kwargs": changed(MODEL, text_cfg={**TEXT, "act_kwargs": {"approximate": "tanh"}}),
    "norm_kwargs": changed(MODEL, vision_cfg={**IMAGE, "norm_kwargs": {"eps": 1e-6}}),
    "attention heads": changed(MODEL, vision_cfg={**IMAGE, "head_width": 80}),
    "'77'": changed(MODEL, text_cfg={**TEXT, "context_length": "77"}),
    "None": changed(MODEL, embed_dim=None),
    "250 tokens": changed(MODEL, text_cfg={**TEXT, "vocab_size": 250}),
}


@pytest.mark.parametrize("fact, config", UNSUPPORTED.items())
def test_open_clips_configurations_that_openais_model_does_not_compute_are_not_taken_for_it(fact, config):
    with refused("hub", fact):
        architectures.of_open_clip(config, "hub")


@pytest.mark.parametrize("fact", UNSUPPORTED)
def test_without_open_clip_what_only_it_computes_is_refused(fact, state, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)  # as if it was not installed
    name = snapshot_of_open_clip(tmp_path / "hub", state, UNSUPPORTED[fact])
    with refused(name, "dspt-atlas[open-clip]"):
        load_clip(name)


def test_transformers_configurations_that_openais_model_does_not_compute_are_refused(state, tmp_path):
    config = transformers_config()
    configs = {
        "siglip2": changed(config, model_type="siglip2"),
        "gelu_pytorch_tanh": transformers_config(hidden_act="gelu_pytorch_tanh"),
        "'gelu'": transformers_config(hidden_act="gelu"),  # in one of the towers only
        "layer_norm_eps 1e-06": transformers_config(layer_norm_eps=1e-6),
        "eos_token_id 3": transformers_config(eos_token_id=3),
        "7 attention heads": transformers_config(num_attention_heads=7),
        "context_length 77 instead of 64": transformers_config(max_position_embeddings=64),
        "embed_dim 32 instead of 512": {key: value for key, value in config.items() if key != "projection_dim"},
    }
    for number, (fact, wrong) in enumerate(configs.items()):
        name = snapshot_of_transformers(tmp_path / str(number), as_transformers(state), wrong)
        with refused(fact):
            load_clip(name)


def test_the_older_form_of_a_transformers_configuration_counts_as_in_transformers(state, tmp_path):
    config = transformers_config(quick=False, heads=2)
    older = {"text_config_dict": config["text_config"], "vision_config_dict": config["vision_config"]}
    new = snapshot_of_transformers(tmp_path / "new", as_transformers(state), config)
    old = snapshot_of_transformers(tmp_path / "old", as_transformers(state), {**transformers_config(), **older})
    assert weights_digest(old) == weights_digest(new)


def test_incomplete_snapshots_and_names_are_refused(state, tmp_path):
    name = snapshot_of_transformers(tmp_path / "hub", as_transformers(state), transformers_config())
    weights = tmp_path / "hub" / "pytorch_model.bin"
    with refused(weights, name):
        load_clip(weights)
    with refused(name, f"open_clip:{tmp_path / 'hub'}"):
        load_clip(tmp_path / "hub")
    with refused("open_clip_config.json", tmp_path / "hub"):
        load_clip(f"open_clip:{tmp_path / 'hub'}")
    weights.unlink()
    with refused("model.safetensors", tmp_path / "hub"):
        load_clip(name)
    (tmp_path / "hub" / "config.json").write_text("[")
    with refused("config.json", tmp_path / "hub"):
        load_clip(name)
    for wrong in ("hf:openai/clip-vit-base-patch32", "open_clip:ViT-B-32", f"open_clip:ViT-B-32={tmp_path / 'none'}"):
        with refused():
            load_clip(wrong)


def test_without_open_clip_the_known_architectures_are_listed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "open_clip", None)  # as if it was not installed
    with refused("ViT-L-14", "ViT-C-3", "dspt-atlas[open-clip]"):
        load_clip(f"open_clip:ViT-C-3={tmp_path / 'weights.pt'}")
    with refused("open_clip:ViT-B-32/laion2b_s34b_b79k", "dspt-atlas[open-clip]"):
        load_clip("open_clip:ViT-B-32/laion2b_s34b_b79k")


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_an_archive_that_computes_gelu_is_not_taken_for_openais(state, tmp_path):
    model = load_clip(next(name for name in variants(state, tmp_path) if name.endswith("1False")))
    example = (torch.randn(1, 3, 32, 32), clip.tokenize("x"))
    torch.jit.trace(model, example, check_trace=False).save(tmp_path / "gelu.pt")
    with refused(tmp_path / "gelu.pt", "GELU"):
        load_clip(tmp_path / "gelu.pt")


def input_of(backbone, *pairs):
    """INPUT of a run with a backbone; its yaml sets the interpolation, as ours do."""
    arguments = {"trainer": "CoOp", "backbone": backbone, "dataset_config_file": str(CONFIGS / "datasets/emoji.yaml")}
    return build_cfg({**arguments, "config_file": str(CONFIGS / "trainers/CoOp/rn50.yaml")}, pairs).INPUT


def test_images_follow_the_configuration_that_comes_with_the_weights(state, tmp_path, capsys):
    hub, snapshot = tmp_path / "hub", tmp_path / "snapshot"
    name = snapshot_of_transformers(hub, as_transformers(state), transformers_config())
    openais = input_of(name)
    assert tuple(openais.SIZE) == (32, 32) and openais.PIXEL_MEAN[0] == pytest.approx(0.48145466)
    images = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.2, 0.1], "resample": 2, "size": {"shortest_edge": 32}}
    (hub / "preprocessor_config.json").write_text(json.dumps(images))
    assert (input_of(name).PIXEL_MEAN, input_of(name).PIXEL_STD) == ([0.5, 0.4, 0.3], [0.3, 0.2, 0.1])

    other = snapshot_of_open_clip(snapshot, state, MODEL)
    images = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.1], "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": MODEL, "preprocess_cfg": images}
    (snapshot / "open_clip_config.json").write_text(json.dumps(config))
    assert input_of(other).PIXEL_MEAN == [0.5, 0.4, 0.3]
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and "bilinear" in notes[0] and name in notes[0] and other in notes[1]  # each once

    given = input_of(other, "INPUT.PIXEL_MEAN", "[0.1, 0.1, 0.1]")
    assert given.PIXEL_MEAN == [0.1, 0.1, 0.1]
    assert_names(capsys.readouterr().err, "INPUT.PIXEL_MEAN", "[0.1, 0.1, 0.1]", "[0.5, 0.4, 0.3]", other)
    config["preprocess_cfg"]["mean"] = [0.5]
    (snapshot / "open_clip_config.json").write_text(json.dumps(config))
    with refused(other, "mean"):
        input_of(other)


# Against the libraries themselves.


def randomised(model):
    """Let nothing be zero, one or so small that what uses it goes untested."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "positional_embedding", "position_embedding.weight", "class_embedding")):
            nn.init.normal_(parameter, std=0.05)
        elif "norm" in name or ".ln_" in name or name.startswith("ln_") or ".bn" in name:
            nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model.eval().requires_grad_(False)


class OfOpenClip:
    def __init__(self, folder, quick, resnet=False):
        open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
        config = changed(MODEL, quick_gelu=quick, vision_cfg=RESNET if resnet else IMAGE)
        self.model = randomised(open_clip.model.CLIP(**config))
        self.name = snapshot_of_open_clip(folder, self.model.state_dict(), config)
        self.embedding = self.model.token_embedding

    def texts(self, tokens):
        return self.model.encode_text(tokens)

    def images(self, images):
        return self.model.encode_image(images)


class OfTransformers:
    def __init__(self, folder, quick):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        pytest.importorskip("safetensors", reason="safetensors is not installed")
        config = transformers.CLIPConfig(**transformers_config(quick, heads=4))
        self.model = randomised(transformers.CLIPModel(config))
        self.model.save_pretrained(folder)
        self.name = f"hf:{folder}"
        self.embedding = self.model.text_model.embeddings.token_embedding

    def texts(self, tokens):
        return self.model.text_projection(self.model.text_model(input_ids=tokens).pooler_output)

    def images(self, images):
        return self.model.visual_projection(self.model.vision_model(pixel_values=images).pooler_output)


@pytest.fixture(params=["open_clip", "open_clip-quickgelu", "resnet", "hf-quickgelu", "hf"])
def library(request, tmp_path):
    kind, quick = request.param, request.param.endswith("quickgelu")
    if kind.startswith("hf"):
        return OfTransformers(tmp_path / "hub", quick)
    return OfOpenClip(tmp_path / "hub", quick, kind == "resnet")


def normalised(features):
    return features / features.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_features_and_gradients_are_the_librarys_own(library, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(clip.model.LayerNorm, "forward", nn.LayerNorm.forward)  # as published it rounds to float32
    model = load_clip(library.name).to(dtype)
    library.model.to(dtype)
    images = torch.randn(3, 3, 32, 32, dtype=dtype)
    assert distance(normalised(ImageEncoder(model)(images)), normalised(library.images(images))) < tolerance
    theirs = normalised(torch.stack([normalised(library.texts(clip.tokenize(texts))) for texts in TEXTS]).mean(0))
    assert distance(zero_shot_features(model, NAMES, TEMPLATES), theirs) < tolerance

    learner = CoOpPromptLearner(model, NAMES, 4)
    context = learner.ctx
    ours = PromptedCLIP(model, learner).encode_text()
    library.embedding.register_forward_hook(
        lambda _module, _inputs, embedded: torch.cat([embedded[:, :1], context.expand(3, -1, -1), embedded[:, 5:]], 1)
    )
    theirs = normalised(library.texts(clip.tokenize(["X X X X " + name.replace("_", " ") + "." for name in NAMES])))
    weights = torch.randn(theirs.shape, dtype=dtype)
    (gradient,), (expected,) = (torch.autograd.grad((one * weights).sum(), context) for one in (ours, theirs))
    assert distance(ours, theirs) < tolerance
    assert distance(gradient, expected) < 10 * tolerance


def test_the_table_of_architectures_is_open_clips_own():
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    for name in architectures._PUBLISHED:
        for full in (name, f"{name}-quickgelu"):
            if config := open_clip.get_model_config(full):
                assert architectures.of_open_clip(config, full) == architectures.published_architecture(full)


def test_open_clips_names_are_checked_before_anything_is_downloaded():
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    with refused("laion2b_s34b_b79k", "no-such-tag"):
        load_clip("open_clip:ViT-B-32/no-such-tag")
    with refused("open_clip:ViT-B-32-quickgelu/metaclip_400m"):
        load_clip("open_clip:ViT-B-32/metaclip_400m")
    with refused("ViT-C-3"):
        load_clip("open_clip:ViT-C-3/laion2b")
    with refused("webli", "laion2b"):
        load_clip("open_clip:ViT-B-16-SigLIP/laion2b")
