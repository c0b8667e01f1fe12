"""Methods with only a loss that is robust to wrong labels: DSPT, GCE, MAE."""

import torch

from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import fraction, one_of, positive
from dspt_atlas.trainers.declare import Method, method
from dspt_atlas.trainers.losses import double_softmax_loss, gce_loss, mae_loss

SECOND_SOFTMAX = {"fp32": None, "bf16": torch.bfloat16}  # None: that of the first softmax, float32 or float64

declare("TRAINER.DSPT.TEMPERATURE", 1.0, "of the second softmax; another value is not DSPT", positive())
declare("TRAINER.DSPT.PRECISION", "fp32", "of the second softmax; bf16 is not DSPT", one_of(*SECOND_SOFTMAX))
declare("TRAINER.GCE.Q", 0.7, "q in (1 - p_y^q) / q; Zhang & Sabuncu 2018", fraction())


@method("DSPT")
class DoubleSoftmax(Method):
    """DSPT (arXiv 2605.00591): the double-softmax loss; TRAINER.DSPT holds ablations of its second softmax."""

    def criterion(self, logits, batch):
        node = self.cfg.TRAINER.DSPT
        return double_softmax_loss(logits, batch["label"], node.TEMPERATURE, SECOND_SOFTMAX[node.PRECISION])


@method("MAE")
class MAE(Method):
    """Mean absolute error (NLPrompt's PromptMAE)."""

    def criterion(self, logits, batch):
        return mae_loss(logits, batch["label"])


@method("GCE")
class GCE(Method):
    """Generalised cross-entropy with TRAINER.GCE.Q (PTNL, ICCV 2023)."""

    def criterion(self, logits, batch):
        return gce_loss(logits, batch["label"], q=self.cfg.TRAINER.GCE.Q)
