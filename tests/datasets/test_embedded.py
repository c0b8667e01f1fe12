"""The embedded data sets and backbones that come with the package."""

from pathlib import Path

import pytest
import torch

from dspt_atlas.datasets import embedded
from dspt_atlas.trainers.clip.model import backbone_input_size, load_clip
from support.refusals import refused


def test_both_backbones_load_by_path_and_share_their_text_tower(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path))
    resnet, vit = (load_clip(embedded.backbone_path(name)) for name in ("EmojiRN", "EmojiViT"))
    for name in ("EmojiRN", "EmojiViT"):
        assert backbone_input_size(embedded.backbone_path(name)) == 64
    text = {
        name: value for name, value in resnet.state_dict().items() if not name.startswith(("visual.", "logit_scale"))
    }
    assert text and all(torch.equal(value, vit.state_dict()[name]) for name, value in text.items())
    assert resnet.encode_image(torch.zeros(1, 3, 64, 64)).shape == vit.encode_image(torch.zeros(1, 3, 64, 64)).shape


def test_an_unknown_backbone_is_refused():
    with refused("EmojiRN, EmojiViT", "'EmojiXL'"):
        embedded.backbone_path("EmojiXL")


@pytest.mark.parametrize("dataset", embedded.EMBEDDED)
def test_a_data_set_unpacks_once_and_has_its_classes(dataset, tmp_path, monkeypatch, load_dataset):
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path))
    data = load_dataset(dataset.__name__, tmp_path)
    assert data.num_classes == (44 if dataset is embedded.EmojiObjects else 60)
    assert len(set(data.classnames)) == data.num_classes
    assert len(data.test) >= 10 * data.num_classes
    folders = sorted((tmp_path / "embedded").iterdir())
    load_dataset(dataset.__name__, tmp_path)
    assert sorted((tmp_path / "embedded").iterdir()) == folders and len(folders) == 1


def damaged_image(folder):
    path = sorted(folder.rglob("*.webp"))[3]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return path


def lost_image(folder):
    path = sorted(folder.rglob("*.webp"))[3]
    path.unlink()
    return path


def swapped_image(folder):
    first, second = sorted(folder.rglob("*.webp"))[:2]
    first.write_bytes(second.read_bytes())
    return first


def other_labels(folder):
    path = folder / "split.json"
    path.write_text(path.read_text().replace(",1,", ",0,", 1))
    return path


@pytest.mark.parametrize("damage", [damaged_image, lost_image, swapped_image, other_labels])
def test_an_unpacked_file_that_is_not_the_archives_is_unpacked_again(damage, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path))
    folder = embedded.unpack(embedded.DATA / "emoji_flat.zip")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    path = damage(folder)
    assert not path.exists() or path.read_bytes() != before[path]
    (folder / "foreign.txt").write_text("mine")
    monkeypatch.setattr(embedded, "_compared", set())  # as in another process
    capsys.readouterr()
    embedded.unpack(embedded.DATA / "emoji_flat.zip")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before | {
        folder / "foreign.txt": b"mine"
    }
    assert str(folder) in capsys.readouterr().out


def test_a_damaged_backbone_in_the_cache_is_made_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path))
    expected = load_clip(embedded.backbone_path("EmojiViT")).state_dict()
    path = Path(embedded.backbone_path("EmojiViT"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64  # within a tensor: torch reads it without a word
    path.write_bytes(data)
    monkeypatch.setattr(embedded, "_compared", set())
    found = load_clip(embedded.backbone_path("EmojiViT")).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert str(path) in capsys.readouterr().out
    assert len(list(path.parent.glob("EmojiViT*"))) == 1


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(blocked))
    with refused("emoji.zip", blocked, "DSPT_ATLAS_CACHE"):
        embedded.unpack(embedded.DATA / "emoji.zip")
    with refused("EmojiViT", blocked, "DSPT_ATLAS_CACHE"):
        embedded.backbone_path("EmojiViT")
