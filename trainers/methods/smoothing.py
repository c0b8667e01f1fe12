"""Methods that soften the given labels: label smoothing, Tf-KD, online label smoothing."""

import torch
from torch.nn.functional import softmax

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip_trainer import check_fraction, check_positive
from dspt_atlas.trainers.declare import method
from dspt_atlas.trainers.losses import cross_entropy_loss, soft_cross_entropy_loss, teacher_free_loss
from dspt_atlas.trainers.soft_labels import smooth_labels, uniform_distribution
from dspt_atlas.trainers.trainer import saved_tensor


@method("LS")
class LS:
    """Label smoothing at every epoch (Szegedy et al., CVPR 2016) with TRAINER.LS.ALPHA."""

    def check_cfg(self, cfg):
        """Raise UserError for ALPHA out of range."""
        super().check_cfg(cfg)
        check_fraction("TRAINER.LS.ALPHA", cfg.TRAINER.LS.ALPHA)

    def loss(self, logits, batch):
        uniform = uniform_distribution(logits.shape[1]).to(logits.device)
        return soft_cross_entropy_loss(logits, smooth_labels(batch["label"], uniform, self.cfg.TRAINER.LS.ALPHA))


@method("TFKD")
class TFKD:
    """Tf-KD (Yuan et al., CVPR 2020), regularisation form: a virtual teacher that is right for every given label."""

    def check_cfg(self, cfg):
        """Raise UserError for settings out of range."""
        super().check_cfg(cfg)
        check_fraction("TRAINER.TFKD.ALPHA", cfg.TRAINER.TFKD.ALPHA)
        for key in ("TEMPERATURE", "MULTIPLIER"):
            check_positive(f"TRAINER.TFKD.{key}", cfg.TRAINER.TFKD[key])

    def loss(self, logits, batch):
        node = self.cfg.TRAINER.TFKD
        return teacher_free_loss(logits, batch["label"], node.ALPHA, node.TEMPERATURE, node.MULTIPLIER)


@method("OLS")
class OLS:
    """Online label smoothing (Zhang et al., TIP 2021): a CE + (1 - a) CE(S[y]) with a = TRAINER.OLS.A.

    Row y of S (C, C) is the mean prediction, during the epoch before, of the samples of class y that were predicted
    correctly; uniform where there were none, and in the first epoch.
    """

    def check_cfg(self, cfg):
        """Raise UserError for A out of range."""
        super().check_cfg(cfg)
        if not 0 <= cfg.TRAINER.OLS.A <= 1:
            raise UserError(f"Expected TRAINER.OLS.A in [0, 1], got {cfg.TRAINER.OLS.A}.")

    def before_train(self):
        """Start from uniform soft labels, or from those of the checkpoint."""
        self._class_labels = self._uniform_labels()
        super().before_train()

    def _uniform_labels(self):
        classes = self.num_classes
        return uniform_distribution(classes).expand(classes, -1).to(self.device)

    def before_epoch(self):
        """Start to collect the next soft labels."""
        super().before_epoch()
        self._sums = torch.zeros(self.num_classes, self.num_classes, device=self.device)
        self._counts = torch.zeros(self.num_classes, 1, device=self.device)

    def loss(self, logits, batch):
        label, weight = batch["label"], self.cfg.TRAINER.OLS.A
        self._collect(logits.detach(), label)
        soft = soft_cross_entropy_loss(logits, self._class_labels[label])
        return weight * cross_entropy_loss(logits, label) + (1 - weight) * soft

    def _collect(self, logits, label):
        is_correct = (logits.argmax(dim=1) == label).to(self._sums.dtype)[:, None]  # (B, 1)
        self._sums.index_add_(0, label, is_correct * softmax(logits.float(), dim=1))
        self._counts.index_add_(0, label, is_correct)

    def _finish_epoch(self):
        """Make the next epoch's soft labels, before the checkpoint is written."""
        super()._finish_epoch()
        self._class_labels = torch.where(
            self._counts > 0, self._sums / self._counts.clamp(min=1), self._uniform_labels()
        )

    def extra_state(self):
        """Return what our engine saves in checkpoints for us."""
        return {**super().extra_state(), "ols_labels": self._class_labels.cpu()}

    def load_extra_state(self, state):
        """Take back what `extra_state` returned."""
        super().load_extra_state(state)
        self._class_labels = saved_tensor(state["ols_labels"], self._class_labels.shape, "soft labels").to(self.device)
