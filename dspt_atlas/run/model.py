"""A run's model for one's own program: classes and probabilities of images, text features; `dspt_atlas.load`."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pandas as pd
import torch
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from torchvision.transforms.functional import to_pil_image

from dspt_atlas.datasets.images import read_image
from dspt_atlas.datasets.prompts import check_prompts
from dspt_atlas.environment import host_kind
from dspt_atlas.errors import UserError, one_line
from dspt_atlas.paths import expand_home
from dspt_atlas.run.state import read_state
from dspt_atlas.run.trained import open_for_prediction, process_unchanged, quiet, run_config
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.trainer import PromptTrainer
from dspt_atlas.trainers.words import NearestWord, nearest_words
from dspt_atlas.trainers.zeroshot import ZeroshotCLIP, ZeroshotModel


def load(run: str | os.PathLike, epoch: int | None = None, device: str | torch.device | None = None) -> Model:
    """Return the model of a run's folder; its data set is not needed.

    epoch: of the checkpoint, None for the best or newest. device: None for a GPU if there is one and the run may use
    it. Raises UserError, a ValueError.
    """
    with process_unchanged():  # prompts start at random before they are loaded
        folder = expand_home(run)
        model = Model(open_for_prediction(folder, epoch), run_config(folder)["MODEL"]["BACKBONE"]["NAME"])
        model.result = (read_state(folder).result or {}) if epoch is None else {}
    return model if device is None else model.to(device)


class Model:
    """What a run learned. Its methods may be called in any thread; results are on the CPU, without gradients.

    An image is a path, a Pillow image, or a tensor of pixels (3, H, W) or (1, H, W): uint8, or floats from 0 to 1.
    Several images are a sequence, an iterator, a tensor (B, 3, H, W), or a torch Dataset, whose samples are images,
    tuples that begin with one, or dicts with "img" or "image". `result` is the content of the run's result.json, {} for
    another epoch, other classes or an unfinished run.
    """

    def __init__(self, trainer, backbone: str):
        self._trainer = self._trained = trainer
        self.backbone = backbone
        self.result: dict[str, Any] = {}
        self._lock, self._family = threading.Lock(), WeakSet()
        with quiet():
            self._transform: Any = build_transform(trainer.cfg, is_train=False)
        self._enter()

    def _enter(self):
        self._family.add(self)  # models that share a CLIP
        self._trainer.model.eval()
        self._keep_text()

    def _keep_text(self):
        if isinstance(model := self._trainer.model, PromptedCLIP):
            with self._trainer.autocast():
                model.keep_text()

    @property
    def classnames(self) -> list[str]:
        """The class names, in the order of the probabilities."""
        return list(self._trainer.dm.dataset.classnames)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._trainer.device

    @property
    def accuracy(self) -> float | None:
        """The accuracy in percent on the run's own test images, None if they were not judged."""
        return self.result.get("accuracy")

    @property
    def history(self) -> list[dict[str, Any]]:
        """What each epoch of the training recorded: loss, accuracy on its batches, seconds and so on."""
        return self.result.get("history", [])

    def to(self, device: str | torch.device) -> Model:
        """Move it, and all models by `with_classes` that share its CLIP, to a device; return it.

        Raises UserError for a device that is not here; then nothing has moved.
        """
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError) as error:  # the second: torch was built without it
            raise UserError(
                f"Expected a device that is here, such as cpu, got {device!r}: {one_line(error)}"
            ) from error
        with quiet(), self._lock:
            for model in list(self._family):
                model._trainer.move(torch.device(device))
                model._keep_text()
        return self

    def with_classes(self, classnames: Iterable[str]) -> Model:
        """Return a model of other classes, with the prompts that were learned and the same CLIP.

        Raises UserError for names that prompts cannot tell apart, and if each class has prompts of its own (CSC).
        """
        if isinstance(classnames, str):
            raise UserError(f"Expected a list of class names, got the text {classnames!r}: put it into a list.")
        names = list(classnames)
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise UserError(f"Expected class names as texts, got {wrong[0]!r}.")
        if not names:
            raise UserError("Expected at least one class name, got none.")
        check_prompts(dict(enumerate(names)), "the given list")
        other, trainer = copy.copy(self), copy.copy(self._trained)
        other.result = {}
        with quiet(), self._lock:
            trainer.dm = SimpleNamespace(dataset=replace(trainer.dm.dataset, classnames=names, prompt_words={}))
            trainer.model = trainer.model_of(names)
            other._trainer = trainer
            other._enter()
        return other

    @torch.no_grad()
    def text_features(self, classnames: Iterable[str] | None = None) -> Tensor:
        """Return the L2-normalised text features (C, d), float32, of its classes or of others.

        Raises UserError if they depend on the image (CoCoOp), and as `with_classes` does.
        """
        model = self if classnames is None else self.with_classes(classnames)
        with self._lock:
            return model._trainer.model.text_features.detach().float().cpu().clone()

    def nearest_words(self, count: int = 5) -> pd.DataFrame:
        """Return the words nearest to each learned context vector, by Euclidean distance of token embeddings.

        Columns: classname ("" for all classes), token, rank, word, distance. Empty if no context of text is learned.
        Raises UserError for a count below 1; more than the vocabulary has are not there.
        """
        check_count(count, "words")
        with self._lock:
            rows = nearest_words(self._trainer.model, self.classnames, count)
        return pd.DataFrame(rows, columns=list(NearestWord._fields))

    def linear_head(self) -> dict[str, Any]:
        """Return the model as a linear head on the backbone's image features f: logits = s f / |f| @ weight.T.

        weight (C, d) are the text features, `logit_scale` is s, both float32; further `classnames`, `backbone` and
        `preprocessing` (size, interpolation, mean, std). Raises UserError where such a head is not the model.
        """
        trainer = self._trainer
        cfg, model, name = trainer.cfg, trainer.model, trainer.cfg.TRAINER.NAME
        learner = getattr(model, "prompt_learner", None)
        if getattr(learner, "prompts_images", False):
            reason = "it learned prompts in the image tower, so its image features are not the backbone's"
        elif getattr(learner, "conditional", False):
            reason = "its text features depend on the image"
        elif type(model) not in (PromptedCLIP, ZeroshotModel) or not _is_plain(trainer):
            reason = "it classifies by more than text features"
        elif "instance_norm" in cfg.INPUT.TRANSFORMS:
            reason = "its images are normalised one by one"
        else:
            is_normalised, images = "normalize" in cfg.INPUT.TRANSFORMS, cfg.INPUT
            return {
                "weight": self.text_features(),
                "logit_scale": model.clip_model.logit_scale.detach().float().exp().cpu(),
                "classnames": self.classnames,
                "backbone": self.backbone,
                "preprocessing": {
                    "size": list(images.SIZE),
                    "interpolation": images.INTERPOLATION,
                    "mean": list(images.PIXEL_MEAN) if is_normalised else [0.0] * 3,
                    "std": list(images.PIXEL_STD) if is_normalised else [1.0] * 3,
                },
            }
        raise UserError(f"A linear head on frozen image features is not {name}, because {reason}: use dspt_atlas.load.")

    def preprocess(self, image) -> Tensor:
        """Return the tensor (3, S, S) of an image that the model takes, as in the run's tests; raises UserError."""
        if isinstance(image, Tensor):
            image = picture_of(image)
        elif not isinstance(image, (str, os.PathLike, Image.Image)):
            raise UserError(
                f"Expected an image (a path, a Pillow image or a tensor of pixels), got {type(image).__name__}: "
                "give a list or a torch Dataset of images."
            )
        return self._transform(read_image(image))

    def _preprocessed(self, image):
        shape = (3, *self._trainer.cfg.INPUT.SIZE)
        if isinstance(image, Tensor) and image.is_floating_point() and image.shape == shape:
            return image
        came = f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise UserError(f"Expected tensors of model.preprocess, float of shape {shape}, got {came}.")

    def predict(self, images, batch_size: int | None = None) -> list[str]:
        """Return the most probable class of each image."""
        names = self.classnames
        return [names[label] for label in self.probabilities(images, batch_size).argmax(dim=1).tolist()]

    def probabilities(self, images, batch_size: int | None = None, preprocessed: bool = False) -> Tensor:
        """Return the softmax of the logits of images, (B, C) float32.

        batch_size: None for that of the run's tests. preprocessed: the images are tensors of `preprocess`. Raises
        UserError, which names an image that cannot be read.
        """
        size = self._trainer.cfg.DATALOADER.TEST.BATCH_SIZE if batch_size is None else batch_size
        check_count(size, "images per batch")
        samples, rows = _samples(images), [torch.empty(0, len(self.classnames))]
        with ThreadPoolExecutor(int(host_kind()["cores"] or 1)) as pool:
            while batch := list(islice(samples, size)):
                tensors = list(pool.map(self._preprocessed if preprocessed else self.preprocess, batch))
                rows.append(self._judge(torch.stack(tensors), batch[0]))
        return torch.cat(rows)

    @torch.no_grad()
    def _judge(self, batch, first):
        """Return probabilities (B, C) of preprocessed images (B, 3, S, S)."""
        name = str(first) if isinstance(first, (str, os.PathLike)) else "an image"
        with self._lock, self._trainer.autocast():
            logits = self._trainer.finite_logits(batch.to(self.device), name)
        return logits.float().softmax(dim=1).cpu()


