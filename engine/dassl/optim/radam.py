"""Rectified Adam (Liu et al., ICLR 2020) with decoupled weight decay."""

import torch

__all__ = ["RAdam"]


class RAdam(torch.optim.RAdam):
    """torch's RAdam; weight decay is applied to the weights, not to the gradient."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=True)
