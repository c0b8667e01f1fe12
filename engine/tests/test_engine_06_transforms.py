"""CONTRACT.md, section 6.4: transforms."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from dassl.config import get_cfg_default
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.transforms.randaugment import (
    FIXMATCH_SPACE,
    OPERATIONS,
    RANDAUGMENT2_SPACE,
    RANDAUGMENT_SPACE,
    RandAugment,
)
from dassl.data.transforms.transforms import (
    AVAI_CHOICES,
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    Random2DTranslation,
)
from dassl.utils import set_random_seed


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def names(transform):
    return [type(step).__name__ for step in transform.transforms]


def test_every_name_has_its_place(image, capsys):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = [32, 32]
    train = build_transform(cfg, choices=[*reversed(AVAI_CHOICES), "normalize"])
    assert len(AVAI_CHOICES) == 18
    assert (
        names(train)
        == (
            "Random2DTranslation RandomCrop RandomResizedCrop RandomHorizontalFlip ImageNetPolicy CIFAR10Policy "
            "SVHNPolicy RandAugment RandAugmentFixMatch RandAugment2 ColorJitter RandomGrayscale RandomApply ToTensor "
            "Cutout Normalize GaussianNoise InstanceNormalization"
        ).split()
    )
    assert capsys.readouterr().out.splitlines() == [
        "Building transform_train",
        "+ random translation",
        "+ random crop (padding = 4)",
        "+ random resized crop (size=(32, 32), scale=(0.08, 1.0))",
        "+ random flip",
        "+ imagenet policy",
        "+ cifar10 policy",
        "+ svhn policy",
        "+ randaugment (n=2, m=10)",
        "+ randaugment_fixmatch (n=2)",
        "+ randaugment2 (n=2)",
        "+ color jitter (brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)",
        "+ random gray scale",
        "+ gaussian blur (kernel=21)",
        "+ to torch tensor of range [0, 1]",
        "+ cutout (n_holes=1, length=16)",
        "+ normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])",
        "+ gaussian noise (mean=0.0, std=0.15)",
        "+ instance normalization",
    ]
    for seed in range(10):  # F20
        set_random_seed(seed)
        assert train(image).shape == (3, 32, 32)
    test = build_transform(cfg, is_train=False, choices=AVAI_CHOICES)
    assert names(test) == ["Resize", "CenterCrop", "ToTensor", "Normalize", "InstanceNormalization"]


@pytest.mark.parametrize("choice", AVAI_CHOICES)
def test_every_name_works_alone(image, choice):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (24, 24)
    assert build_transform(cfg, choices=[choice])(image).shape == (3, 24, 24)


def test_default_pipelines(image, capsys):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (24, 32)
    train, test = build_transform(cfg), build_transform(cfg, is_train=False)
    assert names(train) == ["Resize", "ToTensor"]
    assert train(image).shape == (3, 24, 32)
    assert (test.transforms[0].size, test.transforms[1].size) == (32, (24, 32))
    assert test(image).shape == (3, 24, 32)
    assert "+ resize to 24x32\n" in (printed := capsys.readouterr().out)
    assert "Building transform_test\n+ resize the smaller edge to 32\n+ 24x32 center crop\n" in printed


def test_no_transform_and_unknown_names(capsys):
    cfg = get_cfg_default()
    with pytest.raises(ValueError, match=r"\[random_flip\]"):
        build_transform(cfg, choices=["random_flap"])
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None
    assert capsys.readouterr().out == "Note: no transform is applied!\n"


def test_clip_s_evaluation_pipeline_is_that_of_torchvision(image):
    from torchvision import transforms as T

    cfg = get_cfg_default()
    cfg.INPUT.INTERPOLATION = "bicubic"
    cfg.INPUT.TRANSFORMS = ["random_resized_crop", "random_flip", "normalize"]
    expected = T.Compose(
        [
            T.Resize(224, InterpolationMode.BICUBIC),
            T.CenterCrop(224),
            T.ToTensor(),
            T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD),
        ]
    )
    assert torch.equal(build_transform(cfg, is_train=False)(image), expected(image))
    train = T.Compose(
        [
            T.RandomResizedCrop((224, 224), scale=(0.08, 1.0), interpolation=InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
            *expected.transforms[2:],
        ]
    )
    built = build_transform(cfg)
    set_random_seed(3)
    first = built(image)
    set_random_seed(3)
    assert torch.equal(first, train(image))
    assert set(INTERPOLATION_MODES) == {"bilinear", "bicubic", "nearest"}


def test_own_transforms_golden_values():
    set_random_seed(1)
    holes = (Cutout(1, 4)(torch.ones(3, 16, 16)) == 0).nonzero()
    assert holes[:, 1].unique().tolist() == [3, 4, 5, 6]
    assert holes[:, 2].unique().tolist() == [9, 10, 11, 12]
    assert len(holes) == 3 * 16
    set_random_seed(1)
    plain = torch.zeros(3, 16, 16)
    altered = [number for number in range(1, 7) if not torch.equal(GaussianNoise(0, 0.15)(plain), plain)]
    assert altered == [1, 4, 5, 6]
    normalised = InstanceNormalization()(torch.arange(4.0).view(1, 2, 2))
    assert normalised.flatten().tolist() == pytest.approx([-1.1619, -0.3873, 0.3873, 1.1619], abs=5e-5)


def test_translation_draws_once_or_three_times(image):
    translate = Random2DTranslation(16, 24)
    draws = []
    for seed in range(20):
        random.seed(seed)
        reference = random.Random(seed)
        assert translate(image).size == (24, 16)
        moved = reference.uniform(0, 1) <= 0.5
        if moved:
            reference.uniform(0, 3)
            reference.uniform(0, 2)
        draws.append(moved)
        assert random.getstate() == reference.getstate()
    assert any(draws)
    assert not all(draws)


@pytest.mark.parametrize("space", [RANDAUGMENT_SPACE, RANDAUGMENT2_SPACE, FIXMATCH_SPACE])
def test_randaugment_operations_work_over_their_range(image, space):
    for name, low, high in space:
        for value in (low, (low + high) / 2, high):
            assert OPERATIONS[name](image, value).size == image.size, name
    assert ("Invert", 0, 1) not in FIXMATCH_SPACE
    with pytest.raises(ValueError, match=r"\[0, 30\].*31"):
        RandAugment(2, 31)
