"""Methods that are a loss robust to wrong labels, and nothing else: DSPT, GCE, MAE."""

import torch

from dspt_atlas.trainers.clip_trainer import check_choice, check_fraction, check_positive
from dspt_atlas.trainers.declare import method
from dspt_atlas.trainers.losses import double_softmax_loss, gce_loss, mae_loss

SECOND_SOFTMAX = {"fp32": None, "bf16": torch.bfloat16}  # None: the first softmax's, float32 at least


@method("DSPT")
class DoubleSoftmax:
    """DSPT (arXiv 2605.00591): the double-softmax loss; TRAINER.DSPT holds ablations of its second softmax."""

    def check_cfg(self, cfg):
        """Raise UserError for settings out of range."""
        super().check_cfg(cfg)
        check_positive("TRAINER.DSPT.TEMPERATURE", cfg.TRAINER.DSPT.TEMPERATURE)
        check_choice("TRAINER.DSPT.PRECISION", cfg.TRAINER.DSPT.PRECISION, tuple(SECOND_SOFTMAX))

    def loss(self, logits, batch):
        node = self.cfg.TRAINER.DSPT
        return double_softmax_loss(logits, batch["label"], node.TEMPERATURE, SECOND_SOFTMAX[node.PRECISION])


@method("MAE")
class MAE:
    """Mean absolute error (NLPrompt's PromptMAE)."""

    def loss(self, logits, batch):
        return mae_loss(logits, batch["label"])


@method("GCE")
class GCE:
    """Generalised cross-entropy with TRAINER.GCE.Q (PTNL, ICCV 2023)."""

    def check_cfg(self, cfg):
        """Raise UserError for Q out of range."""
        super().check_cfg(cfg)
        check_fraction("TRAINER.GCE.Q", cfg.TRAINER.GCE.Q)

    def loss(self, logits, batch):
        return gce_loss(logits, batch["label"], q=self.cfg.TRAINER.GCE.Q)
