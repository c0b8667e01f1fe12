"""The shared-prefix text encoder gives the numbers of CLIP's own forward pass over 77 positions."""

import clip
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dspt_atlas.datasets.embedded import BACKBONES, backbone_path
from dspt_atlas.trainers.clip.encoders import SharedPrefixTextEncoder, pack, shared_prefix_length, text_sequences
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, zero_shot_features
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from support.tolerance import distance

NAMES = ["dog", "yellow_duck", "Boeing 737-800", "cat", "black-and-white film camera", "St. John's wort"]
WORDS = ["bird", "great", "horned", "owl", "camera", "musical", "old", "red", "x-ray", "anti-establishment"]


def assert_same_features_and_gradients(model, learner, names, tolerance, class_chunk=0):
    ours = PromptedCLIP(model, learner, class_chunk).encode_text()
    theirs = reference.encode_prompts(model, *reference.full_prompts(model, learner.ctx, names))
    theirs = theirs / theirs.norm(dim=-1, keepdim=True)
    weights = torch.randn(theirs.shape, dtype=theirs.dtype, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((ours * weights).sum(), learner.ctx)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), learner.ctx)
    assert distance(ours, theirs) < tolerance
    assert distance(gradient, expected) < tolerance


@pytest.mark.parametrize("class_chunk", [0, 1, 2, 4, 100])
def test_features_and_gradients_are_clips_own_for_every_chunk(model, class_chunk):
    torch.manual_seed(1)
    assert_same_features_and_gradients(model, CoOpPromptLearner(model, NAMES, 5), NAMES, 1e-5, class_chunk)


def test_in_float64_the_difference_is_only_rounding(monkeypatch):
    monkeypatch.setattr(clip.model.LayerNorm, "forward", nn.LayerNorm.forward)  # as published it rounds to float32
    torch.manual_seed(0)
    model = reference.random_clip().double()
    assert_same_features_and_gradients(model, CoOpPromptLearner(model, NAMES, 5), NAMES, 1e-12)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_any_mixture_of_name_lengths(model, names, n_ctx, class_chunk):
    torch.manual_seed(1)
    assert_same_features_and_gradients(model, CoOpPromptLearner(model, names, n_ctx), names, 1e-5, class_chunk)


def test_whole_texts_equal_clips_encode_text(model):
    texts = ["a photo of a dog.", "a", "a photo of a " + "very " * 60 + "old dog.", "an itap of two guitars"]
    ours = SharedPrefixTextEncoder(model, text_sequences(texts))()[0]
    assert distance(ours, model.encode_text(clip.tokenize(texts))) < 1e-5


def test_zero_shot_features_are_the_mean_of_normalised_templates(model):
    templates = ["a photo of a {}.", "{}", "a drawing of the {} on paper"]
    texts = [[template.format(name.replace("_", " ")) for name in NAMES] for template in templates]
    features = torch.stack([model.encode_text(clip.tokenize(one)) for one in texts])
    expected = (features / features.norm(dim=-1, keepdim=True)).mean(0)
    expected = expected / expected.norm(dim=-1, keepdim=True)
    assert distance(zero_shot_features(model, NAMES, templates), expected) < 1e-5


def test_no_tensor_of_77_tokens_is_made_and_the_frozen_weights_collect_no_gradient(model):
    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            results = result if isinstance(result, (tuple, list)) else [result]
            seen.update(size for value in results if isinstance(value, torch.Tensor) for size in value.shape)
            return result

    seen = set()
    learner = CoOpPromptLearner(model, NAMES, 5)
    prompted = PromptedCLIP(model, learner)
    with Shapes():
        prompted.encode_text().sum().backward()
    assert 77 not in seen and max(seen) < 1000
    assert learner.ctx.grad is not None and all(p.grad is None for p in model.parameters())


def test_under_bf16_autocast_the_result_is_within_its_rounding(model):
    torch.manual_seed(1)
    learner = CoOpPromptLearner(model, NAMES, 5)
    prompted = PromptedCLIP(model, learner, class_chunk=2)
    exact, features = prompted.encode_text(), torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, logits = prompted.encode_text(), prompted(features).logits
    assert rounded.dtype == logits.dtype == torch.float32
    assert 0 < distance(rounded, exact) < 0.05
    (gradient,) = torch.autograd.grad(rounded[:, 0].sum(), learner.ctx)
    (expected,) = torch.autograd.grad(exact[:, 0].sum(), learner.ctx)
    assert distance(gradient, expected) < 0.1


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=6), min_size=1, max_size=5))
def test_the_shared_prefix_is_common_and_leaves_every_class_a_token(sequences):
    length = shared_prefix_length(sequences)
    assert length < min(map(len, sequences))
    assert all(sequence[:length] == sequences[0][:length] for sequence in sequences)
    longer = {tuple(sequence[: length + 1]) for sequence in sequences}
    assert len(longer) > 1 or length + 1 == min(map(len, sequences))


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=200))
def test_packs_hold_every_class_once_and_waste_little(lengths):
    packs, size = pack(lengths, 17, 512)
    assert sorted(index for members in packs for index in members) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in members) <= size for members in packs)
    assert (len(packs) - 1) * size <= 2 * sum(lengths)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_on_the_embedded_backbones(backbone):
    torch.manual_seed(1)
    model = load_clip(backbone_path(backbone))
    assert_same_features_and_gradients(model, CoOpPromptLearner(model, NAMES, 16), NAMES, 1e-5, class_chunk=4)


@pytest.mark.slow
def test_at_the_size_of_vit_b_16():
    torch.manual_seed(0)
    model = reference.random_clip(32, 1, 64, 16, 512, 12, 512)
    assert_same_features_and_gradients(model, CoOpPromptLearner(model, NAMES, 16), NAMES, 1e-5, class_chunk=4)
