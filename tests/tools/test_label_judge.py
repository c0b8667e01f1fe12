"""The cross-fitted judge: no image judges itself, folds are even, planted errors are found without other knowledge."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dspt_atlas.run.trained import open_run
from dspt_atlas.tools.labels.command import label_errors
from dspt_atlas.tools.labels.errors import auroc, normalized_margin
from dspt_atlas.tools.labels.judge import cross_fitted, fit_head, fold_numbers, standardised
from dspt_atlas.tools.labels.lists import all_lists

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=40).map(np.array)


def memorising(images, zero_shot, labels):
    """Return a judge that is sure of every image that it has seen, and knows nothing of others."""
    seen = {tuple(image): label for image, label in zip(images.tolist(), labels.tolist(), strict=True)}

    def predict(images, zero_shot):
        logits = torch.zeros(zero_shot.shape)
        for row, image in enumerate(images.tolist()):
            if tuple(image) in seen:
                logits[row, seen[tuple(image)]] = 100
        return logits

    return predict


@given(LABELS, st.integers(2, 6), st.integers(0, 99), st.integers(1, 40))
def test_no_image_and_no_copy_of_it_judges_itself(labels, folds, seed, contents):
    groups = [str(index % contents) for index in range(len(labels))]  # images of equal content
    images = torch.tensor([[float(group)] for group in groups])
    fold = fold_numbers(labels, groups, folds, seed)
    probs = cross_fitted(images, torch.zeros(len(labels), 5), torch.from_numpy(labels), fold, memorising)
    assert torch.allclose(probs, torch.full(probs.shape, 0.2))


@given(LABELS, st.integers(2, 6), st.integers(0, 99))
def test_folds_have_equal_shares_of_each_class_and_are_those_of_the_seed(labels, folds, seed):
    groups = [*map(str, range(len(labels)))]
    fold = fold_numbers(labels, groups, folds, seed)
    assert (fold == fold_numbers(labels, groups, folds, seed)).all() and set(fold) <= set(range(folds))
    for own in (labels >= 0, *(labels == label for label in np.unique(labels))):
        counts = np.bincount(fold[own], minlength=folds)
        assert (
            counts.max() - counts.min() <= 1
        )  # so a class of one image lies in one fold, and its judge knows no other


def planted(seed=0, per_class=30, classes=4, width=8):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=generator)
    clean = torch.arange(classes).repeat_interleave(per_class)
    images = centres[clean] + 0.5 * torch.randn(len(clean), width, generator=generator)
    given = clean.clone()
    given[::5] = (given[::5] + 1) % classes
    return standardised(images), given.numpy(), clean.numpy()


def test_planted_errors_are_found_where_zero_shot_knows_nothing():
    images, given, clean = planted()
    fold = fold_numbers(given, [*map(str, range(len(given)))], 5, 1)
    probs = cross_fitted(images, torch.zeros(len(given), 4), torch.from_numpy(given), fold).numpy()
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert auroc(given != clean, normalized_margin(probs, given)) > 97


def test_the_head_is_the_minimum_of_its_formula():
    images, given, _ = planted(per_class=10)
    zero_shot, labels = torch.randn(len(given), 4, generator=torch.Generator().manual_seed(1)), torch.from_numpy(given)
    predict, penalty = fit_head(images, zero_shot, labels, penalty=4.0), 4.0 / len(labels)
    none = torch.zeros(1, 4)
    weights = (predict(torch.eye(images.shape[1]), none.expand(images.shape[1], 4))).T
    share = float(predict(torch.zeros(1, images.shape[1]), torch.ones(1, 4))[0, 0])

    def loss(weights, share):
        logits = (share * zero_shot + images @ weights.T).double()
        own = -logits.log_softmax(dim=1)[torch.arange(len(labels)), labels].mean()
        return float(own + penalty / 2 * weights.double().square().sum())

    least, generator = loss(weights, share), torch.Generator().manual_seed(2)
    for _ in range(20):
        step = 0.01 * torch.randn(weights.shape, generator=generator)
        assert loss(weights + step, share) > least
    assert loss(weights, share + 0.05) > least and loss(weights, share - 0.05) > least


def test_features_of_any_mean_and_size_are_standardised_alike():
    images = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    ours = standardised(images)
    assert torch.allclose(ours.mean(dim=0), torch.zeros(6), atol=1e-6)
    assert torch.allclose(standardised(3 * images + 7), ours, atol=1e-5)
    assert ours.square().sum(dim=1).mean() == pytest.approx(1)


def test_all_images_of_a_few_shot_run_are_judged_with_the_labels_that_it_had(train_tiny):
    noise = ["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5]
    folder = train_tiny("CoOp", "DATASET.NUM_SHOTS", 2, *noise, "OPTIM.MAX_EPOCH", 1)
    samples = json.loads((folder / "noise.json").read_text())["samples"]
    wrong = {sample["path"] for sample in samples if sample["clean"] != sample["given"]}
    frame = label_errors(folder, folds=3)
    assert frame["split"].value_counts().to_dict() == {"train": 24, "val": 8, "test": 16}
    found = frame.query("is_wrong == 1")
    assert len(wrong) == 4 == len(found) and all(path.endswith(tuple(wrong)) for path in found["path"])
    assert len(samples) == 8 and not {*map(str, frame["is_wrong"])} - {"0", "1"} and set(found["split"]) == {"train"}
    trainer = open_run(folder)
    assert [len(items) for items in all_lists(trainer.dm.dataset, trainer.cfg)] == [24, 8, 16]
    again = label_errors(folder, folds=3)
    assert frame.equals(again)


def test_a_run_on_base_classes_judges_these(tiny_base_run):
    frame = label_errors(tiny_base_run)
    assert len({*frame["given_label"]}) == 2 and len(frame) == 24


def test_a_run_on_listed_classes_judges_these_by_their_names(train_tiny, tiny_noisy_run):
    names = open_run(tiny_noisy_run).dm.dataset.classnames
    listed = ["DATASET.SUBSAMPLE_CLASSES", "new", "DATASET.BASE_CLASSES", names[::2]]
    folder = train_tiny("CoOp", "OPTIM.MAX_EPOCH", 1, *listed)
    dataset, frame = open_run(folder).dm.dataset, label_errors(folder, folds=2)
    given = dict(zip(frame["path"], frame["given_label"], strict=True))
    assert {*given.values()} == {*names[1::2]} == {*dataset.classnames}
    assert {item.impath: item.classname for item in (*dataset.train_x, *dataset.test)}.items() <= given.items()
