"""Augmented views that depend only on seed, view and image, and descriptions by which transforms are recognised."""

import functools
import importlib
import inspect
import random
import sys
from contextlib import contextmanager
from enum import Enum
from types import FunctionType
from typing import Any

import numpy as np
import torch
from dassl.data import data_manager
from torch.utils.data import Dataset

from dspt_atlas.datasets.images import read_image
from dspt_atlas.errors import UserError
from dspt_atlas.seeds import derive_seed

_MODULE_INTERNALS = frozenset(vars(torch.nn.Module()))
_REBUILDABLE = ("torchvision.transforms.", "dassl.data.transforms.")


class ViewDataset(Dataset):
    """Images under a random transform that depends on (seed, view, index) only, not on workers or history.

    Epoch `e` shows view `e % views`. With 0 views it is always the same view (a test transform). Items need impath,
    label and domain. A sample is dassl's dict of label, domain, impath, index, img. Raises UserError for an unreadable
    image.
    """

    def __init__(self, items, transform, seed, views):
        if views < 0:
            raise UserError(
                f"Expected a number of views of at least 0, got {views}: set INPUT.VIEWS, 0 for one per epoch."
            )
        self.data_source, self.transform, self.seed, self.views = items, transform, seed, views
        self.set_epoch(0)

    def set_epoch(self, epoch):
        """Show the view of this epoch from now on; running workers of a loader do not notice it."""
        self.view = epoch % self.views if self.views else 0

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, index):
        item = self.data_source[index]
        image = self.image(index, self.view)
        return {"label": item.label, "domain": item.domain, "impath": item.impath, "index": index, "img": image}

    def image(self, index, view):
        """Return image `index` after the transform, under a view."""
        image = read_image(self.data_source[index].impath)
        with seeded(derive_seed(self.seed, "views", view, index)):
            return self.transform(image)


def dassl_views(cfg, items, transform=None, is_train=False):
    """Return the `dataset_wrapper` by which dassl's loaders make a ViewDataset of items."""
    views = (cfg.INPUT.VIEWS or cfg.OPTIM.MAX_EPOCH) if is_train else 0
    if is_train:  # for its side effects: the wrapper of NLPrompt's Dassl makes labels wrong if its keys ask for it
        data_manager.DatasetWrapper(cfg, items, transform=transform, is_train=True)
    return ViewDataset(items, transform, cfg.SEED, views)


@contextmanager
def seeded(seed):
    """Run a block with the global generators of torch (CPU), random and numpy seeded; then restore their states."""
    # torch.manual_seed would also visit every GPU.
    generator = torch.default_generator
    states = generator.get_state(), random.getstate(), np.random.get_state()
    generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def describe_transform(transform):
    """Return a JSON value that differs if any class, function or setting inside a transform differs.

    Every attribute counts, also those that a transform's repr leaves out. Code is known by its import path. Raises
    UserError for a lambda or local function, and for an object whose settings cannot be seen.
    """
    if isinstance(transform, Enum):
        return {"enum": _import_path(type(transform)), "value": transform.value}
    if transform is None or isinstance(transform, (bool, int, float, str)):
        return transform
    if isinstance(transform, (list, tuple)):
        return [describe_transform(part) for part in transform]
    if isinstance(transform, dict):
        return {"dict": [[describe_transform(key), describe_transform(value)] for key, value in transform.items()]}
    if isinstance(transform, (torch.Tensor, np.ndarray, np.generic)):
        return {"array": np.asarray(transform).tolist()}
    if isinstance(transform, (torch.dtype, torch.device)):
        return str(transform)
    if isinstance(transform, functools.partial):
        return {"partial": describe_transform([transform.func, transform.args, transform.keywords])}
    if isinstance(transform, (type, FunctionType)):
        return {"code": _import_path(transform)}
    return {"class": _import_path(type(transform)), "args": _settings(transform)}


def _settings(transform):
    if not hasattr(transform, "__dict__"):
        raise UserError(
            f"Expected a transform whose settings are attributes, got {transform!r}: wrap it in a class, or set "
            "INPUT.CACHE none."
        )
    settings = {name: value for name, value in vars(transform).items() if name not in _MODULE_INTERNALS}
    if isinstance(transform, torch.nn.Module):
        settings.update(transform._modules, **transform._buffers, **transform._parameters)
    return {name: describe_transform(settings[name]) for name in sorted(settings)}


def _import_path(code):
    found = sys.modules.get(code.__module__)
    for name in code.__qualname__.split("."):
        found = getattr(found, name, None)
    if found is not code:
        raise UserError(
            f"Expected a transform made of importable functions and classes, got {code.__qualname__} in "
            f"{code.__module__}: define it at the top level of a module, or set INPUT.CACHE none."
        )
    return f"{code.__module__}:{code.__qualname__}"


def rebuild_transform(description):
    """Return the transform of `describe_transform`; raises UserError for classes besides torchvision's and dassl's."""
    transform = _rebuild(description)
    if describe_transform(transform) != description:
        raise UserError("The constructors of the transform do not take all of its settings.")
    return transform


def _rebuild(description):
    if isinstance(description, list):
        return [_rebuild(part) for part in description]
    if not isinstance(description, dict):
        return description
    kind, path = next(iter(description.items()))
    if kind not in ("class", "enum") or not path.startswith(_REBUILDABLE):
        raise UserError(f"The transform holds {path}, which is not a class of torchvision's or dassl's transforms.")
    module, _, name = path.partition(":")
    try:
        found: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        if kind == "enum":
            return found(description["value"])
        args = description["args"]
        return found(**{key: _rebuild(args[key]) for key in inspect.signature(found).parameters if key in args})
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"The transform's part {path} cannot be built with these versions ({error}).") from error
