"""NLPrompt (CVPR 2025): optimal transport finds the clean labels; they get cross-entropy, the others MAE."""

from typing import Any

import torch

from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import positive
from dspt_atlas.trainers.declare import method
from dspt_atlas.trainers.losses import partitioned_loss
from dspt_atlas.trainers.methods.training_set import TrainingSetMixin

declare("TRAINER.NLPROMPT.REG", 0.01, "entropic regularisation of the optimal transport; CVPR 2025", positive())


def transport_plan(log_probs, reg=0.01):
    """Return the entropic optimal transport of samples to classes, numpy (N, C) float64: both marginals are uniform.

    argmin over plans P of sum P (-log p) + reg sum P log P; log_probs: (N, C). Source: NLPrompt (CVPR 2025). With so
    small a reg, Sinkhorn's iterations converge too slowly (docs/methods.md). So the semi-dual of the same problem is
    solved with L-BFGS.
    """
    import ot

    cost = -log_probs.T.double().cpu().numpy()  # (C, N): the semi-dual has one variable per row
    classes, samples = (ot.unif(size) for size in cost.shape)
    plan: Any = ot.smooth.smooth_ot_semi_dual(classes, samples, cost, reg, reg_type="negentropy", numItermax=1000)
    return plan.T


@method("NLPrompt")
class NLPrompt(TrainingSetMixin):
    """NLPrompt (CVPR 2025) with TRAINER.NLPROMPT.REG: a sample is clean if the transport agrees with its label.

    The transport is solved at the start of each epoch over all training images under the test transform.
    """

    def before_epoch(self):
        """Tell clean from noisy labels."""
        super().before_epoch()
        plan = transport_plan(self.training_logits().log_softmax(dim=1), self.cfg.TRAINER.NLPROMPT.REG)
        self._is_clean = torch.from_numpy(plan.argmax(axis=1)).to(self.device) == self._train_labels
        self.report_partition(self._is_clean)

    def criterion(self, logits, batch):
        return partitioned_loss(logits, batch["label"], self._is_clean[batch["index"]])
