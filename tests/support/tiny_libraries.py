"""Tiny random CLIPs of open_clip and transformers, with their tokenizers, saved as people have them."""

import json

import pytest
import torch
from torch import nn

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
IMAGE = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16}
WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "dog",
    "yellow",
    "duck",
    "boeing",
    "7",
    "3",
    "8",
    "0",
    "-",
    ".",
    ",",
    "x",
    "b",
    "l",
    "u",
    "w",
]


def register_eva():
    """Let timm have a tiny tower of EVA02's kind, with rotary positions, by the name of test_eva."""
    from timm.models import eva, is_model, register_model

    def test_eva(pretrained=False, **options):
        sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2}
        kind = {"qkv_fused": False, "mlp_ratio": 2.0, "swiglu_mlp": True, "scale_mlp": True, "use_rot_pos_emb": True}
        options = {key: value for key, value in options.items() if key in ("num_classes", "global_pool")}
        return eva.Eva(**sizes, **kind, ref_feat_shape=(2, 2), **options)

    test_eva.__module__ = eva.__name__
    if not is_model("test_eva"):
        register_model(test_eva)


def timm_vision(name, pool, proj=None, size=160):
    return {"image_size": size, "timm_model_name": name, "timm_pool": pool, "timm_proj": proj}


def siglip_text(vocabulary, **more):
    own = {"context_length": 64, "vocab_size": vocabulary, "no_causal_mask": True, "proj_bias": True}
    own |= {"pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "hf_tokenizer_name": "timm/none"}
    return {**TEXT, **own, "tokenizer_kwargs": {"clean": "canonicalize"}, **more}


def _letters():
    return sorted({letter for word in WORDS for letter in word} | set("abcdefghijklmnopqrstuvwxyz0123456789"))


def t5_tokenizer(folder):
    """Save a sentencepiece tokenizer of SigLIP's kind; return its number of tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((f"▁{word}", -2.0) for word in WORDS)]
    pieces += [("▁", -4.0), *((letter, -5.0) for letter in _letters())]
    own = Tokenizer(models.Unigram([*pieces], unk_id=0))
    own.pre_tokenizer = pre_tokenizers.Metaspace()
    own.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return _saved(PreTrainedTokenizerFast(tokenizer_object=own, eos_token="</s>", pad_token="</s>"), folder)


def gemma_tokenizer(folder):
    """Save a tokenizer of SigLIP 2's kind, in which a word after another one has a token of its own."""
    from tokenizers import Tokenizer, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *_letters(), "▁d", "▁p", "▁o", "▁x"]
    merges = [("▁", "d"), ("▁", "p"), ("▁", "o"), ("▁", "x")]
    own = Tokenizer(models.BPE({word: i for i, word in enumerate(vocabulary)}, merges, unk_token="<unk>"))
    own.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    own.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return _saved(PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<eos>", pad_token="<pad>"), folder)


def bert_tokenizer(folder):
    """Save a tokenizer of BERT's kind."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = _letters()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys([*WORDS, *letters]), *(f"##{one}" for one in letters)]
    own = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    own.normalizer, own.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _saved(PreTrainedTokenizerFast(tokenizer_object=own, **marks), folder)


def _saved(tokenizer, folder):
    folder.mkdir(exist_ok=True)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def randomised(model):
    """Let nothing be zero, one or so small that what uses it goes untested."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "pos" in name or "token" in name or "probe" in name or "latent" in name:
            is_scale = "norm" in name or ".ln_" in name or name.startswith("ln_") or ".bn" in name
            is_scale = is_scale and name.endswith("weight")
            nn.init.normal_(parameter, mean=1.0 if is_scale else 0.0, std=0.3 if is_scale else 0.05)
        elif parameter.std() < 0.05:
            nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


class OfOpenClip:
    """A model of open_clip from a configuration, in `folder` with what lies there already."""

    def __init__(self, folder, config, start=1):
        self.open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
        folder.mkdir(exist_ok=True)
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        source = f"local-dir:{folder}"
        built = json.loads(json.dumps(config))
        if "hf_model_name" in config["text_cfg"]:
            built["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
        options = {key: value for key, value in built.items() if key != "custom_text"}
        kind = self.open_clip.coca_model.CoCa if "multimodal_cfg" in config else self.open_clip.model.CustomTextCLIP
        self.model = randomised(kind(**options))
        self.state = {key: value.clone() for key, value in self.model.state_dict().items()}
        torch.save(self.state, folder / "open_clip_pytorch_model.bin")
        self.tokenizer = self.open_clip.get_tokenizer(source)
        self.name, self.folder, self.start, self.config = f"open_clip:{folder}", folder, start, config
        self.size = config["vision_cfg"]["image_size"]
        text = self.model.text
        self.embedding = getattr(text, "token_embedding", None) or text.transformer.get_input_embeddings()

    def texts(self, texts):
        features = self.model.text(self.tokenizer(texts))
        return features[0] if isinstance(features, tuple) else features

    def images(self, images):
        features = self.model.visual(images)
        return features[0] if isinstance(features, tuple) else features


class OfTransformers:
    """Transformers' SiglipModel."""

    start = 0

    def __init__(self, folder, vocabulary):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        pytest.importorskip("safetensors", reason="safetensors is not installed")
        tower = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 2}
        text = {**tower, "vocab_size": vocabulary, "max_position_embeddings": 64, "projection_size": 64}
        config = transformers.SiglipConfig(
            text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 16}
        )
        self.model = randomised(transformers.SiglipModel(config))
        self.model.save_pretrained(folder)
        self.state = {key: value.clone() for key, value in self.model.state_dict().items()}
        if (folder / "tokenizer.json").is_file():
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.name, self.folder, self.size = f"hf:{folder}", folder, 32
        self.embedding = self.model.text_model.embeddings.token_embedding

    def texts(self, texts):
        ids = self.tokenizer(texts, padding="max_length", max_length=64, return_tensors="pt").input_ids
        return self.model.get_text_features(ids).pooler_output

    def images(self, images):
        return self.model.get_image_features(images).pooler_output
