"""A CLIP with OpenAI's text tower and any image tower: what learners and the cache get of it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import transforms as T

from dspt_atlas.datasets.images import read_image
from dspt_atlas.trainers.clip.encoders import ImageEncoder
from dspt_atlas.trainers.clip.model import fingerprint, load_clip
from dspt_atlas.trainers.clip.openai import with_image_tower
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, zero_shot_features
from dspt_atlas.trainers.clip.towers import ImageTower
from dspt_atlas.trainers.features.cached import frozen_features
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.ivlp import IVLPPromptLearner
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner
from support.refusals import refused
from support.tolerance import distance

NAMES = ["dog", "yellow_duck"]


class _Convolutions(nn.Module):
    """A tower whose names mean something else than in OpenAI's ResNet: bn1 comes before conv1."""

    def __init__(self):
        super().__init__()
        self.bn1, self.conv1, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 32)
        nn.init.normal_(self.bn1.running_mean)

    def forward(self, images):
        return self.head(self.conv1(self.bn1(images)).relu().mean((2, 3)))


@pytest.fixture
def text(tiny_clip_path):
    state = torch.load(tiny_clip_path, weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith("visual.")}


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return ImageTower(_Convolutions(), "Convolutions", 24, 32)


@pytest.fixture
def model(text, tower):
    return with_image_tower(text, tower, 1, True, "mixed").eval().requires_grad_(False)


def test_text_is_openais_and_images_are_the_towers(model, tower, tiny_clip_path):
    openais = load_clip(tiny_clip_path)
    assert torch.equal(zero_shot_features(model, NAMES, ["{}"]), zero_shot_features(openais, NAMES, ["{}"]))
    images = torch.randn(2, 3, 24, 24)
    output = PromptedCLIP(model, CoOpPromptLearner(model, NAMES, 2))(images)
    assert torch.equal(output.image_features, F.normalize(tower(images), dim=-1))


def test_its_fingerprint_has_weights_and_facts(model):
    images = {fingerprint(model)}
    for facts in ((), ("size 24",), ("size 32",)):
        model.visual = ImageTower(_Convolutions(), "Other", 24, 32, facts)
        images.add(fingerprint(model))
    assert len(images) == 4


def test_its_cached_features_are_its_own(model, tiny_dataset, tmp_path):
    paths = sorted((tiny_dataset / "train").rglob("*.png"))[:3]
    items = [type("Item", (), {"impath": str(path), "label": 0, "domain": 0, "classname": "x"}) for path in paths]
    transform = T.Compose([T.Resize((24, 24)), T.ToTensor()])
    found = frozen_features(model, items, transform, cache_dir=tmp_path, max_bytes=2**30)
    expected = model.visual(torch.stack([transform(read_image(path)) for path in paths]))
    assert distance(torch.tensor(found), F.normalize(expected, dim=-1)) < 1e-6


def test_it_takes_no_image_prompts_and_says_which_tower(model):
    for make in (
        lambda: MaPLePromptLearner(model, NAMES, 2, prompt_depth=2),
        lambda: IVLPPromptLearner(model, NAMES, 2, 2, depth_text=2, depth_vision=2),
        lambda: ImageEncoder(model)(torch.zeros(1, 3, 24, 24), [torch.zeros(2, 8)]),
    ):
        with refused("Convolutions"):
            make()
    assert not IVLPPromptLearner(model, NAMES, 2, depth_text=2, depth_vision=0).prompts_images


def test_towers_that_do_not_fit_are_refused(text, tower):
    wrong = copy.copy(tower)
    wrong.output_dim = 16
    with refused("mixed", 16, 32):
        with_image_tower(text, wrong, 1, True, "mixed")
    with refused("mixed", "ln_final.bias"):
        with_image_tower({key: text[key] for key in text if key != "ln_final.bias"}, tower, 1, True, "mixed")
