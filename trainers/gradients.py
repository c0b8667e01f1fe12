"""Per-sample gradients of the losses that are compared under wrong labels."""

import torch
from torch import Tensor

from dspt_atlas.trainers.losses import cross_entropy_loss, double_softmax_loss, gce_loss, mae_loss

LOSSES = {"CE": cross_entropy_loss, "GCE": gce_loss, "MAE": mae_loss, "DSPT": double_softmax_loss}


def logit_gradients(loss, logits: Tensor, label: Tensor) -> Tensor:
    """Return each sample's own gradient dL_i/dz_i, (B, C), of a loss that is the mean over the batch of L_i(z_i, y_i).

    loss: a function of logits (B, C) and label (B,) int64, such as those of `LOSSES`. The logits do not change.
    """
    logits = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(len(logits) * loss(logits, label), logits)[0]


def logit_gradient_norms(logits: Tensor, label: Tensor) -> Tensor:
    """Return the Euclidean norms of `logit_gradients` for each of `LOSSES`, (4, B), of logits (B, C), label (B,)."""
    return torch.stack([logit_gradients(loss, logits, label).norm(dim=1) for loss in LOSSES.values()])


def prompt_gradients(model, inputs: Tensor, label: Tensor, wrong: Tensor):
    """Return logits (B, C), norms (4, B) and sums (4, 2, P) of each sample's gradient by the P prompt values.

    It needs one backward pass per sample and loss. `model`: a PromptedCLIP; inputs: images, or features if it takes
    them; wrong (B,) bool. Norms are of single samples. Sums are over rightly labelled samples, then over wrongly
    labelled ones.
    """
    parameters = [parameter for parameter in model.prompt_learner.parameters() if parameter.requires_grad]
    logits = model(inputs).logits
    norms, sums = [], []
    for loss in LOSSES.values():
        rows = logit_gradients(loss, logits.float(), label).to(logits.dtype)
        gradients = torch.stack([_flat_gradient(logits[i], rows[i], parameters) for i in range(len(rows))])  # (B, P)
        norms.append(gradients.norm(dim=1))
        sums.append(torch.stack([gradients[~wrong].sum(dim=0), gradients[wrong].sum(dim=0)]))
    return logits.detach(), torch.stack(norms), torch.stack(sums)


def _flat_gradient(logits, row, parameters):
    gradients = torch.autograd.grad(logits, parameters, row, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients]).float()
