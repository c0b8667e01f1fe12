"""JoAPR (CVPR 2024): a Gaussian mixture of losses tells clean from noisy labels; both are refurbished and mixed."""

import copy
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, default_collate

from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import at_least
from dspt_atlas.seeds import derive_seed
from dspt_atlas.trainers.checkpoints import saved_tensor
from dspt_atlas.trainers.declare import method
from dspt_atlas.trainers.losses import (
    cross_entropy_loss,
    prediction_entropy,
    soft_cross_entropy_loss,
    uniform_divergence,
)
from dspt_atlas.trainers.methods.training_set import TrainingSetMixin
from dspt_atlas.trainers.soft_labels import smooth_labels

declare("TRAINER.JOAPR.WARMUP", 1, "epochs before the first partition; one value for all data sets is our choice")
declare("TRAINER.JOAPR.ALPHA_1", 0.5, "weight of the negative entropy during warm-up; our choice", at_least(0))
declare("TRAINER.JOAPR.ALPHA_2", 0.5, "weight of KL(uniform || mean prediction) afterwards; our choice", at_least(0))

HISTORY = 5  # epochs whose losses are averaged
FIRST_THRESHOLD = 0.5
MIXTURE = {"n_components": 2, "max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
SHARPNESS = 2.0
MIXUP_BETA = 0.001


def crossing(weights, means, variances):
    """Return the point between their means where two weighted Gaussians are equal, or -inf; each argument is a pair."""
    (weight, other_weight), (mean, other_mean), (variance, other_variance) = weights, means, variances
    # The logarithms of both densities, subtracted, as a polynomial in x.
    polynomial = [
        0.5 / other_variance - 0.5 / variance,
        mean / variance - other_mean / other_variance,
        0.5 * other_mean**2 / other_variance
        - 0.5 * mean**2 / variance
        + np.log(weight / other_weight)
        + 0.5 * np.log(other_variance / variance),
    ]
    between = [
        root.real
        for root in np.roots(polynomial)
        if np.isreal(root) and min(mean, other_mean) <= root.real <= max(mean, other_mean)
    ]
    return min(between, default=-np.inf)


def split_by_mixture(losses, threshold, seed):
    """Return is_clean (N,) bool and the posterior (N,) of the low-mean component of a two-Gaussian mixture of losses.

    losses: (N,) float64. A sample is clean if its loss lies below the crossing of the two weighted Gaussians, or if its
    posterior exceeds the threshold. If they do not cross between their means, the posterior alone decides. Source:
    JoAPR.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    mixture: Any = GaussianMixture(**MIXTURE, random_state=seed % 2**32)
    # Several threads add in any order, and a resumed run would differ.
    with warnings.catch_warnings(), threadpool_limits(1, "openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        posteriors = mixture.fit(losses[:, None]).predict_proba(losses[:, None])
    posterior = posteriors[:, mixture.means_[:, 0].argmin()]
    edge = crossing(mixture.weights_, mixture.means_[:, 0], mixture.covariances_[:, 0, 0])
    return (losses < edge) | (posterior > threshold), posterior


def sharpen(labels):
    """Return labels (B, C) squared and normalised: each row has sum 1."""
    powers = labels**SHARPNESS
    return powers / powers.sum(dim=1, keepdim=True)


def paired_batches(is_clean, batch_size, seed):
    """Return an epoch's batches, lists of indices: up to batch_size clean samples, then as many noisy ones.

    Each set is shuffled; the larger one is seen once, the smaller one starts again. is_clean: (N,) bool, numpy.
    """
    generator = np.random.default_rng(seed)
    sets = []
    for chosen in (is_clean, ~is_clean):
        indices = generator.permutation(np.flatnonzero(chosen)).tolist()
        sets.append([indices[start : start + batch_size] for start in range(0, len(indices), batch_size)])
    steps = max(map(len, sets))
    return [[index for batches in sets if batches for index in batches[step % len(batches)]] for step in range(steps)]


def mix_up(images, labels, seed):
    """Return lambda x + (1 - lambda) x' for images and for labels (B, C), where x' is x shuffled.

    lambda ~ Beta(0.001, 0.001), or 1 - lambda if that is larger. Images (B, 3, H, W) are mixed as in the paper. Cached
    features (B, d) are mixed and normalised again, which is our choice.
    """
    generator = np.random.default_rng(seed)
    share = generator.beta(MIXUP_BETA, MIXUP_BETA)
    share = max(share, 1 - share)
    order = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    images, labels = (share * mixed + (1 - share) * mixed[order] for mixed in (images, labels))
    return (images if images.dim() == 4 else F.normalize(images, dim=1)), labels


class TwoViews(Dataset):
    """A training set that gives a whole batch for a list of indices; img2 is img under another view."""

    def __init__(self, dataset):
        self._first, self._second = dataset, copy.copy(dataset)

    def __len__(self):
        return len(self._first)

    def set_epoch(self, epoch):
        """Show this epoch's view, and the view that comes VIEWS // 2 later."""
        self._first.set_epoch(epoch)
        self._second.set_epoch(epoch + self._first.views // 2)

    def __getitem__(self, indices):
        first, second = (_fetch(dataset, indices) for dataset in (self._first, self._second))
        return {**first, "img2": second["img"]}


def _fetch(dataset, indices):
    if hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(indices)
    return default_collate([dataset[index] for index in indices])


@method("JoAPR")
class JoAPR(TrainingSetMixin):
    """JoAPR (CVPR 2024) with TRAINER.JOAPR: WARMUP epochs, then partition, refurbished labels and MixUp.

    The partition is made at the start of each epoch from the losses of all training images under the test transform.
    """

    @staticmethod
    def goes_with(learner):
        """Return whether all rows of logits are those of the mixed images."""
        return TrainingSetMixin.goes_with(learner) and learner.criterion_calls == 1

    def check_cfg(self, cfg):
        """Raise UserError for settings out of range, and for runs without a partition or a second view."""
        super().check_cfg(cfg)
        node, epochs = cfg.TRAINER.JOAPR, cfg.OPTIM.MAX_EPOCH
        if not 0 <= node.WARMUP < epochs:
            raise UserError(
                f"Expected TRAINER.JOAPR.WARMUP from 0 to {epochs - 1}, below OPTIM.MAX_EPOCH, got {node.WARMUP}: "
                "no epoch would refurbish labels."
            )
        if (cfg.INPUT.VIEWS or epochs) < 2:
            raise UserError(
                "JoAPR averages predictions over two views, but INPUT.VIEWS gives one: set it to 2 or more."
            )

    def build_state(self):
        """Start without losses."""
        super().build_state()
        self._losses, self._threshold = [], FIRST_THRESHOLD
        self._two_views = TwoViews(self.train_loader_x.dataset)

    def _refurbishes(self):
        return self.epoch >= self.cfg.TRAINER.JOAPR.WARMUP

    def _seed(self, *names):
        return derive_seed(self.cfg.SEED, "joapr", self.epoch, *names)

    def before_epoch(self):
        """After warm-up, tell clean from noisy labels, and load a batch of both at every step."""
        super().before_epoch()
        if not self._refurbishes():
            return
        is_clean = self._divide()
        loader, batch_size = self.train_loader_x, self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        self._two_views.set_epoch(self.epoch)
        self.train_loader_x = DataLoader(
            self._two_views,
            batch_size=None,
            sampler=paired_batches(is_clean, batch_size, self._seed("batches")),
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
        )

    def _divide(self):
        """Add this epoch's losses to the history; return is_clean (N,), numpy, and keep the weights of the labels."""
        logits = self.training_logits()
        losses = F.cross_entropy(logits, self._train_labels, reduction="none") + prediction_entropy(logits)
        low, high = losses.aminmax()
        normalised = (losses - low) / (high - low).clamp(min=torch.finfo(losses.dtype).tiny)
        self._losses = [*self._losses, normalised.cpu()][-HISTORY:]
        mean = torch.stack(self._losses).double().mean(dim=0).numpy()
        is_clean, posterior = split_by_mixture(mean, self._threshold, self._seed("mixture"))
        self._threshold = 1 - is_clean.mean().item()
        self._weights = torch.from_numpy(np.where(is_clean, posterior, 0)).to(logits)  # (N,)
        self.report_partition(torch.from_numpy(is_clean).to(self.device))
        return is_clean

    def parse_batch_train(self, batch):
        """Return img, label, index and impath; after warm-up img is mixed and `soft` (B, C) holds its labels."""
        parsed = super().parse_batch_train(batch)
        if not self._refurbishes():
            return parsed
        both = torch.cat([parsed["img"], batch["img2"].to(self.device, non_blocking=True)])
        with torch.no_grad(), self.autocast():
            prediction = torch.stack(self.model(both).logits.softmax(dim=1).chunk(2)).mean(dim=0)  # (B, C)
        soft = self._refurbish(parsed["label"], parsed["index"], prediction)
        images, soft = mix_up(parsed["img"], soft, self._seed("mixup", self.batch_idx))
        return {**parsed, "img": images, "soft": soft}

    def _refurbish(self, label, index, prediction):
        weight = self._weights[index][:, None]  # (B, 1), 0 for noisy samples
        if self.epoch > self.cfg.TRAINER.JOAPR.WARMUP:
            weight = weight * prediction.gather(1, label[:, None])
        return sharpen(smooth_labels(label, prediction, 1 - weight))

    def criterion(self, logits, batch):
        node = self.cfg.TRAINER.JOAPR
        if self._refurbishes():
            return soft_cross_entropy_loss(logits, batch["soft"]) + node.ALPHA_2 * uniform_divergence(logits)
        return cross_entropy_loss(logits, batch["label"]) - node.ALPHA_1 * prediction_entropy(logits).mean()

    def extra_state(self):
        """Return this method's state for checkpoints."""
        return {**super().extra_state(), "joapr": {"losses": self._losses, "threshold": self._threshold}}

    def load_extra_state(self, state):
        """Restore the state of `extra_state`."""
        super().load_extra_state(state)
        losses, self._threshold = state["joapr"]["losses"], state["joapr"]["threshold"]
        self._losses = [saved_tensor(each, self._train_labels.shape, "losses") for each in losses]
        if not 0 <= self._threshold <= 1:
            raise UserError(f"The checkpoint cannot be used: its threshold is {self._threshold}, not from 0 to 1.")