def check_count(count: object, what: str) -> None:
    """Raise UserError unless a count is a whole number of at least 1."""
    if not isinstance(count, int) or count < 1:
        raise UserError(f"Expected a whole number of {what}, at least 1, got {count!r}.")


def _is_plain(trainer):
    """Return whether a trainer classifies by its model's logits alone."""
    names = ("predict", "model_inference")
    base = PromptTrainer if isinstance(trainer, PromptTrainer) else ZeroshotCLIP
    return all(getattr(type(trainer), name, None) is getattr(base, name, None) for name in names)


def _samples(images) -> Iterator:
    """Yield each image of what `probabilities` takes."""
    if isinstance(images, (str, os.PathLike, Image.Image)) or (isinstance(images, Tensor) and images.dim() == 3):
        images = [images]
    return map(image_of, each(images))


def each(samples) -> Iterable:
    """Return the samples of an iterable or a torch Dataset one by one; raises UserError for anything else."""
    if isinstance(samples, Dataset) and not isinstance(samples, IterableDataset):
        dataset: Any = samples  # Python's own iteration would need an IndexError at the end
        return (dataset[index] for index in range(len(dataset)))
    if not isinstance(samples, Iterable):
        raise UserError(f"Expected images, got {type(samples).__name__}: give a list or a torch Dataset of images.")
    return samples


def image_of(sample) -> Any:
    """Return the image of a data set's sample."""
    if isinstance(sample, dict) and (keys := [key for key in ("img", "image") if key in sample]):
        return sample[keys[0]]
    return sample[0] if isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) else sample


def picture_of(pixels: Tensor) -> Image.Image:
    """Return a tensor of pixels as a Pillow image; raises UserError for another shape, type or range."""
    is_float = pixels.is_floating_point()
    is_known = pixels.dtype == torch.uint8 or is_float and bool((pixels >= 0).all() and (pixels <= 1).all())
    if pixels.dim() != 3 or len(pixels) not in (1, 3) or not is_known:
        raise UserError(
            "Expected a tensor of pixels (3, H, W), uint8 or floats from 0 to 1, got "
            f"{str(pixels.dtype).removeprefix('torch.')} of shape {tuple(pixels.shape)}: give them before any "
            "normalisation (preprocessed=True of `probabilities` takes tensors of model.preprocess)."
        )
    return to_pil_image(((pixels.float() * 255).round() if is_float else pixels).to(torch.uint8).cpu())
