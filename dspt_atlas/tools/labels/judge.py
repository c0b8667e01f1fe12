"""Who judges labels: by default a head on frozen image features, fitted in folds, so that no image judges itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from dassl.data.transforms import build_transform
from torch import Tensor

from dspt_atlas.datasets.formats import Splits
from dspt_atlas.datasets.pitfalls import content_keys
from dspt_atlas.run.trained import probabilities, quiet
from dspt_atlas.seeds import derive_seed
from dspt_atlas.tools.labels.errors import Labels
from dspt_atlas.tools.labels.lists import all_lists, labels_of

PENALTY = 0.5  # chosen among 0.25 to 8 by planted errors of other seeds and kinds than those in docs/labels.md
STEPS = 60  # of L-BFGS at most
Predict = Callable[[Tensor, Tensor], Tensor]
Fit = Callable[[Tensor, Tensor, Tensor], Predict]


def judge_training(trainer) -> tuple[Labels, np.ndarray]:
    """Return the labels that a trainer's model learns from, and its probabilities (N, C) of them."""
    items = trainer.dm.dataset.train_x
    return labels_of(trainer.dm.dataset, Splits(items, [], [])), probabilities(trainer, items)


def judge_all(trainer, folds: int) -> tuple[Labels, np.ndarray]:
    """Return all labels of a zero-shot trainer's data set, and the cross-fitted probabilities (N, C) of them."""
    dataset, model = trainer.dm.dataset, trainer.model
    splits = all_lists(dataset, trainer.cfg)
    with quiet():
        transform = build_transform(trainer.cfg, is_train=False)
        features = [trainer.image_features(items, transform) for items in splits if items]
    labels = labels_of(dataset, splits)
    images = torch.from_numpy(np.concatenate(features))
    scale = model.clip_model.logit_scale.detach().exp().float().cpu()
    zero_shot = scale * images @ model.text_features.detach().float().cpu().T
    fold = fold_numbers(labels.given, content_keys(labels.paths), folds, trainer.cfg.SEED)
    probs = cross_fitted(standardised(images), zero_shot, torch.from_numpy(labels.given), fold)
    return labels, probs.numpy()


def fold_numbers(labels: np.ndarray, groups: list[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold of each image, (N,): every class is spread evenly, and a group lies in one fold.

    labels: (N,). groups: (N,); a group counts for the class of its first image.
    """
    generator = np.random.default_rng(derive_seed(seed, "folds"))
    first = {group: index for index, group in reversed(list(enumerate(groups)))}
    leading = generator.permutation(sorted(first.values()))
    leading = leading[np.argsort(labels[leading], kind="stable")]
    numbers = {groups[index]: place % folds for place, index in enumerate(leading)}
    return np.array([numbers[group] for group in groups])


def cross_fitted(images: Tensor, zero_shot: Tensor, labels: Tensor, fold: np.ndarray, fit: Fit | None = None) -> Tensor:
    """Return probabilities (N, C) of images, each by a model that was fitted without the image's fold.

    images: (N, d) features; zero_shot: (N, C) logits; labels and fold: (N,); fit: `fit_head`, or a function of that
    kind.
    """
    probs = torch.empty(zero_shot.shape)
    for number in np.unique(fold):
        held_out = torch.from_numpy(fold == number)
        predict = (fit or fit_head)(images[~held_out], zero_shot[~held_out], labels[~held_out])
        probs[held_out] = predict(images[held_out], zero_shot[held_out]).softmax(dim=1)
    return probs


def standardised(features: Tensor) -> Tensor:
    """Return features (N, d) around their mean, with a mean squared length of 1: a penalty then fits all backbones."""
    centred = features - features.mean(dim=0)
    return centred / centred.square().sum(dim=1).mean().sqrt()


def fit_head(images: Tensor, zero_shot: Tensor, labels: Tensor, penalty: float = PENALTY) -> Predict:
    """Return the function (images, zero-shot logits) -> logits a * zero_shot + images @ W.T.

    a and W (C, d) minimise the mean cross-entropy of the N labels + penalty / 2N * |W|^2, from zero-shot CLIP (a 1,
    W 0) on.
    """
    weights = torch.zeros(zero_shot.shape[1], images.shape[1], requires_grad=True)
    share = torch.ones((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, share], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = share * zero_shot + images @ weights.T
        loss = F.cross_entropy(logits, labels) + penalty / 2 / len(labels) * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda images, zero_shot: share.detach() * zero_shot + images @ weights.detach().T
