"""Optimisers by name."""

import warnings

import torch
from torch import nn

from dassl.utils import InvalidInputError

from .radam import RAdam

__all__ = ["AVAI_OPTIMS", "build_optimizer"]

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(model, optim_cfg, param_groups=None):
    """Return the torch optimiser that `optim_cfg` (the OPTIM node) describes.

    model: a module, or an iterable of parameters or groups; ignored if `param_groups` is given.
    Raises ValueError for an unknown name and for impossible settings, TypeError for STAGED_LR without a module.
    """
    if optim_cfg.NAME not in AVAI_OPTIMS:
        raise InvalidInputError(f"optim must be one of {AVAI_OPTIMS}, but got {optim_cfg.NAME}")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn(
                "staged_lr will be ignored, if you need to use staged_lr, please bind it with param_groups yourself.",
                stacklevel=2,
            )
    elif optim_cfg.STAGED_LR:
        param_groups = _staged_groups(model, optim_cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    try:
        return _build(optim_cfg.NAME, param_groups, optim_cfg)
    except ValueError as error:
        raise InvalidInputError(f"OPTIM does not describe a possible {optim_cfg.NAME}: {error}") from error


def _build(name, param_groups, optim_cfg):
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    adam = {"betas": (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2), "eps": optim_cfg.get("ADAM_EPS", 1e-8), **common}
    if name == "sgd":
        return torch.optim.SGD(
            param_groups,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(param_groups, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common)
    if name == "radam":
        return RAdam(param_groups, **adam)
    if name == "adamw":
        return torch.optim.AdamW(param_groups, **adam)
    return torch.optim.Adam(param_groups, amsgrad=name == "amsgrad", **adam)


def _staged_groups(model, optim_cfg):
    """Return two groups: first everything else at LR x BASE_LR_MULT, then NEW_LAYERS at LR."""
    if not isinstance(model, nn.Module):
        raise TypeError("When staged_lr is True, model given to build_optimizer() must be an instance of nn.Module")
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = optim_cfg.NEW_LAYERS
    new_layers = [new_layers] if isinstance(new_layers, str) else list(new_layers)
    children = dict(model.named_children())
    unknown = [layer for layer in new_layers if layer not in children]
    if not new_layers or unknown:
        warnings.warn(
            f"STAGED_LR: OPTIM.NEW_LAYERS is {new_layers}, but no layer is called {unknown}. All other layers learn at "
            f"LR x {optim_cfg.BASE_LR_MULT}. The layers are {list(children)}.",
            stacklevel=3,
        )
    base = [param for name, child in children.items() if name not in new_layers for param in child.parameters()]
    base += model.parameters(recurse=False)
    new = [param for name, child in children.items() if name in new_layers for param in child.parameters()]
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
