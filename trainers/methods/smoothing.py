"""Methods that soften the given labels: label smoothing, Tf-KD, online label smoothing."""

import torch
from torch.nn.functional import softmax

from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import fraction, positive, share
from dspt_atlas.trainers.checkpoints import saved_tensor
from dspt_atlas.trainers.declare import Method, method
from dspt_atlas.trainers.losses import cross_entropy_loss, soft_cross_entropy_loss, teacher_free_loss
from dspt_atlas.trainers.soft_labels import smooth_labels, uniform_distribution

declare("TRAINER.LS.ALPHA", 0.1, "(1 - ALPHA) one-hot + ALPHA uniform, at every epoch; Szegedy 2016", fraction())
declare("TRAINER.TFKD.ALPHA", 0.1, "weight of the virtual teacher; Yuan 2020", fraction())
declare("TRAINER.TFKD.TEMPERATURE", 20.0, "temperature of the virtual teacher", positive())
declare("TRAINER.TFKD.MULTIPLIER", 100.0, "factor of the virtual teacher's term", positive())
declare("TRAINER.OLS.A", 0.5, "weight of the given labels; online labels have the rest; Zhang 2021", share())


@method("LS")
class LS(Method):
    """Label smoothing at every epoch (Szegedy et al., CVPR 2016) with TRAINER.LS.ALPHA."""

    def criterion(self, logits, batch):
        uniform = uniform_distribution(logits.shape[1]).to(logits.device)
        return soft_cross_entropy_loss(logits, smooth_labels(batch["label"], uniform, self.cfg.TRAINER.LS.ALPHA))


@method("TFKD")
class TFKD(Method):
    """Tf-KD (Yuan et al., CVPR 2020), regularisation form: a virtual teacher that is right for every given label."""

    def criterion(self, logits, batch):
        node = self.cfg.TRAINER.TFKD
        return teacher_free_loss(logits, batch["label"], node.ALPHA, node.TEMPERATURE, node.MULTIPLIER)


@method("OLS")
class OLS(Method):
    """Online label smoothing (Zhang et al., TIP 2021): a CE + (1 - a) CE(S[y]) with a = TRAINER.OLS.A.

    Row y of S (C, C) is the mean prediction during the epoch before, over the samples of class y that were predicted
    correctly. It is uniform without such samples, and in the first epoch.
    """

    @staticmethod
    def goes_with(learner):
        """Return whether there is one prediction of each sample."""
        return learner.criterion_calls == 1

    def build_state(self):
        """Start with uniform soft labels."""
        super().build_state()
        self._class_labels = self._uniform_labels()

    def _uniform_labels(self):
        classes = self.num_classes
        return uniform_distribution(classes).expand(classes, -1).to(self.device)

    def before_epoch(self):
        """Start to collect the next soft labels."""
        super().before_epoch()
        self._sums = torch.zeros(self.num_classes, self.num_classes, device=self.device)
        self._counts = torch.zeros(self.num_classes, 1, device=self.device)

    def criterion(self, logits, batch):
        label, weight = batch["label"], self.cfg.TRAINER.OLS.A
        self._collect(logits.detach(), label)
        soft = soft_cross_entropy_loss(logits, self._class_labels[label])
        return weight * cross_entropy_loss(logits, label) + (1 - weight) * soft

    def _collect(self, logits, label):
        is_correct = (logits.argmax(dim=1) == label).to(self._sums.dtype)[:, None]  # (B, 1)
        self._sums.index_add_(0, label, is_correct * softmax(logits.float(), dim=1))
        self._counts.index_add_(0, label, is_correct)

    def finish_epoch(self):
        """Make the next epoch's soft labels, before the checkpoint is written."""
        super().finish_epoch()
        self._class_labels = torch.where(
            self._counts > 0, self._sums / self._counts.clamp(min=1), self._uniform_labels()
        )

    def extra_state(self):
        """Return this method's state for checkpoints."""
        return {**super().extra_state(), "ols_labels": self._class_labels.cpu()}

    def load_extra_state(self, state):
        """Restore the state of `extra_state`."""
        super().load_extra_state(state)
        self._class_labels = saved_tensor(state["ols_labels"], self._class_labels.shape, "soft labels").to(self.device)
