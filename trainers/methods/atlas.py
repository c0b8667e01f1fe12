"""ATLaS (arXiv 2508.17846): alternating label smoothing."""

import time

import torch
from dassl.data.transforms import build_transform

from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import Need, declare
from dspt_atlas.keys.ranges import fraction, one_of, positive
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.declare import Method, method
from dspt_atlas.trainers.losses import cross_entropy_loss, double_softmax_loss, soft_cross_entropy_loss
from dspt_atlas.trainers.soft_labels import (
    KINDS,
    class_similarity,
    instance_similarity,
    is_soft_epoch,
    mean_entropy,
    smooth_labels,
    uniform_distribution,
)
from dspt_atlas.trainers.templates import OWN, chosen_templates

_ROWS = {"ls": "", "csl": "label", "isl": "index"}  # the key of a batch that says the row of `u`
HARD_LOSSES = {"ce": cross_entropy_loss, "dspt": double_softmax_loss}


def _soft_labels(*kinds):
    words = f"TRAINER.ATLAS.SOFT_LABELS {' or '.join(kinds)}"
    return Need(lambda run: run.cfg.TRAINER.ATLAS.SOFT_LABELS in kinds, words)


_HARD_EPOCHS = Need(
    lambda run: run.cfg.TRAINER.ATLAS.PERIOD > 1,
    "TRAINER.ATLAS.PERIOD above 1, because with 1 each epoch has soft labels",
)
declare("TRAINER.ATLAS.PERIOD", 2, "K: every K-th epoch uses soft labels; our choice")
declare("TRAINER.ATLAS.ALPHA", 0.1, "weight of the soft part; our choice", fraction())
declare("TRAINER.ATLAS.SOFT_LABELS", "ls", "the kind of soft labels (paper)", one_of(*KINDS))
declare(
    "TRAINER.ATLAS.CSL_TEMPERATURE",
    0.1,
    "of the similarity of classes; our choice",
    positive(),
    needs=_soft_labels("csl"),
)
declare("TRAINER.ATLAS.CSL_KEEP_DIAGONAL", True, "a class is similar to itself; our choice", needs=_soft_labels("csl"))
declare(
    "TRAINER.ATLAS.ISL_TEMPERATURE",
    1.0,
    "relative to CLIP's own; our choice",
    positive(),
    needs=_soft_labels("isl"),
)
declare(
    "TRAINER.ATLAS.TEMPLATE", "", "hand-written prompt; empty: the data set's own", needs=_soft_labels("csl", "isl")
)
declare("TRAINER.ATLAS.HARD_LOSS", "ce", "of the hard epochs; dspt is ours", one_of(*HARD_LOSSES), needs=_HARD_EPOCHS)


@method("ATLaS")
class ATLaS(Method):
    """ATLaS (arXiv 2508.17846): soft labels teach in every TRAINER.ATLAS.PERIOD-th epoch, given labels in the others.

    The labels are made once, before training, over the training classes; evaluation never makes them.
    """

    @classmethod
    def reads_templates(cls, cfg):
        """Return whether the learner or the soft labels read them."""
        node, of_learner = cfg.TRAINER.ATLAS, getattr(super(), "reads_templates", lambda cfg: True)  # a fork's has none
        return of_learner(cfg) or (node.SOFT_LABELS != "ls" and node.TEMPLATE in OWN)

    def check_cfg(self, cfg):
        """Raise UserError for a schedule without a soft epoch, and for templates that cannot be filled."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.ATLAS
        if not 1 <= node.PERIOD <= cfg.OPTIM.MAX_EPOCH:
            raise UserError(
                f"Expected TRAINER.ATLAS.PERIOD from 1 to OPTIM.MAX_EPOCH ({cfg.OPTIM.MAX_EPOCH}), got {node.PERIOD}: "
                "no epoch would use soft labels."
            )
        chosen_templates(None, node.TEMPLATE)

    def build_state(self):
        """Make the soft labels and report their schedule, mean entropy (nats) and cost in seconds."""
        super().build_state()
        node, start = self.cfg.TRAINER.ATLAS, time.perf_counter()
        self._similarity = self.build_similarity().to(self.device)
        labels = torch.tensor([item.label for item in self.dm.dataset.train_x], device=self.device)
        indices = torch.arange(len(labels), device=self.device)
        entropy = mean_entropy(self._soft_labels(self._rows({"label": labels, "index": indices}), labels))
        epochs = range(1, self.max_epoch + 1)
        self.report["atlas"] = {
            "soft_labels": node.SOFT_LABELS,
            "period": node.PERIOD,
            "alpha": node.ALPHA,
            "hard_loss": node.HARD_LOSS,
            "schedule": ["soft" if is_soft_epoch(epoch, node.PERIOD) else "hard" for epoch in epochs],
            "mean_entropy": entropy,
            "seconds": time.perf_counter() - start,
        }
        seconds = self.report["atlas"]["seconds"]
        print(f"ATLaS: {node.SOFT_LABELS} labels made in {seconds:.1f} s, mean entropy {entropy:.3f} nats")

    @torch.no_grad()
    def build_similarity(self):
        """Return `u`: (1, C) for ls, (C, C) by label for csl, (N, C) by training index for isl."""
        node, dataset = self.cfg.TRAINER.ATLAS, self.dm.dataset
        if node.SOFT_LABELS == "ls":
            return uniform_distribution(len(dataset.classnames))
        clip_model = self.model.clip_model
        text = zero_shot_features(clip_model, prompt_names(dataset), chosen_templates(dataset, node.TEMPLATE))
        if node.SOFT_LABELS == "csl":
            return class_similarity(text, node.CSL_TEMPERATURE, node.CSL_KEEP_DIAGONAL)
        images = self.image_features(dataset.train_x, build_transform(self.cfg, is_train=False))
        scale = clip_model.logit_scale.exp().item()
        return instance_similarity(torch.tensor(images, device=self.device), text, scale, node.ISL_TEMPERATURE)

    def _rows(self, batch):
        """Return which rows of `u` belong to the samples of a batch."""
        key = _ROWS[self.cfg.TRAINER.ATLAS.SOFT_LABELS]
        return batch[key] if key else slice(None)

    def _soft_labels(self, rows, label):
        return smooth_labels(label, self._similarity[rows], self.cfg.TRAINER.ATLAS.ALPHA)

    def _is_soft(self):
        return is_soft_epoch(self.epoch + 1, self.cfg.TRAINER.ATLAS.PERIOD)

    def before_epoch(self):
        """Print which labels supervise the epoch."""
        super().before_epoch()
        node = self.cfg.TRAINER.ATLAS
        labels = f"soft labels ({node.SOFT_LABELS})" if self._is_soft() else f"given labels ({node.HARD_LOSS})"
        print(f"epoch [{self.epoch + 1}/{self.max_epoch}] supervised by {labels}")

    def criterion(self, logits, batch):
        rows = self._rows(batch)  # in hard epochs too: a fork's batch without them is refused before the first step
        if self._is_soft():
            return soft_cross_entropy_loss(logits, self._soft_labels(rows, batch["label"]))
        return HARD_LOSSES[self.cfg.TRAINER.ATLAS.HARD_LOSS](logits, batch["label"])
