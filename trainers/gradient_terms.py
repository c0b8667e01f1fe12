"""The gradients of a step's two terms: their share, and a scale that gives a method cross-entropy's gradient."""

import math

import torch

from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import TRAINING, declare
from dspt_atlas.trainers.losses import cross_entropy_loss

declare(
    "TRAINER.MATCH_CE_GRADIENT",
    False,
    "scale the method's term so that its gradient norm at the first step is cross-entropy's; ours, in no paper",
    needs=TRAINING,
)


class GradientTerms:
    """Gradient norms by the learned parameters of criterion and regulariser, for TRAIN.GRADIENT_SHARE.

    With TRAINER.MATCH_CE_GRADIENT the criterion is scaled by |g(CE)| / |g(criterion)|, both at the run's first step.
    The weights of regularisers are tuned to cross-entropy; the gradients of DSPT and MAE are smaller.
    """

    def __init__(self, trainer):
        self._trainer = trainer
        self._scale = None  # of the criterion
        self.reset()

    def reset(self):
        """Start an epoch."""
        self._norms = None

    def measured(self, criterion, regulariser, output, batch):
        """Return (criterion, regulariser) of a step, the criterion scaled if a configuration asks for it."""
        cfg = self._trainer.cfg
        if cfg.TRAINER.MATCH_CE_GRADIENT:
            if self._scale is None:
                self._scale = self._matching_scale(criterion, output, batch)
            criterion = self._scale * criterion
        if cfg.TRAIN.GRADIENT_SHARE and self._norms is None:
            self._norms = self._norm(criterion), None if regulariser is None else self._norm(regulariser)
        return criterion, regulariser

    def _matching_scale(self, criterion, output, batch):
        by_cross_entropy = self._trainer.label_loss(
            output, batch, lambda logits, batch: cross_entropy_loss(logits, batch["label"])
        )
        wanted, given = self._norm(by_cross_entropy), self._norm(criterion)
        if not (given > 0 and math.isfinite(wanted / given)):
            raise UserError(
                "TRAINER.MATCH_CE_GRADIENT needs a gradient of the method at the first step, but its norm is "
                f"{given:g} (cross-entropy's is {wanted:g}): set it to False, or choose another method or seed."
            )
        print(f"The method's term is scaled by {wanted / given:.6g} (TRAINER.MATCH_CE_GRADIENT)")
        return wanted / given

    def _norm(self, term):
        """Return the Euclidean norm of a term's gradient by all learned parameters; the graph is kept."""
        if not term.requires_grad:
            return 0.0
        learned = [p for p in self._trainer.model.prompt_learner.parameters() if p.requires_grad]
        scaler = self._trainer.scaler
        factor = 1.0 if scaler is None else float(scaler.scale(torch.ones((), device=term.device)))
        gradients = torch.autograd.grad(factor * term, learned, retain_graph=True, allow_unused=True)
        squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
        return math.sqrt(sum(square.item() for square in squares)) / factor

    def summary(self):
        """Return {"gradient_share": norms of criterion and regulariser (None without), criterion's share}, or {}."""
        if self._norms is None:
            return {}
        criterion, regulariser = self._norms
        total = criterion + (regulariser or 0.0)
        share = criterion / total if total > 0 else None
        return {"gradient_share": {"criterion": criterion, "regulariser": regulariser, "share": share}}

    def state(self):
        """Return what a checkpoint keeps."""
        return {} if self._scale is None else {"criterion_scale": self._scale}

    def load(self, state):
        """Restore what `state` returned; raises UserError for a scale that is not a positive number."""
        self._scale = state.get("criterion_scale")
        is_number = isinstance(self._scale, float) and 0 < self._scale < math.inf
        if self._scale is not None and not is_number:
            raise UserError(f"The checkpoint cannot be used: its criterion_scale is {self._scale!r}.")
