"""ATLaS (arXiv 2508.17846): alternating label smoothing."""

import time

import torch
from dassl.data.transforms import build_transform

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.clip_trainer import check_choice, check_fraction, check_positive
from dspt_atlas.trainers.declare import method
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
from dspt_atlas.trainers.templates import chosen_templates

HARD_LOSSES = {"ce": cross_entropy_loss, "dspt": double_softmax_loss}


@method("ATLaS")
class ATLaS:
    """ATLaS (arXiv 2508.17846): soft labels supervise every TRAINER.ATLAS.PERIOD-th epoch, given ones the others.

    The labels are made once, before training, over the training classes; evaluation never makes them.
    """

    def check_cfg(self, cfg):
        """Raise UserError for settings out of range, and for a schedule without a soft epoch."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.ATLAS
        check_choice("TRAINER.ATLAS.SOFT_LABELS", node.SOFT_LABELS, KINDS)
        check_choice("TRAINER.ATLAS.HARD_LOSS", node.HARD_LOSS, tuple(HARD_LOSSES))
        if not 1 <= node.PERIOD <= cfg.OPTIM.MAX_EPOCH:
            raise UserError(
                f"Expected TRAINER.ATLAS.PERIOD from 1 to OPTIM.MAX_EPOCH ({cfg.OPTIM.MAX_EPOCH}), got {node.PERIOD}: "
                "no epoch would use soft labels."
            )
        check_fraction("TRAINER.ATLAS.ALPHA", node.ALPHA)
        chosen_templates(None, node.TEMPLATE)
        for key in ("CSL_TEMPERATURE", "ISL_TEMPERATURE"):
            check_positive(f"TRAINER.ATLAS.{key}", node[key])

    def before_train(self):
        """Make the soft labels and report their schedule, mean entropy (nats) and cost in seconds."""
        node, start = self.cfg.TRAINER.ATLAS, time.perf_counter()
        self._similarity = self.build_similarity().to(self.device)
        labels = torch.tensor([item.label for item in self.dm.dataset.train_x], device=self.device)
        indices = torch.arange(len(labels), device=self.device)
        entropy = mean_entropy(self._soft_labels(labels, indices))
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
        super().before_train()

    @torch.no_grad()
    def build_similarity(self):
        """Return `u`: (1, C) for ls, (C, C) by label for csl, (N, C) by training index for isl."""
        node, dataset = self.cfg.TRAINER.ATLAS, self.dm.dataset
        if node.SOFT_LABELS == "ls":
            return uniform_distribution(len(dataset.classnames))
        clip_model = self.model.clip_model
        text = zero_shot_features(clip_model, dataset.classnames, chosen_templates(dataset, node.TEMPLATE))
        if node.SOFT_LABELS == "csl":
            return class_similarity(text, node.CSL_TEMPERATURE, node.CSL_KEEP_DIAGONAL)
        images = self.image_features(dataset.train_x, build_transform(self.cfg, is_train=False))
        scale = clip_model.logit_scale.exp().item()
        return instance_similarity(torch.tensor(images, device=self.device), text, scale, node.ISL_TEMPERATURE)

    def _soft_labels(self, label, index):
        rows = {"ls": slice(None), "csl": label, "isl": index}[self.cfg.TRAINER.ATLAS.SOFT_LABELS]
        return smooth_labels(label, self._similarity[rows], self.cfg.TRAINER.ATLAS.ALPHA)

    def _is_soft(self):
        return is_soft_epoch(self.epoch + 1, self.cfg.TRAINER.ATLAS.PERIOD)

    def before_epoch(self):
        """Say which labels supervise the epoch."""
        super().before_epoch()
        node = self.cfg.TRAINER.ATLAS
        labels = f"soft labels ({node.SOFT_LABELS})" if self._is_soft() else f"given labels ({node.HARD_LOSS})"
        print(f"epoch [{self.epoch + 1}/{self.max_epoch}] supervised by {labels}")

    def loss(self, logits, batch):
        if self._is_soft():
            return soft_cross_entropy_loss(logits, self._soft_labels(batch["label"], batch["index"]))
        return HARD_LOSSES[self.cfg.TRAINER.ATLAS.HARD_LOSS](logits, batch["label"])
